"""Sharded items: packing, resuming after a kill, what one more item costs, damage."""

import os
from pathlib import Path

import pytest

from stages.data import shards
from stages.data.items import write_atomically
from stages.data.shards import SHARDS, ShardedItems, ShardError, as_file, read_item, shard_of

NAMES = [f"clip{n}" for n in range(150)]


def filled(folder: Path, names=NAMES) -> ShardedItems:
    made = ShardedItems(folder, ".npz")
    for name in made.prepare(names, "recipe"):
        write_atomically(made.path(name), name.encode() * 3)
    made.pack(names)
    return made


def contents(folder: ShardedItems) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.folder.iterdir()}


def test_items_lie_in_a_bounded_number_of_files_and_are_read_one_by_one(tmp_path):
    made = filled(tmp_path)
    assert len(list(tmp_path.iterdir())) <= SHARDS + 1 and made.ids() == set(NAMES)
    assert all(made.has(name) and read_item(made.path(name)) == name.encode() * 3 for name in NAMES)
    assert read_item(made.path("clip7"), 4) == b"clip" and not made.has("clip150")
    with pytest.raises(FileNotFoundError):
        read_item(made.path("clip150"))
    made.path("loose").write_bytes(b"not packed")
    assert dict(made.read(["clip7", "loose", "clip150"], 4)) == {"clip7": b"clip", "loose": b"not "}
    assert dict(made.read(NAMES)) == {name: name.encode() * 3 for name in NAMES}
    for name, data in (("clip7", b"clip7" * 3), ("loose", b"not packed")):
        with as_file(made.path(name), tmp_path) as file:
            assert file.read_bytes() == data
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_order_of_work_and_its_interruptions_do_not_change_a_byte(tmp_path):
    at_once, in_parts = filled(tmp_path / "a"), ShardedItems(tmp_path / "b", ".npz")
    for part in (NAMES[100:], NAMES[50:], NAMES[::-1]):
        for name in in_parts.prepare(part, "recipe"):
            write_atomically(in_parts.path(name), name.encode() * 3)
        in_parts.pack(part)
    assert contents(at_once) == contents(in_parts)


def test_one_more_item_rewrites_one_shard_and_one_less_too(tmp_path):
    made = filled(tmp_path)
    new = next(name for name in map(str, range(SHARDS)) if shard_of(made.path(name)).exists())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    filled(tmp_path, [*NAMES, new])
    assert [path for path in before if path.stat().st_mtime_ns != before[path]] == [shard_of(made.path(new))]
    untouched = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    filled(tmp_path, NAMES)
    assert [path for path in untouched if path.stat().st_mtime_ns != untouched[path]] == [shard_of(made.path(new))]
    assert made.ids() == set(NAMES)


@pytest.mark.parametrize("killed_in", ["replace", "unlink"])
def test_a_run_killed_while_it_packs_loses_no_item_and_goes_on(tmp_path, monkeypatch, killed_in):
    expected = contents(filled(tmp_path / "whole"))
    made, calls = ShardedItems(tmp_path / "killed", ".npz"), []
    for name in made.prepare(NAMES, "recipe"):
        write_atomically(made.path(name), name.encode() * 3)

    def die(*args, **kwargs):
        calls.append(args)
        if len(calls) > 40:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    owner = os if killed_in == "replace" else Path
    original = getattr(owner, killed_in)
    monkeypatch.setattr(owner, killed_in, die)
    with pytest.raises(KeyboardInterrupt):
        made.pack(NAMES)
    monkeypatch.undo()
    assert made.prepare(NAMES, "recipe") == []  # nothing is made again
    assert all(read_item(made.path(name)) == name.encode() * 3 for name in NAMES)
    made.pack(NAMES)
    assert contents(made) == expected


def test_another_recipe_removes_all_shards(tmp_path):
    made = filled(tmp_path)
    assert made.prepare(NAMES, "other") == NAMES and made.ids() == set()


def test_a_damaged_shard_is_named_with_a_remedy(tmp_path):
    made = filled(tmp_path, ["a"])
    shard = shard_of(made.path("a"))
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b"aaa", b"aba", 1))
    with pytest.raises(ShardError, match=f"{shard.name}: damaged: a.npz .* delete it"):
        read_item(made.path("a"))
    shard.write_bytes(whole[:-10])
    with pytest.raises(ShardError, match=f"{shard.name}: damaged: .* delete it"):
        made.has("a")


def test_a_shard_that_was_rewritten_is_read_anew(tmp_path):
    made = filled(tmp_path, ["a"])
    assert read_item(made.path("a")) == b"aaa" and len(shards._members(shard_of(made.path("a")))) == 1
    write_atomically(made.path("a"), b"longer than before")
    made.pack(["a"])
    assert read_item(made.path("a")) == b"longer than before" and not made.path("a").exists()
