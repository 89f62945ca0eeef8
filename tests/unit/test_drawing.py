"""Trajectories over frames, panels and contact sheets."""

import numpy as np
import pytest

from models.drawing import COLOURS, contact_sheet, draw_tracks, side_by_side

FRAMES, HEIGHT, WIDTH = 4, 16, 24


def video(frames: int = FRAMES) -> np.ndarray:
    return np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8)


def coloured(frame: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((frame == colour).all(-1).sum())


@pytest.mark.parametrize("strokes", [1, 6])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_stroke_is_drawn_on_every_frame(strokes, kind):
    tracks = np.stack([np.linspace((4, 2 + 2 * n), (18, 2 + 2 * n), FRAMES) for n in range(strokes)], 1).astype(kind)
    drawn = draw_tracks(video(), tracks, scale=4)
    assert drawn.shape == (FRAMES, 4 * HEIGHT, 4 * WIDTH, 3)
    assert all(coloured(frame, COLOURS[n]) for frame in drawn for n in range(strokes))


def test_the_part_passed_so_far_grows():
    tracks = np.linspace((4, 8), (18, 8), FRAMES)[:, None]
    amounts = [coloured(frame, COLOURS[0]) for frame in draw_tracks(video(), tracks, scale=4)]
    assert amounts[0] < amounts[-1]


def test_the_mark_stands_where_the_stroke_is():
    tracks = np.linspace((4, 8), (18, 8), FRAMES)[:, None]
    drawn = draw_tracks(video(), tracks, scale=4)
    for t, frame in enumerate(drawn):
        x, y = ((tracks[t, 0] + 0.5) * 4).round().astype(int)
        assert tuple(frame[y, x]) == COLOURS[0]


def test_frames_without_strokes_are_only_enlarged_and_not_changed():
    frames = video() + np.uint8(7)
    assert (draw_tracks(frames, np.zeros((FRAMES, 0, 2)), scale=2) == 7).all()
    assert (frames == 7).all()


def test_panels_stand_side_by_side_under_their_labels():
    joined = side_by_side([video(), video() + np.uint8(200)], ["a", "b"])
    assert joined.shape[0] == FRAMES
    assert joined.shape[2] == 2 * (WIDTH + 4)
    assert (joined[:, -HEIGHT:, 2 : 2 + WIDTH] == 0).all()
    assert (joined[:, -HEIGHT:, WIDTH + 6 : 2 * WIDTH + 6] == 200).all()


def test_a_contact_sheet_has_a_row_for_each_video_from_its_first_frame_to_its_last():
    frames = video(9) + np.arange(9, dtype=np.uint8)[:, None, None, None]
    sheet = contact_sheet([frames, frames], columns=3)
    assert sheet.shape == (2 * (HEIGHT + 2), 3 * (WIDTH + 2), 3)
    assert [sheet[5, 5 + n * (WIDTH + 2), 0] for n in range(3)] == [0, 4, 8]
