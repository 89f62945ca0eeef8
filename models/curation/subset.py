"""Training, validation or test: decided by each source video's own content, so that adding videos moves no other.

Clips for validation choose weights and end a training stage early. Clips for the test are reported. The three subsets
never overlap.
"""

from typing import Literal, get_args

Subset = Literal["train", "validation", "test"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)


def subset_of(content: str, test: float, validation: float) -> Subset:
    """The subset of a source video.

    Args:
        content: SHA-256 of the source video, in hex.
        test, validation: the shares of all possible contents, 0 to 1, that these subsets have; the rest is `train`.
    """
    place = int(content[:13], 16) / 16**13
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"
