"""The evaluation (Sec 3, App C.2):

standard_trajectories  the ten camera and ten object trajectories, kept as data in trajectories.json
objects       a clip's moving object and its background, found from tracks
experiment    the methods, and their videos of pictures and trajectories
look          fidelity of the first frame, drift of colour and detail
measure       the measurements of one video, with every tracker
figures       from measured videos to entries with intervals
agreement     whether two trackers rank the methods alike
tables        the figures of metrics/evaluation.json
features      features for Frechet distances, by name
pictures      GIFs and contact sheets with the numbers beneath
report        the page
paper         figures quoted from the paper
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
