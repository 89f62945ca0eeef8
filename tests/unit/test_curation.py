import hashlib

import numpy as np
import pytest
from PIL import Image

from models.curation.captioning import describe_clip
from models.curation.cuts import longest_scene
from models.curation.frame_sampling import draw_frames
from models.curation.motion import least_motion, motion_score
from models.curation.outcome import Unusable
from models.curation.sparse import choose_tracks, motion_intensity, track_steps
from models.curation.subset import subset_of
from models.geometry import cover_crop, inside_frame, point_grid


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("transitions", "frames", "scene"),
    [
        ([], 9, (0, 9)),
        ([], 0, (0, 0)),
        ([(10, 10), (3, 3)], 14, (3, 10)),
        ([(5, 5)], 10, (0, 5)),
        ([(2, 2)], 9, (2, 9)),
        ([(3, 20)], 24, (20, 24)),  # a dissolve is no scene, however long
        ([(3, 20), (10, 10)], 24, (20, 24)),
        ([(0, 0)], 4, (0, 4)),
    ],
)
def test_longest_scene(transitions, frames, scene):
    assert longest_scene(transitions, frames) == scene


def test_frames_lie_in_the_scene_at_every_interval_that_fits():
    intervals, firsts = set(), set()
    for seed in range(300):
        frames, interval = draw_frames((10, 60), 16, (1, 16), rng(seed))
        assert len(frames) == 16 and frames[0] >= 10 and frames[-1] < 60
        assert set(np.diff(frames)) == {interval}
        intervals.add(interval)
        firsts.add(frames[0])
    assert intervals == {1, 2, 3}  # 15 * 3 + 1 = 46 frames fit into 50, 15 * 4 + 1 do not
    assert {10, 44} <= firsts


def test_the_interval_keeps_its_bounds_in_a_long_scene():
    assert {draw_frames((0, 10_000), 4, (2, 5), rng(i))[1] for i in range(100)} == {2, 3, 4, 5}


def test_a_scene_that_just_fits_and_one_that_does_not():
    assert draw_frames((7, 23), 16, (1, 16), rng()) == (range(7, 23), 1)
    with pytest.raises(Unusable, match="15 usable frames, a clip needs 16"):
        draw_frames((0, 15), 16, (1, 16), rng())
    with pytest.raises(Unusable, match="a clip needs 31"):
        draw_frames((0, 30), 16, (2, 16), rng())


@pytest.mark.parametrize("source", [(854, 480), (368, 480), (96, 64), (97, 64), (1, 1), (31, 1000)])
def test_the_crop_covers_exactly(source):
    transform = cover_crop(source, (96, 64))
    assert transform.scaled[0] >= 96 and transform.scaled[1] >= 64
    assert transform.scaled[0] == 96 or transform.scaled[1] == 64
    assert transform.crop(np.zeros((2, *transform.scaled[::-1], 3))).shape == (2, 64, 96, 3)


def test_points_follow_what_they_mark():
    picture = np.zeros((200, 400, 3), np.uint8)
    picture[80:100, 240:260] = 255
    transform = cover_crop((400, 200), (96, 64))
    y, x = np.nonzero(np.asarray(transform.image(Image.fromarray(picture)))[..., 0] > 127)
    np.testing.assert_allclose(transform.points(np.array([249.5, 89.5])), [x.mean(), y.mean()], atol=0.3)
    assert transform.describe() == "100 pixels of the width"
    assert cover_crop((96, 64), (96, 64)).describe() == ""


def test_motion_score_of_a_constant_flow():
    flow = np.broadcast_to(np.array([3.0, 4.0]).reshape(1, 2, 1, 1), (5, 2, 8, 10))
    assert motion_score(flow) == pytest.approx(5 * np.sqrt(80))


def test_the_least_motion_is_a_share_of_all():
    scores = {"a": 4.0, "b": 1.0, "c": 3.0, "d": 1.0, "e": 9.0, "f": 5.0, "g": 7.0, "h": 8.0}
    assert least_motion(scores, 0.25) == {"b", "d"}
    assert least_motion(scores, 0.0) == set() and least_motion({}, 0.25) == set()
    assert least_motion(scores, 1.0) == set(scores)
    assert least_motion({f"{i}": i for i in range(10)}, 0.3) == {"0", "1", "2"}


