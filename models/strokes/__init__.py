"""What users draw, and the files that strokes come in:

stroke          strokes on a canvas, their way to positions per frame
formats         one module per file format, read and written
trajectories    files and requests of any format, by their content
thinning        strokes of few points from tracks of many
camera_presets  camera moves by name
"""
