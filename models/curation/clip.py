"""From a video file to a clip (Sec 2.2, steps 2 to 4)."""

from pathlib import Path

import numpy as np

from models.curation.crop import cover_crop
from models.curation.cuts import longest_scene
from models.curation.motion import motion_score
from models.curation.outcome import Clip, Dropped, Facts, Unusable
from models.curation.sampling import draw_frames
from models.estimators import CutDetector, FlowEstimator
from models.video import Size, VideoError, read_frames, read_info

CUTS_LONG_SIDE = 192
MAX_ASPECT = 8


def curate_clip(
    path: str | Path,
    size: Size,
    count: int,
    interval: tuple[int, int],
    detect_cuts: CutDetector,
    estimate_flow: FlowEstimator,
    rng: np.random.Generator,
    span: tuple[float, float] | None = None,
) -> Clip | Dropped:
    """Find the longest scene, draw `count` frames of it, score their motion, crop them to `size`.

    Whatever the file holds, the answer is a clip or the reason why there is none.

    Args:
        size: Width and height of the clip.
        interval: Lowest and highest frame interval to draw from.
        span: First and last second of the file to use; None uses all of it.
    """
    facts = Facts()
    try:
        return _curate(Path(path), size, count, interval, detect_cuts, estimate_flow, rng, span, facts)
    except (VideoError, Unusable) as error:
        return Dropped(str(error), facts)


def _curate(
    path: Path,
    size: Size,
    count: int,
    interval: tuple[int, int],
    detect_cuts: CutDetector,
    estimate_flow: FlowEstimator,
    rng: np.random.Generator,
    span: tuple[float, float] | None,
    facts: Facts,
) -> Clip:
    info = read_info(path)
    facts.width, facts.height, facts.fps = info.width, info.height, info.fps
    if max(info.width, info.height) > MAX_ASPECT * min(info.width, info.height):
        raise Unusable(f"frames of {info.width}x{info.height} are more than {MAX_ASPECT} times longer than wide")

    cuts, length = detect_cuts(read_frames(path, _small(info.width, info.height), span=span))
    scene = longest_scene(cuts, length)
    facts.scene_start, facts.scene_end = scene
    indices, facts.interval = draw_frames(scene, count, interval, rng)
    facts.first_frame = indices[0]

    transform = cover_crop((info.width, info.height), size)
    frames = np.stack(list(read_frames(path, transform.scaled, indices, span)))
    facts.motion_score = motion_score(estimate_flow(frames))
    return Clip(np.ascontiguousarray(transform.crop(frames)), info.fps / facts.interval, facts)


def _small(width: int, height: int) -> Size:
    """The size at which cuts are looked for: the long side at most CUTS_LONG_SIDE pixels."""
    scale = min(1.0, CUTS_LONG_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
