"""From a video file to a clip (Sec 2.2, steps 2 to 4), with all that is measured on the way."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from models.curation.camera import camera_motion
from models.curation.cuts import all_scenes, inner_scene, longest_scene
from models.curation.duplicates import FRAMES, signature
from models.curation.motion import motion_score
from models.curation.outcome import Clip, Dropped, Facts, Unusable
from models.curation.pace import SAME, draw_at_pace, find_pace
from models.curation.quality import Bars, find_bars, measure_quality
from models.curation.shared_footage import fingerprint
from models.curation.side_fill import find_side_fill
from models.curation.text import text_share
from models.curation.treatment import describe_treatment
from models.curation.window import Window, without_bars
from models.estimators import CutDetector, FlowEstimator, TextFinder, find_transitions
from models.video.decode import Noticed, UnreadableVideo
from models.video.read import SAME_RATE, Size, VideoInfo, read_chosen_frames, read_info, read_stamped_frames, true_rate

SCAN_LONG_SIDE = 192
MAX_ASPECT = 8
MAX_SAMPLES = 256
COMPARED_SCENES = 16  # of a video, the longest ones, by whose footage other videos are found that share it
WRONG_RATE = 0.1  # share by which the rate of a header may differ from the mean rate of the time stamps


Scenes = Literal["longest", "all"]


@dataclass(frozen=True)
class ClipSettings:
    """size: width and height of the clip. interval: lowest and highest to draw from. margin: see `inner_scene`."""

    size: Size
    frames: int
    interval: tuple[int, int]
    margin: int
    crop_bars: bool


@dataclass(frozen=True)
class Scan:
    """What one reading of a video showed. transitions: see `models.curation.cuts`; frames: how many there are.

    times: (frames,) seconds since the first frame of the file, NaN where unknown. span: that was read.
    """

    path: Path
    span: tuple[float, float] | None
    info: VideoInfo
    fps: float
    noticed: Noticed
    samples: "Samples"
    transitions: list[tuple[int, int]]
    frames: int
    times: np.ndarray


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
        span: First and last second of the file to use, counted from its first frame; None uses all of it.
    """
    return curate_scenes(path, settings, detect_cuts, estimate_flow, lambda scene: rng, "longest", span)[0]


def curate_scenes(
    path: str | Path,
    settings: ClipSettings,
    detect_cuts: CutDetector,
    estimate_flow: FlowEstimator,
    rng_of: Callable[[int], np.random.Generator],
    scenes: Scenes,
    span: tuple[float, float] | None = None,
    find_text: TextFinder | None = None,
) -> list[Clip | Dropped]:
    """As `curate_clip`, of the longest scene or of all scenes that are long enough; at least one answer.

    Args:
        rng_of: The random numbers of a scene, by its first frame.
        find_text: None leaves `text_share` unknown.
    """
    facts = Facts()
    try:
        scan = _scan(Path(path), detect_cuts, span, facts)
    except Unusable as error:
        return [Dropped(error.step, str(error), facts)]
    except UnreadableVideo as error:
        return [Dropped("decode", str(error), facts)]
    facts.footage = _footage(scan, settings.margin)
    longest = longest_scene(scan.transitions, scan.frames)
    chosen = [longest]
    if scenes == "all":
        scenes_there = all_scenes(scan.transitions, scan.frames)
        chosen = [scene for scene in scenes_there if _fits(scene, scan, settings)] or [longest]
    return [
        _try_scene(scan, scene, settings, estimate_flow, find_text, rng_of(scene[0]), replace(facts))
        for scene in chosen
    ]


