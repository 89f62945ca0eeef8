"""What: one thin module per DVC stage, `python -m stages.<name>`."""

import models  # noqa: F401  # prepares torchvision before any library imports it
