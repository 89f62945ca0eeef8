"""From a video file to a clip (Sec 2.2, steps 2 to 4), with all that is measured on the way."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from models.curation.camera import camera_motion
from models.curation.cuts import inner_scene, longest_scene
from models.curation.duplicates import FRAMES, signature
from models.curation.frame_sampling import draw_frames
from models.curation.motion import motion_score
from models.curation.outcome import Clip, Dropped, Facts, Unusable, View
from models.curation.quality import Bars, find_bars, measure_quality
from models.estimators import CutDetector, FlowEstimator
from models.geometry import CoverCrop, cover_crop
from models.video.read import Size, UnreadableVideo, VideoInfo, read_chosen_frames, read_info, read_stamped_frames

SCAN_LONG_SIDE = 192
MAX_ASPECT = 8
MAX_SAMPLES = 256


@dataclass(frozen=True)
class ClipSettings:
    """size: width and height of the clip. interval: lowest and highest to draw from. margin: see `inner_scene`."""

    size: Size
    frames: int
    interval: tuple[int, int]
    margin: int
    crop_bars: bool


def curate_clip(
    path: str | Path,
    settings: ClipSettings,
    detect_cuts: CutDetector,
    estimate_flow: FlowEstimator,
    rng: np.random.Generator,
    span: tuple[float, float] | None = None,
) -> Clip | Dropped:
    """Find the longest scene, draw frames of it, measure them, crop them to size.

    Whatever the file holds, the answer is a clip or the reason why there is none.

    Args:
        span: First and last second of the file to use; None uses all of it.
    """
    facts = Facts()
    try:
        return _curate(Path(path), settings, detect_cuts, estimate_flow, rng, span, facts)
    except Unusable as error:
        return Dropped(error.step, str(error), facts)
    except UnreadableVideo as error:
        return Dropped("decode", str(error), facts)


def _curate(
    path: Path,
    settings: ClipSettings,
    detect_cuts: CutDetector,
    estimate_flow: FlowEstimator,
    rng: np.random.Generator,
    span: tuple[float, float] | None,
    facts: Facts,
) -> Clip:
    info = read_info(path)
    facts.width, facts.height, facts.fps = info.width, info.height, info.fps
    if max(info.width, info.height) > MAX_ASPECT * min(info.width, info.height):
        raise Unusable(
            "shape", f"frames of {info.width}x{info.height} are more than {MAX_ASPECT} times longer than wide"
        )

    samples = Samples()
    cuts, facts.frames = detect_cuts(samples.watch(read_stamped_frames(path, _small(info.width, info.height), span)))
    scene = longest_scene(cuts, facts.frames)
    facts.scene_start, facts.scene_end = scene
    scene = inner_scene(scene, facts.frames, settings.margin)
    indices, facts.interval = draw_frames(scene, settings.frames, settings.interval, rng)
    facts.first_frame = indices[0]

    seen = samples.of(scene)
    bars = find_bars(seen) if settings.crop_bars else Bars()
    facts.signature = signature(_spread(_without(bars, seen), FRAMES))
    window = _Window.of(info, bars, settings.size)
    facts.bars_x, facts.bars_y = info.width - window.crop.source[0], info.height - window.crop.source[1]

    frames = window.cut(read_chosen_frames(path, window.scaled, indices, samples.stamps, span))
    facts.motion_score = motion_score(estimate_flow(frames))
    clip = np.ascontiguousarray(window.crop.crop(frames))
    for name, value in asdict(measure_quality(clip)).items():
        setattr(facts, name, value)
    if camera := camera_motion(clip):
        for name, value in asdict(camera).items():
            setattr(facts, name, value)
    times = np.array([samples.stamps[index] for index in indices], np.float64) * info.tick  # None becomes NaN
    return Clip(clip, info.fps / facts.interval, facts, times, window.view)


class Samples:
    """Grey frames of a video while it passes by, at equal distances and at most MAX_SAMPLES; and all time stamps."""

    def __init__(self) -> None:
        self.stamps: list[int | None] = []
        self._stride = 1
        self._frames: dict[int, np.ndarray] = {}

    def watch(self, frames: Iterable[tuple[np.ndarray, int | None]]) -> Iterator[np.ndarray]:
        """Pass (H, W, 3) frames on and remember some."""
        for index, (frame, stamp) in enumerate(frames):
            self.stamps.append(stamp)
            if index % self._stride == 0:
                self._frames[index] = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
                if len(self._frames) > MAX_SAMPLES:
                    self._stride *= 2
                    self._frames = {i: kept for i, kept in self._frames.items() if i % self._stride == 0}
            yield frame

    def of(self, scene: tuple[int, int]) -> np.ndarray:
        """Those of a scene (T, H, W), or the nearest one if none lies in it."""
        inside = [frame for index, frame in self._frames.items() if scene[0] <= index < scene[1]]
        return np.stack(inside or [self._frames[min(self._frames, key=lambda index: abs(index - scene[0]))]])


@dataclass(frozen=True)
class _Window:
    """How to scale a video's frames, and which part of them is the picture between its bars."""

    scaled: Size
    offset: tuple[int, int]
    crop: CoverCrop

    @classmethod
    def of(cls, info: VideoInfo, bars: Bars, target: Size) -> "_Window":
        width = info.width - round(info.width * bars.left) - round(info.width * bars.right)
        height = info.height - round(info.height * bars.top) - round(info.height * bars.bottom)
        crop = cover_crop((width, height), target)
        x, y = crop.scaled[0] / width, crop.scaled[1] / height
        scaled = max(crop.scaled[0], round(info.width * x)), max(crop.scaled[1], round(info.height * y))
        left, top = round(info.width * bars.left * x), round(info.height * bars.top * y)
        return cls(scaled, (min(left, scaled[0] - crop.scaled[0]), min(top, scaled[1] - crop.scaled[1])), crop)

    @property
    def view(self) -> View:
        """What is left of a frame when it has been cut and cropped."""
        (width, height), (left, top) = self.scaled, np.add(self.offset, self.crop.offset)
        target = self.crop.target
        return View(float(left / width), float(top / height), target[0] / width, target[1] / height)

    def cut(self, frames: np.ndarray) -> np.ndarray:
        """The picture (T, h, w, 3) of frames (T, H, W, 3) that were scaled to `scaled`."""
        (left, top), (width, height) = self.offset, self.crop.scaled
        return frames[:, top : top + height, left : left + width]


def _without(bars: Bars, frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:]
    rows = slice(round(height * bars.top), height - round(height * bars.bottom))
    columns = slice(round(width * bars.left), width - round(width * bars.right))
    return frames[:, rows, columns]


def _spread(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` frames at the middles of as many equal parts."""
    return frames[((np.arange(count) + 0.5) * len(frames) / count).astype(int)]


def _small(width: int, height: int) -> Size:
    """The size at which a video is scanned: the long side at most SCAN_LONG_SIDE pixels."""
    scale = min(1.0, SCAN_LONG_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