def _scan(path: Path, detect_cuts: CutDetector, span: tuple[float, float] | None, facts: Facts) -> Scan:
    info = read_info(path)
    facts.width, facts.height, facts.fps = info.width, info.height, info.fps
    for name, value in asdict(info.source).items():
        if hasattr(facts, name):
            setattr(facts, name, value)
    if max(info.width, info.height) > MAX_ASPECT * min(info.width, info.height):
        raise Unusable(
            "shape", f"frames of {info.width}x{info.height} are more than {MAX_ASPECT} times longer than wide"
        )
    samples, noticed = Samples(), Noticed()
    frames = read_stamped_frames(path, _small(info.width, info.height), span, noticed)
    found, _ = find_transitions(detect_cuts, samples.watch_distinct(frames))
    facts.frames = len(samples.stamps)
    times = (np.array(samples.stamps, np.float64) - info.first) * info.tick  # None becomes NaN
    facts.fps = true_rate(info.fps, times, WRONG_RATE)
    facts.interlaced, facts.flaws = noticed.interlaced, len(noticed.flaws)
    transitions = [(samples.passed[first], samples.passed[end]) for first, end in found]
    transitions += [(flaw, flaw) for flaw in noticed.flaws]
    return Scan(path, span, info, facts.fps, noticed, samples, transitions, facts.frames, times)


def _footage(scan: Scan, margin: int) -> str:
    """See `fingerprint`."""
    scenes = sorted(all_scenes(scan.transitions, scan.frames), key=lambda scene: (scene[0] - scene[1], scene))
    inner = [inner_scene(scene, scan.frames, margin) for scene in scenes[:COMPARED_SCENES]]
    samples = [(scan.samples.indices(scene), scan.samples.of(scene)) for scene in inner]
    return fingerprint((indices, without_bars(_bars_of(seen)[0], seen)) for indices, seen in samples)


def _bars_of(seen: np.ndarray) -> tuple[Bars, bool]:
    """The bars around the picture of grey frames (T, H, W), and whether a blurred fill is part of them."""
    bars = find_bars(seen)
    fill = find_side_fill(without_bars(bars, seen))
    return bars.around(fill), fill != Bars()


def _fits(scene: tuple[int, int], scan: Scan, settings: ClipSettings) -> bool:
    start, end = inner_scene(scene, scan.frames, settings.margin)
    return end - start > (settings.frames - 1) * settings.interval[0]


def _try_scene(
    scan: Scan,
    scene: tuple[int, int],
    settings: ClipSettings,
    estimate_flow: FlowEstimator,
    find_text: TextFinder | None,
    rng: np.random.Generator,
    facts: Facts,
) -> Clip | Dropped:
    try:
        return _clip_of(scan, scene, settings, estimate_flow, find_text, rng, facts)
    except Unusable as error:
        return Dropped(error.step, str(error), facts)
    except UnreadableVideo as error:
        return Dropped("decode", str(error), facts)


def _clip_of(
    scan: Scan,
    scene: tuple[int, int],
    settings: ClipSettings,
    estimate_flow: FlowEstimator,
    find_text: TextFinder | None,
    rng: np.random.Generator,
    facts: Facts,
) -> Clip:
    info, samples = scan.info, scan.samples
    facts.scene_start, facts.scene_end = scene
    scene = inner_scene(scene, scan.frames, settings.margin)
    pace = find_pace(scene, np.array(samples.changes), scan.times)
    facts.hold, facts.even = pace.hold, pace.even
    facts.treatment = describe_treatment(info, scan.fps, scan.noticed, pace)
    indices, facts.interval = draw_at_pace(pace, scan.times, settings.frames, settings.interval, rng)
    facts.first_frame = indices[0]

    seen = samples.of(scene)
    bars, filled = _bars_of(seen) if settings.crop_bars else (Bars(), False)
    if filled:
        facts.treatment = ", ".join(filter(None, [facts.treatment, "blurred fill beside the picture cut off"]))
    facts.signature = signature(_spread(without_bars(bars, seen), FRAMES))
    window = Window.of((info.width, info.height), bars, settings.size)
    facts.bars_x, facts.bars_y = info.width - window.crop.source[0], info.height - window.crop.source[1]

    frames = _cut_frames(scan, window, indices)
    facts.motion_score = motion_score(estimate_flow(frames))
    clip = np.ascontiguousarray(window.crop.crop(frames))
    if find_text:
        facts.text_share = text_share(find_text, indices, settings.size, partial(_picture, scan, bars))
    for name, value in asdict(measure_quality(clip)).items():
        setattr(facts, name, value)
    if camera := camera_motion(clip):
        for name, value in asdict(camera).items():
            setattr(facts, name, value)
    times = scan.times[indices]
    nominal = scan.fps / (facts.interval * pace.hold)
    mean_steps = np.linspace(times[0], times[-1], len(times))
    facts.clip_fps = true_rate(nominal, mean_steps, SAME_RATE if pace.even and pace.hold == 1 else 0.0)
    return Clip(clip, facts.clip_fps, facts, times, window.view)


