"""Coordinates of ComfyUI's tools: [[{"x": x, "y": y}, ...], ...], one point per frame, or one such list.

The track nodes of ComfyUI, KJNodes, and the ATI and Wan-Move wrappers exchange them as text. Those nodes also take
single quotes, and a list of such texts. A file may hold the text itself as one JSON string. A track that ends early is
hidden from there on.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from models.geometry import Size
from models.strokes.formats.common import canvas_lost, from_tracks, one_kind, parse_json, to_tracks
from models.strokes.stroke import MAX_POINTS, MAX_STROKES, Trajectories, TrajectoryError

MOST_QUOTES = 4  # texts within texts that are unpacked
ENDS_EARLY = "tracks are {0} to {1} points long: the shorter ones are hidden after their end"


class ComfyUIFormat:
    """Lists of {"x", "y"}."""

    name: ClassVar[str] = "comfyui"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".txt")
    default_frames: ClassVar[int | None] = 121  # what ComfyUI's own track node works with
    fixed_frames: ClassVar[bool] = False

    def recognises(self, content: Any) -> bool:
        if isinstance(content, str):
            return True
        if not isinstance(content, list) or not content:
            return False
        first = content[0]
        return isinstance(first, str | dict) or (isinstance(first, list) and bool(first) and isinstance(first[0], dict))

    def decode(self, content: Any, canvas: Size, path: Path | None = None) -> Trajectories:
        """Strokes on `canvas`: the format holds none."""
        content = _lists(content)
        if len(content) > MAX_STROKES:
            raise TrajectoryError(f"trajectories: {len(content)} tracks; at most {MAX_STROKES} are read")
        tracks = [_positions(f"trajectories[{n}]", track) for n, track in enumerate(content)]
        lengths = [len(track) for track in tracks]
        points = np.stack([np.concatenate([t, np.repeat(t[-1:], max(lengths) - len(t), 0)]) for t in tracks], axis=1)
        shown = np.arange(max(lengths))[:, None] < np.array(lengths)
        drawn = from_tracks(points, shown, canvas)
        if min(lengths) == max(lengths):
            return drawn
        note = ENDS_EARLY.format(min(lengths), max(lengths))
        return Trajectories(*canvas, drawn.strokes, frames=drawn.frames, notes=(*drawn.notes, note))

    def encode(self, drawn: Trajectories, path: Path, frames: int) -> tuple[dict[Path, bytes], list[str]]:
        """One file, one point per frame. Visibility ends a track at its last visible point and cannot do more."""
        drawn, lost = one_kind(drawn)
        lost.append(canvas_lost(drawn))
        tracks, shown = to_tracks(drawn.strokes, frames)
        lists, gaps, hidden = [], 0, 0
        for n in range(tracks.shape[1]):
            if not shown[:, n].any():
                hidden += 1
                continue
            end = int(np.flatnonzero(shown[:, n])[-1]) + 1
            gaps += not shown[:end, n].all()
            lists.append([{"x": float(x), "y": float(y)} for x, y in tracks[:end, n].astype(np.float64)])
        if gaps:
            lost.append(f"gaps in the visibility of {gaps} tracks were left out: their points count as visible")
        if hidden:
            lost.append(f"{hidden} tracks that are never visible were left out")
        if not lists:
            raise TrajectoryError("trajectories: no track is ever visible, so the format could hold none")
        return {path: f"{json.dumps(lists)}\n".encode()}, lost


def _lists(content: Any) -> list[Any]:
    """The tracks of content that may be text, a list of texts, or one track. Raises TrajectoryError, see `decode`."""
    content = _unpacked("trajectories", content)
    if not isinstance(content, list) or not content:
        raise TrajectoryError("trajectories: expected a list of tracks with at least one")
    if isinstance(content[0], dict):
        return [content]
    tracks: list[Any] = []
    for n, each in enumerate(content):
        found = _unpacked(f"trajectories[{n}]", each)
        many = isinstance(each, str) and isinstance(found, list) and found and isinstance(found[0], list)
        tracks += found if many else [found]
    return tracks


def _unpacked(field: str, content: Any) -> Any:
    """What a text holds, however often it was quoted; anything else as it is."""
    for _ in range(MOST_QUOTES):
        if not isinstance(content, str):
            break
        try:
            content = parse_json(content)
        except (ValueError, RecursionError):
            raise TrajectoryError(f"{field}: not readable as a list of points") from None
    return content


def _positions(field: str, track: Any) -> np.ndarray:
    """Positions (T, 2) of one track."""
    if not isinstance(track, list) or not 1 <= len(track) <= MAX_POINTS:
        raise TrajectoryError(f"{field}: expected a list of 1 to {MAX_POINTS} points")
    for t, point in enumerate(track):
        for axis in ("x", "y"):
            value = point.get(axis) if isinstance(point, dict) else None
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise TrajectoryError(f'{field}[{t}].{axis}: expected a number, as in {{"x": 10, "y": 20}}')
    try:
        return np.array([[point["x"], point["y"]] for point in track], np.float64)
    except OverflowError:
        raise TrajectoryError(f"{field}: a number is too large") from None
