"""Data curation (Sec 2.2), one pure step per module:

cuts        cut positions -> the longest consistent scene
frame_sampling  a run of frames at a random interval inside that scene
pace        which frames of the scene are new pictures, evenly spaced in time
quality     black bars; black, frozen, dark and blurred clips
side_fill   the blurred copy of itself that a picture may stand in
window      what is scaled and cropped
camera      how the camera moves
motion      motion score of a clip; the share of a split that moves least
duplicates  the same footage again
clip        the steps above, from a video file to a clip
selection   which clips are kept
track_facts  how good the tracks of a clip are; whether they are good enough
captioning  one caption from those of several frames
sparse      choose a few tracks, by motion intensity
report      the page about all that, with pictures
subset      training, validation or test, by source video
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