def _cut_frames(scan: Scan, window: Window, indices: list[int]) -> np.ndarray:
    """The picture between the bars of some frames, scaled to cover the clip."""
    stamps = scan.samples.stamps
    return window.cut(read_chosen_frames(scan.path, window.scaled, indices, stamps, scan.span, scan.noticed))


def _picture(scan: Scan, bars: Bars, size: Size, indices: list[int]) -> np.ndarray:
    """What a clip of this size shows of some frames."""
    window = Window.of((scan.info.width, scan.info.height), bars, size)
    return np.ascontiguousarray(window.crop.crop(_cut_frames(scan, window, indices)))


class Samples:
    """Grey frames of a video while it passes by, at equal distances and at most MAX_SAMPLES; and all time stamps.

    changes: mean difference of grey values of each frame from the one before; 0 for the first.
    passed: indices of the frames that `watch_distinct` passed on.
    """

    def __init__(self) -> None:
        self.stamps: list[int | None] = []
        self.changes: list[float] = []
        self.passed: list[int] = []
        self._stride = 1
        self._frames: dict[int, np.ndarray] = {}

    def watch(self, frames: Iterable[tuple[np.ndarray, int | None]]) -> Iterator[np.ndarray]:
        """Pass (H, W, 3) frames on and remember some."""
        before = None
        for index, (frame, stamp) in enumerate(frames):
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            self.stamps.append(stamp)
            self.changes.append(0.0 if before is None else float(cv2.absdiff(grey, before).mean()))
            before = grey
            if index % self._stride == 0:
                self._frames[index] = grey
                if len(self._frames) > MAX_SAMPLES:
                    self._stride *= 2
                    self._frames = {i: kept for i, kept in self._frames.items() if i % self._stride == 0}
            yield frame

    def watch_distinct(self, frames: Iterable[tuple[np.ndarray, int | None]]) -> Iterator[np.ndarray]:
        """As `watch`, without frames that repeat the one before: between them any change would look like a cut."""
        for frame in self.watch(frames):
            index = len(self.stamps) - 1
            if index == 0 or self.changes[index] >= SAME:
                self.passed.append(index)
                yield frame

    def indices(self, scene: tuple[int, int]) -> list[int]:
        """Which frames of a scene were remembered; the nearest one if none lies in it."""
        inside = [index for index in self._frames if scene[0] <= index < scene[1]]
        return inside or [min(self._frames, key=lambda index: abs(index - scene[0]))]

    def of(self, scene: tuple[int, int]) -> np.ndarray:
        """The frames (T, H, W) of `indices`."""
        return np.stack([self._frames[index] for index in self.indices(scene)])


def _spread(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` frames at the middles of as many equal parts."""
    return frames[((np.arange(count) + 0.5) * len(frames) / count).astype(int)]


def _small(width: int, height: int) -> Size:
    """The size at which a video is scanned: the long side at most SCAN_LONG_SIDE pixels."""
    scale = min(1.0, SCAN_LONG_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
