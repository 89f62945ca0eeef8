"""The data on disk. All stages use this folder, so it is one dependency in dvc.yaml:

paths    where every file lies
tables   tables as parquet: manifest, clips, captions
arrays   arrays of a clip: tracks, poses, draws, latents
curated  the curated clips, all parts together
items    items named by content
measures what was measured of each raw video
shards   many items in few files
"""
