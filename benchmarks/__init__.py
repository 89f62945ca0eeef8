"""Measurements that are not part of the pipeline, `python -m benchmarks.<name>`."""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
