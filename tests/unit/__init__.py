"""Imports `models` first, which makes torchvision importable beside every build of torch."""

import models  # noqa: F401
