"""Text in pictures (captions, subtitles, logos) by RapidOCR, whose wheel has the weights of PP-OCR (Apache 2.0).

A box counts as text if letters are read in it: the detector alone takes blurred pictures and bars for text.
"""

import math
from typing import Any

import cv2
import numpy as np

from models.estimators import EstimatorUnavailable

LONG_SIDE = 736  # pixels; pictures are scaled to it; higher finds smaller text, and takes longer
BOX_CERTAIN = 0.4  # mean probability of a box from which it is read; higher finds less, and is faster
READ_CERTAIN = 0.7  # mean probability of the letters read in it; higher finds less, and is wrong less often
LETTERS = 2  # read in a box, at least; a single one is often a shape


def load(name: str) -> "RapidOcrText":
    """Raises EstimatorUnavailable if a package is not installed."""
    try:
        import onnxruntime  # noqa: F401
        from rapidocr import RapidOCR
    except ImportError as error:
        raise EstimatorUnavailable(
            "clips.text: rapidocr: the packages rapidocr and onnxruntime are not installed. Install them with "
            "pip install 'image-conductor[curation]', or set clips.text to none"
        ) from error
    settings = {
        "Global.log_level": "critical",
        "Global.text_score": READ_CERTAIN,
        "Det.box_thresh": BOX_CERTAIN,
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    }
    return RapidOcrText(RapidOCR(params=settings))


class RapidOcrText:
    def __init__(self, engine: Any):
        self.engine = engine

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """See `TextFinder`."""
        return np.array([self._share(frame) for frame in frames], np.float32)

    def _share(self, frame: np.ndarray) -> float:
        scale = LONG_SIDE / max(frame.shape[:2])
        size = [max(32, math.ceil(side * scale / 32) * 32) for side in frame.shape[1::-1]]
        picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        found = self.engine(picture[..., ::-1], use_det=True, use_cls=False, use_rec=True)
        covered = np.zeros(picture.shape[:2], np.uint8)
        if found.boxes is not None:
            for box, words in zip(found.boxes, found.txts, strict=True):
                if sum(letter.isalnum() for letter in words) >= LETTERS:
                    cv2.fillPoly(covered, [np.asarray(box).round().astype(np.int32)], 1)
        return float(covered.mean())
