"""Makes torchvision importable beside every build of torch, before any test imports it."""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
