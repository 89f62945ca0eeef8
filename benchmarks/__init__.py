"""Measurements that are not part of the pipeline, `python -m benchmarks.<name>`."""

import models  # noqa: F401  # prepares torchvision before any library imports it
