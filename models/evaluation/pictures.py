"""The report's pictures: GIFs side by side and contact sheets, with the numbers beneath."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from models.drawing import contact_sheet, draw_tracks, side_by_side
from models.evaluation.experiment import Case
from models.evaluation.measure import Measured
from models.metrics import equivalent_pixels
from models.video.write import encode_gif

PANEL_WIDTH = 192
SHEET_COLUMNS = 5
COLOURS = 128
FPS = 6


Results = Mapping[str, Mapping[str, list[Measured]]]


class Figure(NamedTuple):
    """title; file, relative to the page; lines of numbers beneath."""

    title: str
    file: str
    lines: tuple[str, ...] = ()


class ReportSection(NamedTuple):
    title: str
    note: str
    figures: list[Figure]


class GifSet(NamedTuple):
    """A section of GIFs: a set of cases by some methods side by side (None: all), on its first `pictures` pictures."""

    title: str
    note: str
    key: str
    methods: tuple[str, ...] | None
    pictures: int


TWO_LORAS = ("controlnet", "camera_lora", "object_lora")
GIF_SETS = (
    GifSet(
        "The same object stroke, two LoRAs (Fig 6)",
        "The camera LoRA should take the whole scene along, the object LoRA the object alone.",
        "obj_mc",
        TWO_LORAS,
        2,
    ),
    GifSet("Camera strokes", "The whole scene should follow.", "cam_mc", TWO_LORAS, 1),
    GifSet("Object strokes and camera strokes in one video", "Each should move its own.", "both", None, 1),
    GifSet(
        "Camera-free guidance, λ_trajs rising (Fig 7)",
        "Many equal strokes on one object: as λ_trajs rises the background should come to rest.",
        "many_strokes",
        None,
        1,
    ),
    GifSet(
        "Camera strokes over a picture with an object",
        "The object should move with its surroundings.",
        "scenes",
        ("camera_lora",),
        1,
    ),
)


class Shown:
    """The videos that the report shows: some methods on the first pictures of each set of cases."""

    def __init__(self, cases: Mapping[str, Sequence[Case]]):
        self._pictures = {key: list(dict.fromkeys(case.picture for case in of_set)) for key, of_set in cases.items()}
        self._videos: dict[tuple[str, str, int], np.ndarray] = {}

    def shows(self, key: str, method: str, case: Case) -> bool:
        """Whether the report shows the video of a case by a method."""
        return any(
            key == gifs.key and self.number(key, case) < gifs.pictures and method in (gifs.methods or (method,))
            for gifs in GIF_SETS
        )

    def keep(self, key: str, method: str, case: Case, video: np.ndarray) -> None:
        """Keep a video (T, H, W, 3) for the report."""
        self._videos[key, method, case.number] = video

    def number(self, key: str, case: Case) -> int:
        """The index of a case's picture among the pictures of its set."""
        return self._pictures[key].index(case.picture)

    def video(self, key: str, method: str, case: Case) -> np.ndarray:
        return self._videos[key, method, case.number]


def draw_report(folder: Path, results: Results, shown: Shown, tracker: str) -> list[ReportSection]:
    """Write the pictures into `folder`, emptied first. Returns the page's content, with numbers by `tracker`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sheets = [
        _sheet(folder, "camera LoRA, camera strokes", "cam_mc", "camera_lora", results, shown),
        _sheet(folder, "object LoRA, object strokes", "obj_mc", "object_lora", results, shown),
    ]
    return [
        *(_gif_section(folder, gifs, results, shown, tracker) for gifs in GIF_SETS),
        ReportSection("Contact sheets", "One trajectory a row, time from left to right.", sheets),
    ]


def _sheet(folder: Path, title: str, key: str, method: str, results: Results, shown: Shown) -> Figure:
    cases = [video.case for video in results[key][method] if shown.number(key, video.case) == 0]
    rows = [draw_tracks(shown.video(key, method, case), case.wanted, _scale(case)) for case in cases]
    file = f"sheet-{method}.png"
    Image.fromarray(contact_sheet(rows, SHEET_COLUMNS)).save(folder / file)
    return Figure(title, file)


def _gif_section(folder: Path, gifs: GifSet, results: Results, shown: Shown, tracker: str) -> ReportSection:
    key, methods = gifs.key, list(gifs.methods or results[gifs.key])
    figures = []
    for of_case in zip(*(results[key][name] for name in methods), strict=True):
        case = of_case[0].case
        number = shown.number(key, case)
        if number >= gifs.pictures:
            continue
        strokes = np.concatenate([case.wanted, case.camera], axis=1) if case.camera.size else case.wanted
        panels = [draw_tracks(shown.video(key, name, case), strokes, _scale(case)) for name in methods]
        file = f"{key}-{number}-{case.trajectory}.gif"
        (folder / file).write_bytes(encode_gif(side_by_side(panels, methods), FPS, COLOURS))
        lines = tuple(f"{name}: {_numbers(video, tracker)}" for name, video in zip(methods, of_case, strict=True))
        figures.append(Figure(case.trajectory.replace("_", " "), file, lines))
    return ReportSection(gifs.title, f"{gifs.note} Numbers by {tracker}.", figures)


def _numbers(video: Measured, tracker: str) -> str:
    """Error and motion of background and object, in pixels at 384x256-equivalent and as shares of the stroke."""
    motion, width = video.motions[tracker], video.case.first_frame.shape[1]
    parts = [f"error {equivalent_pixels(motion.error.px, width):.1f} px" + (" (lost)" if motion.error.lost else "")]
    if motion.background is not None:
        moved = equivalent_pixels(motion.background.px, width)
        parts.append(f"background {moved:.1f} px, {100 * motion.background.share:.0f} % of the stroke")
    if motion.object_alone is not None:
        parts.append(f"object against background {equivalent_pixels(motion.object_alone.px, width):.1f} px")
    return "; ".join(parts)


def _scale(case: Case) -> int:
    return max(1, round(PANEL_WIDTH / case.first_frame.shape[1]))
