"""What is exported reads back as what was curated, with the format's own library where it is installed."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.serving.cli import main
from models.video.read import read_video
from stages.data.arrays import read_poses, read_tracks
from stages.data.curated import curated_clips
from stages.data.footage import read_clip
from stages.data.tables import read_clips
from stages.export import export_clips
from tests.data.test_camera_poses import params, write_camera
from tests.data.test_curation_stages import make_params, run
from tests.footage import moving_texture, write_video

SPLITS = ("mixed", "camera")


@pytest.fixture(scope="module", autouse=True)
def curated(tmp_path_factory):
    """Three clips of a folder in `mixed`, one with poses in `camera`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("curated"))
        for name, seed in (("a", 1), ("b", 2), ("c", 3)):
            write_video(Path(f"inputs/mixed/{name}.mp4"), moving_texture(20, 120, 80, seed=seed))
        Path("inputs/mixed/captions.csv").write_text("video,caption\na.mp4,coloured blocks\n")
        run(make_params(clips__held_out=0.3, tracks__grid=4))
        write_video(Path("inputs/realestate10k/videos/room.mp4"), moving_texture(40, 120, 80, seed=4))
        write_camera("a.txt", np.arange(0, 4, 0.031))
        values = params(tracks__grid=4)
        run(values, "camera")
        yield {clip.clip_id: (split, clip) for split in SPLITS for clip in curated_clips(split)}


def check(curated, clip_id, caption, tracks, video, poses):
    split, clip = curated[clip_id]
    assert caption == clip.caption and (poses is not None) == (split == "camera")
    np.testing.assert_array_equal(tracks, read_tracks(clip.tracks).tracks)
    np.testing.assert_array_equal(read_video(video)[0], read_clip(clip.video))
    if poses is not None:
        np.testing.assert_array_equal(poses, read_poses(clip.poses).poses)


def array(data, name):
    with np.load(io.BytesIO(data)) as arrays:
        return arrays[name]


def test_webdataset(curated, tmp_path):
    main(["export", "--format", "webdataset", "--output", str(tmp_path / "out"), "--per-file", "2"])
    samples = {}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                samples.setdefault(key, {})[suffix] = archive.extractfile(member).read()
                assert json.loads(samples[key].get("json", "{}")).get("subset", "") in path.name
    assert samples.keys() == curated.keys() and len(samples) == 4
    for key, sample in samples.items():
        poses = array(sample["poses.npz"], "poses") if "poses.npz" in sample else None
        check(curated, key, sample["txt"].decode(), array(sample["tracks.npz"], "tracks"), sample["mp4"], poses)
        row = read_clips(curated[key][0]).set_index("clip_id").loc[key]
        facts = json.loads(sample["json"])
        assert facts["source_video"] == row["video"] and facts["motion_score"] == row["motion_score"]


def test_webdataset_with_its_own_library(curated, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    export_clips(tmp_path, "webdataset")
    files = [str(path) for path in tmp_path.glob("*.tar")]
    samples = list(webdataset.WebDataset(files, shardshuffle=False))
    assert {sample["__key__"] for sample in samples} == curated.keys()


@pytest.mark.parametrize("how", ["parquet", "hf"])
def test_tables(curated, tmp_path, how):
    assert export_clips(tmp_path, how, per_file=2) == 4
    rows = [row for path in sorted(tmp_path.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert {row["clip_id"] for row in rows} == curated.keys()
    for row in rows:
        tracks = np.array(row["tracks"], np.float32)
        poses = None if row["poses"] is None else np.array(row["poses"])
        check(curated, row["clip_id"], row["caption"], tracks, row["video"]["bytes"], poses)
        assert row["seen_last"] is not None and row["source_video"].endswith((".mp4", ".txt"))


def test_the_hub_layout_with_its_own_library(curated, tmp_path):
    datasets = pytest.importorskip("datasets")
    export_clips(tmp_path / "out", "hf")
    read = []
    for split in SPLITS:
        parts = datasets.load_dataset(str(tmp_path / "out"), split, cache_dir=str(tmp_path / "cache"))
        for subset, part in parts.items():
            part = part.cast_column("video", datasets.Video(decode=False))
            read += [(row["clip_id"], row["subset"] == subset) for row in part]
    assert {clip_id for clip_id, _ in read} == curated.keys() and all(right for _, right in read)


def test_a_folder_that_is_in_use_is_refused(tmp_path, capsys):
    (tmp_path / "note").touch()
    with pytest.raises(SystemExit, match="not empty"):
        main(["export", "--format", "hf", "--output", str(tmp_path)])
