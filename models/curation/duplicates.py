"""Near-duplicates: the same footage encoded, scaled or cut again, told by perceptual hashes of frames of its scene."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import cv2
import numpy as np

FRAMES = 8  # of the longest scene, at equal distances
BAND_BITS = 16  # of a signature that the index looks up at once
MOST_CHANGED = 3  # bits of a band; beyond that, comparing all pairs is faster than looking up all changes
FEW = 2048  # clips; so few are compared pair by pair
PAIRS = 1 << 20  # compared at once; more takes memory
_SIDE = 32  # frames are scaled to this square before the transform


def signature(frames: Iterable[np.ndarray]) -> str:
    """Hex string of 64 bits for each grey frame (H, W) uint8: signs of its lowest 8 x 8 cosine coefficients.

    The coefficients are compared with their median (Zauner 2010, "pHash"), so brightness and contrast do not count.
    """
    hashes = []
    for frame in frames:
        small = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        low = cv2.dct(small)[:8, :8].ravel()
        hashes.append(np.packbits(low > np.median(low[1:])))
    return np.concatenate(hashes).tobytes().hex()


@dataclass(frozen=True)
class Candidate:
    """One clip to compare; `rank`: of several that are alike the one with the lowest is kept."""

    name: str
    signature: str
    rank: tuple[Any, ...]


def near_duplicates(candidates: Iterable[Candidate], max_bits: float) -> dict[str, str]:
    """Names of clips that repeat a better one -> that one's name.

    Clips are taken from the best to the worst, and each is kept unless it differs from one that was kept by at most
    `max_bits` of 64 bits, mean over the frames: so a chain of similar clips does not fall to a single one. Of several
    kept clips that it repeats, the best is named.
    """
    ordered = sorted(candidates, key=lambda candidate: (candidate.rank, candidate.name))
    if not ordered:
        return {}
    signatures = bytes.fromhex("".join(candidate.signature for candidate in ordered))
    index = _Index(np.frombuffer(signatures, np.uint64).reshape(len(ordered), -1), max_bits)
    index.settle(np.arange(len(ordered)))
    return {ordered[i].name: ordered[int(better)].name for i, better in enumerate(index.better) if better >= 0}


class _Index:
    """Finds all pairs of signatures that differ by few bits, without comparing all pairs.

    A signature is cut into bands of 16 bits. If two signatures differ by at most L bits, and r_b + 1 summed over the
    bands is above L, then in some band b they differ by at most r_b bits (pigeonhole principle). So those pairs are
    compared whose bands are equal after a change of up to r_b bits, and no pair is missed.

    words: (N, W) uint64, the signatures in order of rank. better: (N,) the place of the one that each repeats, or -1.
    """

    def __init__(self, words: np.ndarray, max_bits: float):
        self.words, self.limit = words, int(max_bits * FRAMES)
        self.columns = np.ascontiguousarray(words.T)
        self.bands = np.ascontiguousarray(words.view(np.uint16).T)
        self.better = np.full(len(words), -1)
        least, more = divmod(self.limit + 1, len(self.bands))  # radii are least - 1, and least in the first `more`
        self.radii = [least - (band >= more) for band in range(len(self.bands))]

    def settle(self, places: np.ndarray) -> np.ndarray:
        """Fill in `better` of ascending places; return those that are kept."""
        if len(places) <= FEW or max(self.radii) > MOST_CHANGED:
            return self._settle_few(places)
        first, second = np.array_split(places, 2)
        kept = self.settle(first)
        found = self._first_alike(kept, second)
        self.better[second] = found
        return np.concatenate([kept, self.settle(second[found < 0])])

    def _settle_few(self, places: np.ndarray) -> np.ndarray:
        """As `settle`, by comparing each with all that are kept."""
        waiting, columns, kept = places, self.columns[:, places], []
        while len(waiting):
            first = waiting[0]
            kept.append(first)
            alike = np.bitwise_count(columns ^ columns[:, :1]).sum(0, dtype=np.uint16) <= self.limit
            waiting, columns = waiting[1:], columns[:, 1:]
            if (same := alike[1:]).any():
                self.better[waiting[same]] = first
                waiting, columns = waiting[~same], columns[:, ~same]
        return np.array(kept, np.int64)

    def _first_alike(self, kept: np.ndarray, places: np.ndarray) -> np.ndarray:
        """For each of `places`, the first of `kept` that it repeats, or -1."""
        first = np.full(len(places), len(self.words))
        for band, radius in enumerate(self.radii):
            if radius < 0:
                continue
            keys = self.bands[band]
            order = kept[np.argsort(keys[kept], kind="stable")]
            starts = np.concatenate([[0], np.cumsum(np.bincount(keys[kept], minlength=1 << BAND_BITS))])
            for change in _changes(radius):
                wanted = keys[places] ^ change
                counts = starts[wanted.astype(np.int64) + 1] - starts[wanted]
                for part in _parts(counts):
                    mine = np.repeat(np.arange(part.start, part.stop), counts[part])
                    before = np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
                    theirs = order[starts[wanted[mine]] + np.arange(len(mine)) - before]
                    alike = self._alike(places[mine], theirs, band * BAND_BITS // 64)
                    np.minimum.at(first, mine[alike], theirs[alike])
        return np.where(first < len(self.words), first, -1)

    def _alike(self, some: np.ndarray, others: np.ndarray, word: int) -> np.ndarray:
        """Which pairs of places differ by few bits: their places in the list. `word`: the one whose band is known."""
        left = np.arange(len(some))
        apart = np.zeros(len(some), np.int64)
        for step in range(1, len(self.columns) + 1):  # most pairs are far apart after two words
            column = self.columns[(word + step) % len(self.columns)]
            apart += np.bitwise_count(column[some[left]] ^ column[others[left]])
            near = apart <= self.limit
            left, apart = left[near], apart[near]
        return left


@cache
def _changes(radius: int) -> np.ndarray:
    """Every change of at most `radius` bits of a band, as numbers to combine with it by exclusive or."""
    flips = (sum(1 << bit for bit in bits) for r in range(radius + 1) for bits in combinations(range(BAND_BITS), r))
    return np.array(list(flips), np.uint16)


def _parts(counts: np.ndarray) -> Iterator[slice]:
    """Ranges of places that have at most PAIRS candidates together, or a single place."""
    ends, start = np.cumsum(counts), 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS, side="right")))
        if ends[stop - 1] > done:
            yield slice(start, stop)
        start = stop
