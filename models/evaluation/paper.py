"""Figures that the paper prints, quoted."""

from typing import NamedTuple


class Row(NamedTuple):
    """A row of Table 1. cam_mc, obj_mc in pixels; overall, quality, motion: share of votes in the human study, in %."""

    method: str
    fid: float
    fvd: float
    cam_mc: float
    obj_mc: float
    overall: float
    quality: float
    motion: float


TABLE_1 = (
    Row("DragNUWA", 237.26, 1283.85, 48.72, 51.24, 31.8, 37.1, 27.7),
    Row("DragAnything", 243.17, 1287.15, 66.54, 60.97, 6.5, 8.1, 6.3),
    Row("Image Conductor", 209.74, 1116.17, 33.49, 42.38, 61.7, 54.8, 66.0),
)
