"""The two LoRA sets on the motion ControlNet (Sec 2.4):

sets             add, train, fold, load and save a set (Eq. 2)
orthogonal_loss  Eq. 4
headers          the header of a LoRA file in one order
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
