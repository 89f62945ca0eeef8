"""What lies on disk. All stages read it, so it is one dependency in dvc.yaml:

paths    where everything lies
tables   tables as parquet: manifest, clips, captions
arrays   arrays of a clip: tracks, poses, draws, latents
curated  the curated clips, all parts together
items    items named by content
"""
