"""What: one thin module per DVC stage, `python -m stages.<name>`."""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
