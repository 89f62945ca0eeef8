"""Fetching: each picture once, the largest of its sizes, labelled; and a remedy where there is no Debian."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.pictures import fetch
from models.pictures.fetch import PackageError, collect, unpacked
from models.pictures.sources import LICENCES, SOURCES, PictureSource

STAMPS = "usr/share/tuxpaint/stamps"


def noise(seed: int, width: int, height: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path) -> Path:
    for name, image in {
        "a/one/640x400.png": noise(0, 640, 400),
        "a/one/900x600.png": noise(0, 900, 600),
        "a/one/400x900.png": noise(0, 400, 900),
        "a/copy/700x450.jpg": noise(0, 900, 600).resize((700, 450)),
        "a/other/640x400.png": noise(1, 640, 400),
        "a/small/90x60.png": noise(2, 90, 60),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / name)
    stamp = Image.new("RGBA", (100, 100))
    stamp.paste((10, 200, 10, 255), (20, 20, 80, 90))
    stamp.putpixel((90, 50), (10, 200, 10, 255))
    (tmp_path / STAMPS / "animals").mkdir(parents=True)
    stamp.save(tmp_path / STAMPS / "animals/frog.png")
    (tmp_path / STAMPS / "animals/frog.txt").write_text("A green frog on a leaf, smiling.\nfr.utf8=Une grenouille\n")
    return tmp_path


def test_each_picture_is_taken_once_in_its_largest_size_that_is_not_upright(root):
    files = {f"a/{name}/*": name for name in ("one", "copy", "other", "small")}
    pictures = collect([PictureSource("mate-backgrounds", "photograph", files)], {"mate-backgrounds": root})
    assert [row["file"] for row, _ in pictures] == ["a/one/900x600.png", "a/other/640x400.png"]
    assert [row["label"] for row, _ in pictures] == ["one", "other"]
    assert all(len(row["sha256"]) == 64 and row["licence"] == "GPL-2.0-or-later" for row, _ in pictures)


def test_a_stamp_is_labelled_by_the_description_beside_it(root):
    source = PictureSource("tuxpaint-stamps-default", "cutout", {f"{STAMPS}/animals/**/*.png": ""})
    [(row, pixels)] = collect([source], {"tuxpaint-stamps-default": root})
    assert row["label"] == "a green frog on" and pixels.shape[2] == 4


def test_without_debian_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(PackageError, match=r"packages\.debian\.org/bookworm/mate-backgrounds.*--packages"):
        unpacked("mate-backgrounds", tmp_path)


def test_a_package_that_is_installed_is_read_where_it_lies(tmp_path):
    assert (unpacked("scikit-learn", tmp_path) / "sklearn/datasets/images/china.jpg").is_file()
    assert not any(tmp_path.iterdir())


def test_every_source_has_a_licence():
    assert {source.package for source in SOURCES} == set(LICENCES)
