"""Make torchvision importable beside a torch build that its compiled operators do not match.

PyPI's torchvision is built for CUDA; beside a CPU-only torch its extension does not load, and `import torchvision`
then fails while it registers fake versions of two operators. Nothing here uses those operators (box NMS), so declaring
their schemas is enough. This happens when a library first imports torchvision. A program that never imports it does not
load torch.
"""

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path


def prepare_torchvision() -> None:
    """Call `_declare_ops` right before the first import of torchvision."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Torchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Torchvision())


class _Torchvision(MetaPathFinder):
    """An import hook that runs before all others and finds no module."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            _declare_ops()
        return None


def _declare_ops() -> None:
    """Declare `torchvision::nms` and `torchvision::qnms` where torchvision's own extension cannot."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch

    extensions = [path for path in Path(spec.origin).parent.glob("_C.*") if path.suffix in (".so", ".pyd", ".dylib")]
    try:
        for extension in extensions:
            torch.ops.load_library(extension)
    except OSError:
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", schema)