def test_subsets_have_their_share():
    contents = [f"{int.from_bytes(rng(i).bytes(32)):064x}" for i in range(2000)]
    subsets = [subset_of(content, 0.15, 0.25) for content in contents]
    for subset, share in (("test", 0.15), ("validation", 0.25), ("train", 0.6)):
        assert subsets.count(subset) / len(subsets) == pytest.approx(share, abs=0.03)
    assert {subset_of(content, 0, 0) for content in contents} == {"train"}
    assert {subset_of(content, 1, 0) for content in contents} == {"test"}
    assert {subset_of(content, 0, 1) for content in contents} == {"validation"}


def test_more_validation_takes_nothing_from_the_test():
    contents = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(200)]
    few, many = ({c for c in contents if subset_of(c, 0.2, share) == "test"} for share in (0.0, 0.5))
    assert few == many


def test_five_frames_are_described_and_joined():
    frames = np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    assert describe_clip(frames, lambda images: [f"{image[0, 0, 0]}" for image in images]) == "0, 4, 8, 11, 15"
    assert describe_clip(frames, lambda images: ["a cat"] * len(images)) == "a cat"


def test_the_grid_is_centred():
    grid = point_grid(96, 64, 16)
    assert grid.shape == (256, 2) and grid.dtype == np.float32
    np.testing.assert_allclose(grid.mean(0), [47.5, 31.5])
    np.testing.assert_allclose(grid[1] - grid[0], [6, 0])
    assert inside_frame(grid, 96, 64).all() and not inside_frame(np.array([[-0.6, 3], [3, 63.6]]), 96, 64).any()


def test_invisible_steps_are_zero():
    tracks = np.arange(4.0)[:, None, None] * np.array([[3.0, 4.0], [3.0, 4.0]])
    visibility = np.array([[True, True], [True, True], [True, False], [True, True]])
    steps = track_steps(tracks, visibility)
    np.testing.assert_array_equal(np.linalg.norm(steps, axis=-1), [[5, 5], [5, 0], [5, 0]])
    np.testing.assert_array_equal(motion_intensity(tracks, visibility), [15, 5])


def straight_tracks(speeds, frames=5):
    tracks = np.arange(frames)[:, None, None] * np.stack([speeds, np.zeros(len(speeds))], -1)
    return tracks.astype(np.float32), np.ones((frames, len(speeds)), bool)


def test_a_track_is_drawn_as_often_as_it_moves():
    speeds = np.array([0.0, 1.0, 2.0, 5.0])
    drawn = choose_tracks(*straight_tracks(speeds), max_tracks=1, draws=4000, rng=rng())
    share = np.bincount(drawn[:, 0], minlength=4) / 4000
    np.testing.assert_allclose(share, speeds / speeds.sum(), atol=0.03)
    assert share[0] == 0


def test_the_number_of_tracks_is_uniform_and_they_differ():
    drawn = choose_tracks(*straight_tracks(np.ones(256)), max_tracks=8, draws=4000, rng=rng())
    assert drawn.shape == (4000, 8) and drawn.dtype == np.int32
    np.testing.assert_allclose(np.bincount((drawn >= 0).sum(1))[1:] / 4000, np.full(8, 1 / 8), atol=0.03)
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in drawn)


def test_tracks_invisible_at_the_start_are_never_drawn():
    tracks, visibility = straight_tracks(np.array([9.0, 1.0]))
    visibility[0, 0] = False
    drawn = choose_tracks(tracks, visibility, max_tracks=8, draws=50, rng=rng())
    assert set(drawn[drawn >= 0]) == {1}


def test_a_still_clip_gives_empty_draws():
    assert (choose_tracks(*straight_tracks(np.zeros(4)), max_tracks=3, draws=2, rng=rng()) == -1).all()


def test_draws_repeat_with_their_seed():
    tracks = straight_tracks(np.arange(20.0))
    assert np.array_equal(choose_tracks(*tracks, 8, 4, rng(3)), choose_tracks(*tracks, 8, 4, rng(3)))
    assert not np.array_equal(choose_tracks(*tracks, 8, 4, rng(3)), choose_tracks(*tracks, 8, 4, rng(4)))
