"""Make torchvision importable beside a torch build that its compiled operators do not match.

PyPI's torchvision is built for CUDA; beside a CPU-only torch its extension does not load, and `import torchvision`
then fails while it registers fake versions of two operators. Nothing here uses those operators (box NMS), so declaring
their schemas is enough.
"""

import importlib.util
from pathlib import Path

import torch


def ensure_torchvision_ops() -> None:
    """Declare `torchvision::nms` and `torchvision::qnms` where torchvision's own extension cannot."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    extensions = [path for path in Path(spec.origin).parent.glob("_C.*") if path.suffix in (".so", ".pyd", ".dylib")]
    try:
        for extension in extensions:
            torch.ops.load_library(extension)
    except OSError:
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", schema)
