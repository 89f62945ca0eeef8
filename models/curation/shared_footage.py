"""Footage that several videos share: a scene of one is found in the other by its frames, whatever stands around it.

Videos that share footage are on one side of train, validation and test. Found are copies that were encoded, scaled,
brightened or shortened, with bars or a blurred fill around them, and scenes of a film joined of several. Not found are
copies with another crop or mirrored, and overlaps of less than half of both scenes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.curation.duplicates import signature

PER_SCENE = 32  # hashed frames of a scene, at equal distances, at most; more finds shorter parts of long scenes
FLAT = 6.0  # grey values; a frame whose standard deviation is lower shows too little to be told from others
LEAST_FRAMES = 4  # hashed frames of a scene that is compared, at least
ALIKE = 8  # bits of 64; two frames this alike are the same; higher finds more changed copies and more false ones
SHARE = 0.5  # of the frames of a scene that must be in the other video
NEIGHBOURS = 8  # videos compared among those with an equal part of a hash; more finds more pairs of many copies
_PARTS = (0, 24), (20, 44), (40, 64)  # first and last bit of the parts of a hash that are looked up
_RECORD = np.dtype([("frame", ">u4"), ("hash", ">u8")])


class Hashes(NamedTuple):
    """Frames of one scene: their indices in the video and their hashes, both (frames,)."""

    frames: np.ndarray
    hashes: np.ndarray


class Shared(NamedTuple):
    """`share` of the frames of a scene of `video` are in `other`; `frame` is one, `other_frame` most like it."""

    video: str
    other: str
    share: float
    frame: int
    other_frame: int


def fingerprint(scenes: Iterable[tuple[Sequence[int], np.ndarray]]) -> str:
    """What tells a video's footage: for each scene hex of indices and hashes of some frames; empty if all are flat.

    Args:
        scenes: The indices and the grey pictures (T, H, W) uint8, without bars, of each scene.
    """
    prints = []
    for indices, pictures in scenes:
        chosen = np.unique(np.linspace(0, len(pictures) - 1, PER_SCENE).round().astype(int))
        chosen = np.array([i for i in chosen if pictures[i].std() >= FLAT], int)
        if len(chosen) < LEAST_FRAMES:
            continue
        records = np.empty(len(chosen), _RECORD)
        records["frame"] = np.asarray(indices)[chosen]
        records["hash"] = np.frombuffer(bytes.fromhex(signature(pictures[chosen])), ">u8")
        prints.append(records.tobytes().hex())
    return ",".join(prints)


def find_shared(prints: Mapping[str, str]) -> list[Shared]:
    """Pairs of videos that share a scene, each pair once, by name. With many copies not all of their pairs are named.

    Args:
        prints: video -> its `fingerprint`.
    """
    names = sorted(prints)
    found = []
    for pair in _candidates([prints[name] for name in names]):
        (first, scenes), (second, others) = ((names[i], _read_scenes(prints[names[i]])) for i in pair)
        if match := _best_match(scenes, others):
            found.append(Shared(first, second, *match))
        elif match := _best_match(others, scenes):
            found.append(Shared(second, first, *match))
    return found


def deciding_contents(contents: Iterable[str], pairs: Iterable[Shared]) -> dict[str, str]:
    """For each content (SHA-256, hex) the content that decides the subset of all videos that share its footage.

    In a group the content with the lowest hash of its hash decides. So groups are as often in the test as single
    videos, and a video that joins a group of n moves the others with a chance of at most 1 / (n + 1).
    """
    leader = {content: content for content in contents}

    def find(content: str) -> str:
        while leader[content] != content:
            leader[content] = leader[leader[content]]
            content = leader[content]
        return content

    for pair in pairs:
        first, second = find(pair.video), find(pair.other)
        if first != second:
            first, second = sorted((first, second), key=lambda content: hashlib.sha256(content.encode()).hexdigest())
            leader[second] = first
    return {content: find(content) for content in leader}


def _read_scenes(text: str) -> list[Hashes]:
    scenes = [np.frombuffer(bytes.fromhex(scene), _RECORD) for scene in text.split(",") if scene]
    return [Hashes(records["frame"].astype(int), records["hash"].astype(np.uint64)) for records in scenes]


def _candidates(prints: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of videos, first < second, with two frames that are alike and equal in a part; each pair once, rising."""
    texts = [text.replace(",", "") for text in prints]
    owners = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text) // (2 * _RECORD.itemsize) for text in texts])
    hashes = np.frombuffer(bytes.fromhex("".join(texts)), _RECORD)["hash"].astype(np.uint64)
    pairs = [np.empty((0, 2), np.int32)]
    for first, end in _PARTS:
        part = ((hashes >> np.uint64(64 - end)) & np.uint64(2 ** (end - first) - 1)).astype(np.uint32)
        order = np.lexsort((owners, part))
        new = np.ones(len(order), bool)  # of a video's frames with equal parts, the first stands for all
        new[1:] = (np.diff(part[order]) != 0) | (np.diff(owners[order]) != 0)
        order = order[new]
        for step in range(1, NEIGHBOURS + 1):
            some, others = order[:-step], order[step:]
            equal = part[some] == part[others]
            some, others = some[equal], others[equal]
            alike = np.bitwise_count(hashes[some] ^ hashes[others]) <= ALIKE
            pairs.append(np.stack([owners[some[alike]], owners[others[alike]]], 1))
    yield from ((int(first), int(second)) for first, second in np.unique(np.concatenate(pairs), axis=0))


def _best_match(scenes: Sequence[Hashes], others: Sequence[Hashes]) -> tuple[float, int, int] | None:
    """Share, frame and other frame of the scene of one video that is in the other to the largest share, or None."""
    everything = np.concatenate([other.hashes for other in others])
    frames = np.concatenate([other.frames for other in others])
    best = None
    for scene in scenes:
        apart = np.bitwise_count(scene.hashes[:, None] ^ everything[None])
        nearest = apart.argmin(1)
        bits = apart[np.arange(len(nearest)), nearest]
        share = float((bits <= ALIKE).mean())
        if share >= SHARE and (best is None or share > best[0]):
            place = int(bits.argmin())
            best = share, int(scene.frames[place]), int(frames[nearest[place]])
    return best
