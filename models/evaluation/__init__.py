"""The evaluation (Sec 3, App C.2):

standard_trajectories  the ten camera and ten object trajectories, kept as data in trajectories.json
objects       where a clip's moving object and its background are, from its tracks
experiment    the methods, and what each of them makes of a picture and a trajectory
look          fidelity of the first frame, drift of colour and detail
measure       what is measured in one video, with every tracker
figures       from measured videos to entries with intervals
agreement     whether two trackers rank the methods alike
tables        the figures of metrics/evaluation.json
features      features for Frechet distances, by name
pictures      GIFs and contact sheets with the numbers beneath
report        the page
paper         figures that the paper prints, quoted
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
