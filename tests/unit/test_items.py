import os

import pytest

from stages import clips
from stages.data import items
from stages.data.items import ItemFolder, by_content, content_hash, item_id, recipe, write_atomically
from stages.data.shards import ShardedItems
from stages.params import load_params
from tests.footage import ROOT


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_must_last_lies_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args)))
    write_atomically(tmp_path / "table", b"rows")
    write_atomically(tmp_path / "item", b"frames", lasting=False)
    items = ShardedItems(tmp_path / "items", ".mp4")
    items.prepare(["a"], "recipe")
    items.path("a").write_bytes(b"frames")
    items.pack(["a"])
    assert calls == ["fsync", "replace", "replace", "fsync", "replace", "fsync", "replace"]


def test_an_id_depends_on_every_part():
    assert item_id("a", 1, None) == item_id("a", 1, None)
    assert len({item_id("a", 1), item_id("a", 2), item_id("a", "1"), item_id("a1"), item_id("a", 1, None)}) == 5


def test_content_decides_the_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "c").write_bytes(b"y")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b") != content_hash(tmp_path / "c")


def test_a_recipe_depends_on_code_settings_and_format(monkeypatch):
    one, two = {"a": "a = 1"}, {"a": "a = 2"}
    assert recipe(one, grid=16) == recipe(one, grid=16)
    different = {recipe(one, grid=16), recipe(two, grid=16), recipe(one, grid=8), recipe(one | {"b": ""}, grid=16)}
    monkeypatch.setattr(items, "FORMAT", 0)
    assert len({*different, recipe(one, grid=16)}) == 5


def test_weights_of_an_estimator_count_by_their_content_and_not_by_their_place(tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"x")
    (tmp_path / "b.pth").write_bytes(b"x")
    first, moved = (by_content({"model": "small", "weights": str(tmp_path / name)}) for name in ("a.pth", "b.pth"))
    assert first == moved
    params = load_params(ROOT / "params.yaml")
    raft = params.clips.raft.model_copy(update={"weights": str(tmp_path / "a.pth")})
    params = params.model_copy(update={"clips": params.clips.model_copy(update={"flow": "raft", "raft": raft})})
    monkeypatch.setattr(clips, "code_of", lambda *_: {"code": "the same"})
    before = clips._recipe(params)
    (tmp_path / "a.pth").write_bytes(b"y")
    assert clips._recipe(params) != before
    for options in ({"weights": None}, {"weights": "not there"}, {}):
        assert by_content(options) == options


def test_only_missing_items_are_asked_for(tmp_path):
    folder = ItemFolder(tmp_path / "items", ".npz")
    assert folder.recipe() is None and folder.prepare(["a", "b", "a"], "r1") == ["a", "b"]
    write_atomically(folder.path("a"), b"1")
    assert folder.prepare(["a", "b"], "r1") == ["b"] and folder.recipe() == "r1"


def test_items_that_left_and_leftovers_of_killed_runs_are_removed(tmp_path):
    folder = ItemFolder(tmp_path, ".npz")
    folder.prepare(["a", "b", "cut"], "r1")
    for item in ("a", "b"):
        write_atomically(folder.path(item), b"1")
    (tmp_path / ".tmp-123").write_bytes(b"half")
    folder.path("cut").touch()  # a power cut leaves an empty file
    assert folder.prepare(["b", "cut"], "r1") == ["cut"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.npz", "recipe"]


def test_another_recipe_makes_everything_anew(tmp_path):
    folder = ItemFolder(tmp_path, ".npz")
    folder.prepare(["a"], "r1")
    write_atomically(folder.path("a"), b"1")
    assert folder.prepare(["a"], "r2") == ["a"] and folder.ids() == set()
