"""The folder of finished videos: one folder an entry, with all that it takes to make the video again.

<time>-<seed>/ picture.png keyframe-<frame>.png strokes.json drawing.json request.json entry.json video.mp4
               thumbnail.jpg
"""

import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from models.disk import disk_fault, write_whole
from models.errors import UserError

if TYPE_CHECKING:
    from models.serving.make_video import MadeVideo
    from models.serving.studio.drawing import Drawing

NAME = re.compile(r"\d{8}-\d{6}-\d{3}-\d+")
THUMBNAIL = (240, 240)


@dataclass(frozen=True)
class HistoryEntry:
    """A finished video and its facts: settings of the form, errors, what was cropped."""

    folder: Path
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def video(self) -> Path:
        return self.folder / "video.mp4"

    @property
    def picture(self) -> Path:
        return next(self.folder.glob("picture.*"))

    @property
    def title(self) -> str:
        return str(self.facts.get("prompt") or "no prompt")[:60]

    @property
    def title_with_seed(self) -> str:
        return f"{self.title}, seed {self.facts.get('seed')}"

    def drawing(self) -> str:
        """The editor's value."""
        return (self.folder / "drawing.json").read_text(encoding="utf-8")

    def keyframe(self, frame: int) -> Path:
        """The picture of a later frame."""
        return self.folder / f"keyframe-{frame}.png"

    def frames(self) -> np.ndarray:
        from models.video.read import read_video

        return read_video(self.video)[0]


class History:
    """Entries in a folder, newest first. The oldest are removed when the folder grows past `limit` bytes."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self._limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)

    def entries(self) -> list[HistoryEntry]:
        """All finished entries; other files in the folder are left alone."""
        found = []
        for folder in sorted(self.folder.iterdir(), reverse=True):
            if not NAME.fullmatch(folder.name) or not (folder / "entry.json").is_file():
                continue
            try:
                found.append(HistoryEntry(folder, json.loads((folder / "entry.json").read_text(encoding="utf-8"))))
            except ValueError:
                continue
        return found

    def find(self, name: str) -> HistoryEntry | None:
        """The entry of a name; None if it is gone."""
        return next((entry for entry in self.entries() if entry.name == name), None)

    def add(
        self,
        drawing: "Drawing",
        video: "MadeVideo",
        request: dict[str, Any],
        keyframes: Sequence[tuple[int, Image.Image]],
        facts: dict[str, Any],
    ) -> HistoryEntry:
        """Write an entry whole, or not at all. Raises UserError if it cannot be written."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
        name = f"{stamp}-{int(now * 1000) % 1000:03d}-{video.seed}"
        part = self.folder / f".{name}"
        part.mkdir()
        try:
            self._write(part, drawing, video, request, keyframes, facts)
            part.rename(self.folder / name)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise UserError(f"history: the video was not kept: {disk_fault(error) or error}") from None
        self._shrink()
        return HistoryEntry(self.folder / name, facts)

    def _write(
        self,
        part: Path,
        drawing: "Drawing",
        video: "MadeVideo",
        request: dict[str, Any],
        keyframes: Sequence[tuple[int, Image.Image]],
        facts: dict[str, Any],
    ) -> None:
        from models.strokes.formats.project import as_object

        (part / f"picture{drawing.suffix}").write_bytes(drawing.picture_bytes)
        for frame, picture in keyframes:
            picture.save(HistoryEntry(part, {}).keyframe(frame))
        (part / "strokes.json").write_text(json.dumps(as_object(drawing.trajectories)), encoding="utf-8")
        (part / "drawing.json").write_text(drawing.text, encoding="utf-8")
        (part / "request.json").write_text(json.dumps({"inputs": [request]}), encoding="utf-8")
        (part / "video.mp4").write_bytes(video.data)
        thumbnail = Image.fromarray(HistoryEntry(part, facts).frames()[0])
        thumbnail.thumbnail(THUMBNAIL)
        thumbnail.save(part / "thumbnail.jpg", quality=85)
        (part / "entry.json").write_text(json.dumps(facts), encoding="utf-8")

    def rewrite(self, entry: HistoryEntry, facts: dict[str, Any]) -> HistoryEntry:
        """The entry with other facts."""
        write_whole(entry.folder / "entry.json", json.dumps(facts).encode())
        return HistoryEntry(entry.folder, facts)

    def remove(self, name: str) -> None:
        """Delete an entry, if it is there."""
        entry = self.find(name)
        if entry is not None:
            shutil.rmtree(entry.folder)

    def _shrink(self) -> None:
        left = self._limit
        for number, entry in enumerate(self.entries()):
            left -= sum(file.stat().st_size for file in entry.folder.iterdir())
            if left < 0 and number:
                shutil.rmtree(entry.folder)
