"""Training or evaluation: decided by each source video's own content, so that adding videos moves no other."""

from typing import Literal

Subset = Literal["train", "eval"]


def subset_of(content: str, held_out: float) -> Subset:
    """`eval` for the `held_out` share of all possible contents. content: SHA-256 of the source video, in hex."""
    return "eval" if int(content[:13], 16) / 16**13 < held_out else "train"
