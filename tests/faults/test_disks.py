"""Every writer on a disk that is full: one line with the place, nothing half written, and the next run goes on.

The largest size that a file may have stands in for the disk's end: it needs no rights and no disk of its own.
"""

import errno
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from models.disk import disk_fault, write_whole
from models.errors import UserError
from models.serving.make_video import MadeVideo
from models.serving.studio.drawing import Drawing
from models.serving.studio.history import History
from models.strokes.trajectories import parse_trajectories, save_trajectories
from models.video.write import encode_mp4
from stages import collect
from stages.data.items import temporary_file, write_atomically
from stages.data.shards import ShardedItems
from stages.data.tables import CAPTIONS, write_table
from stages.run.command import one_line_errors
from stages.run.spool import Spool
from stages.sources.storage import RemoteFile
from stages.train.checkpoint import Checkpoint
from tests.unit import tiny

ROOM = 1500  # bytes; every writer below writes more
NOISE = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def full(tmp_path, monkeypatch):
    """A function that ends the room on the disk, and one that gives it back; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(bytes_a_file: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if bytes_a_file is None else bytes_a_file, hard))

    yield limit
    limit(None)


def video_entry(folder: Path) -> None:
    data = {"width": 24, "height": 16, "trajectories": [[[4, 4], [12, 8]]]}
    pixels = Image.new("RGB", (24, 16))
    drawn = parse_trajectories(data)
    drawing = Drawing(pixels, NOISE, ".png", drawn, "object", "{}", ())
    made = MadeVideo(encode_mp4(np.zeros((3, 16, 24, 3), np.uint8), 8), "video/mp4", 3, 8, 24, 16, 1, "", ())
    History(folder / "history", 10**9).add(drawing, made, {}, (), {})


def sharded(folder: Path) -> None:
    items = ShardedItems(folder / "items", ".bin")
    items.prepare(["a"], "recipe")
    write_atomically(items.path("a"), NOISE[: ROOM - 50])  # fits, but not with the shard's index
    items.pack(["a"])


def checkpoint(folder: Path) -> None:
    Checkpoint(folder / "checkpoints" / "state.pt", [nn.Parameter(torch.ones(50_000))], {}).save({})


def table(folder: Path) -> None:
    rows = [{name: f"{name}{i}" for name in CAPTIONS.schema.names} for i in range(2000)]
    write_table(folder / "captions.parquet", rows, CAPTIONS)


def strokes(folder: Path) -> None:
    drawn = parse_trajectories({"width": 24, "height": 16, "trajectories": [[[4, 4], [12, 8]]]})
    save_trajectories(drawn, folder / "tracks.npz", frames=2000)


WRITERS = {
    "generated video": lambda folder: write_whole(folder / "video.mp4", NOISE),
    "strokes in another tool's format": strokes,
    "item": lambda folder: write_atomically(folder / "item.npz", NOISE),
    "shard": sharded,
    "table": table,
    "checkpoint": checkpoint,
    "history of the studio": video_entry,
    "weights": lambda folder: save_file({"a": torch.ones(50_000)}, folder / "w.safetensors"),
    "saved model": lambda folder: tiny.pipeline().save_pretrained(folder / "model"),
    "MLflow's waiting files": lambda folder: Spool.new("stage").keep_file(Path("large")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_ends_in_one_line_without_a_temporary_file_and_the_next_try_goes_on(name, full, capsys):
    Path("large").write_bytes(NOISE)
    full(ROOM)
    with pytest.raises(SystemExit) as ended, one_line_errors("stage"):
        WRITERS[name](Path())
    full(None)
    said = str(ended.value.code)

    assert said.startswith("stage: ") and "\n" not in said
    assert "larger than is allowed" in said or "not be written whole" in said
    assert "run the same command again" in said
    assert not [path for path in Path().rglob("*") if ".tmp" in path.name or path.name.startswith(".2")]
    assert not [*Path().glob("*.mp4"), *Path().glob("*.npz")]
    WRITERS[name](Path())


def test_what_was_there_before_a_failed_write_stays(full):
    for write in (write_whole, write_atomically):
        write(Path("file"), b"old")
        full(ROOM)
        with pytest.raises(OSError):
            write(Path("file"), NOISE)
        full(None)
        assert [path.read_bytes() for path in Path().iterdir()] == [b"old"]
        Path("file").unlink()


def test_a_video_that_cannot_be_copied_for_lack_of_space_is_not_taken_for_a_bad_one(full, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(collect, "take_in", no_space)
    with pytest.raises(OSError, match="No space"):
        collect.take_file(collect.TakeJob(RemoteFile(None, "a", "1"), Path("copies")))


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "data/x"), "data/x: no space left"),
        (OSError(errno.EROFS, "Read-only file system", "data/x"), "data/x: the disk is read-only"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "no space left"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "TMPDIR"),
    ],
)
def test_the_line_names_place_and_reason(error, part):
    try:
        try:
            raise error
        except Exception as cause:
            raise ValueError("could not be saved") from cause
    except ValueError as outer:
        assert part in disk_fault(outer)


def test_other_errors_are_no_fault_of_the_disk():
    assert disk_fault(UserError("mode: unknown")) is None
    assert disk_fault(FileNotFoundError(errno.ENOENT, "no such file", "x")) is None


def test_a_temporary_file_goes_also_when_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), temporary_file(tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
