"""Where weights come from:

pocket    the small networks that are trained here
hub       the published parts of the paper's base, from a hub or from folders
official  the authors' released checkpoints
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
