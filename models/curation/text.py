"""Text in the picture of a clip, such as captions, subtitles and logos: the share of the picture that it covers."""

from collections.abc import Callable, Sequence

import numpy as np

from models.estimators import TextFinder
from models.geometry import Size

LOOKS = 3  # frames of a clip that are looked at: first, middle and last
LONG_SIDE = 736  # pixels; of the picture that is looked at, larger than a clip, where small text cannot be read


def text_share(
    find_text: TextFinder, indices: Sequence[int], size: Size, read: Callable[[Size, list[int]], np.ndarray]
) -> float:
    """Median over LOOKS frames of the share of the picture under text.

    Args:
        indices: of the clip's frames in its video.
        size: width and height of the clip.
        read: gives the picture of a clip of another size, (T, H, W, 3) uint8, at some of the indices.
    """
    scale = LONG_SIDE / max(size)
    larger = round(size[0] * scale), round(size[1] * scale)
    looks = np.unique(np.linspace(0, len(indices) - 1, LOOKS).round().astype(int))
    return float(np.median(find_text(read(larger, [indices[look] for look in looks]))))
