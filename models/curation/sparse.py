"""Sparse sampling (Sec 2.2, step 5): draw n tracks, each as likely as it moves."""

import numpy as np

NO_TRACK = -1


def track_steps(tracks: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Displacements (T - 1, N, 2) between adjacent frames, in pixels; zero where either end is invisible.

    Args:
        tracks: (T, N, 2) pixels.
        visibility: (T, N) bool.
    """
    return np.diff(tracks, axis=0) * (visibility[1:] & visibility[:-1])[..., None]


def motion_intensity(tracks: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Length (N,) in pixels of the visible path of each track (T, N, 2); 0 for tracks invisible in frame 0."""
    lengths = np.linalg.norm(track_steps(tracks, visibility), axis=-1).sum(0)
    return np.where(visibility[0], lengths, 0.0)


def choose_tracks(
    tracks: np.ndarray, visibility: np.ndarray, max_tracks: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw 1..max_tracks different tracks, `draws` times, with probability = normalised motion intensity.

    If fewer tracks move than were to be drawn, all that move are taken; where nothing moves, draws are empty.

    Returns:
        (draws, max_tracks) int32 track indices, filled up with NO_TRACK.
    """
    intensity = motion_intensity(tracks, visibility)
    moving = int(np.count_nonzero(intensity))
    chosen = np.full((draws, max_tracks), NO_TRACK, np.int32)
    for row in chosen:
        count = min(int(rng.integers(1, max_tracks + 1)), moving)
        if count:
            row[:count] = rng.choice(len(intensity), count, replace=False, p=intensity / intensity.sum())
    return chosen
