"""Figures that other papers print for these benchmarks, quoted."""

from typing import Literal, NamedTuple

Benchmark = Literal["davis", "movebench", "magicbench"]


class QuotedFigure(NamedTuple):
    """A printed figure. measure: what it is; source: who printed it."""

    method: str
    measure: str
    value: float
    source: str


MOTION_STREAM = "MotionStream (arXiv:2511.01266), its comparison"
MAGIC_MOTION = "MagicMotion (arXiv:2503.16421), its comparison; needs a segmentation network, not measured here"
PICTURE_SIZES: dict[Benchmark, str] = {"davis": "832x480", "movebench": "832x480", "magicbench": "the video's size"}
NOTE = "quoted: other points, another tracker and other frames; beside ours, not against them"
QUOTED_FIGURES: dict[Benchmark, tuple[QuotedFigure, ...]] = {
    "davis": (
        QuotedFigure("Image Conductor", "EPE, px at 832x480", 91.6, MOTION_STREAM),
        QuotedFigure("the best of that comparison", "EPE, px at 832x480", 5.35, MOTION_STREAM),
        QuotedFigure("Image Conductor", "EPE, px, on clips of Sora", 31.2, MOTION_STREAM),
        QuotedFigure("the best of that comparison", "EPE, px, on clips of Sora", 2.71, MOTION_STREAM),
        QuotedFigure("Image Conductor", "mask IoU, %", 34.39, MAGIC_MOTION),
        QuotedFigure("Image Conductor", "box IoU, %", 43.41, MAGIC_MOTION),
    ),
    "movebench": (),
    "magicbench": (
        QuotedFigure("Image Conductor", "mask IoU, %", 51.76, MAGIC_MOTION),
        QuotedFigure("Image Conductor", "box IoU, %", 52.9, MAGIC_MOTION),
    ),
}
