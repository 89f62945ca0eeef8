"""Weights are written with the mode of other files. The library safetensors lets their owner alone read them."""

import os
import tempfile
from pathlib import Path


def let_others_read(folder: str | Path) -> None:
    """Give the weights in a folder and below it the mode that a new file has there, as the umask says."""
    folder = Path(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as place:
        probe = Path(place) / "new"
        probe.touch()
        mode = probe.stat().st_mode
    for path in folder.rglob("*.safetensors"):
        os.chmod(path, mode)
