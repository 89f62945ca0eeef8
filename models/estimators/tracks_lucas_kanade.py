"""Point tracks by pyramidal Lucas-Kanade with a forward-backward check; needs no weights."""

import cv2
import numpy as np


def load(name: str, weights: str | None = None) -> "LucasKanade":
    if weights is not None:
        raise ValueError("tracks.weights: lucas_kanade takes none; set it to null")
    return LucasKanade()


class LucasKanade:
    def __call__(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PointTracker`."""
        cv2.setNumThreads(1)
        grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
        h, w = grey[0].shape
        lk = dict(winSize=(11, 11), maxLevel=3, criteria=(3, 30, 0.01), minEigThreshold=1e-4)
        tracks = [points.astype(np.float32)]
        vis = [np.ones(len(points), bool)]
        for a, b in zip(grey[:-1], grey[1:], strict=True):
            nxt, st, _ = cv2.calcOpticalFlowPyrLK(a, b, tracks[-1], None, **lk)
            back, st2, _ = cv2.calcOpticalFlowPyrLK(b, a, nxt, None, **lk)
            ok = (st[:, 0] & st2[:, 0]).astype(bool) & (np.linalg.norm(back - tracks[-1], axis=-1) < 1)
            inside = (nxt > -0.5).all(-1) & (nxt[:, 0] < w - 0.5) & (nxt[:, 1] < h - 0.5)
            vis.append(vis[-1] & ok & inside)
            tracks.append(nxt)
        return np.stack(tracks), np.stack(vis)
