"""Public benchmarks of motion control, for `image-conductor benchmark`:

case        one picture with the motion that is asked for
frames      pictures and masks of a folder
davis       DAVIS 2017, as published
movebench   MoveBench (Wan-Move), as published
magicbench  MagicBench (MagicMotion), as published
error       end-point error of one video on visible points
results     one file per finished case, so that a run can go on
figures     means over cases, and the table
quoted      figures of other papers
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
