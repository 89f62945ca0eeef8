"""Near-duplicates: the same footage encoded, scaled or cut again, told by perceptual hashes of frames of its scene."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

FRAMES = 8  # of the longest scene, at equal distances
BAND_BITS = 16  # two videos are compared if they agree in any run of so many bits of any frame
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
    `max_bits` of 64 bits, mean over the frames: so a chain of similar clips does not fall to a single one.
    """
    ordered = sorted(candidates, key=lambda candidate: (candidate.rank, candidate.name))
    kept: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    hashes = [np.frombuffer(bytes.fromhex(candidate.signature), np.uint8) for candidate in ordered]
    repeats: dict[str, str] = {}
    for index, candidate in enumerate(ordered):
        bands = list(enumerate(hashes[index].reshape(-1, BAND_BITS // 8)))
        alike = sorted({other for place, band in bands for other in kept[place, band.tobytes()]})
        if alike:
            apart = np.unpackbits(np.stack([hashes[i] for i in alike]) ^ hashes[index], axis=1).sum(1) / FRAMES
            nearest = int(apart.argmin())
            if apart[nearest] <= max_bits:
                repeats[candidate.name] = ordered[alike[nearest]].name
                continue
        for place, band in bands:
            kept[place, band.tobytes()].append(index)
    return repeats
