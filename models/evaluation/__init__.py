"""The evaluation (Sec 3, App C.2):

trajectories  the ten camera and ten object trajectories, kept as data in trajectories.json
objects       where a clip's moving object and its background are, from its tracks
experiment    the methods, and what each of them makes of a picture and a trajectory
features      features for Frechet distances, by name
report        the page
"""
