"""Trajectory files of this project and of other tools, one module per format, read and written.

project    this project's JSON
authors    the bare lists of the Image Conductor authors
comfyui    coordinates of ComfyUI's track nodes, KJNodes, and the ATI and Wan-Move wrappers
wan_move   Wan-Move's arrays, tracks and visibility in two files
cotracker  tensors of CoTracker in one file
ati        ATI's .pth
common     the interface of a format; arrays of tracks
"""
