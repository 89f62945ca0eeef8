"""Tracks are judged, and clips are dropped for lost, drifting or unwanted ones; blurred fill is no picture."""

import cv2
import numpy as np
import pytest

from models.curation.clip import ClipSettings, curate_clip
from models.curation.quality import Bars
from models.curation.side_fill import find_side_fill
from models.curation.track_facts import TrackFacts, TrackLimits, hide_drifted, measure_tracks, misses, why_unusable
from models.estimators import load_estimator
from models.geometry import point_grid
from models.pixels import to_uint8
from models.scenes import render, sample_scenes
from models.video.read import read_frames
from stages.params import load_params
from tests.footage import ROOT, moving_texture, real_videos, write_video

NO_LIMITS = TrackLimits(None, None, None, None)
POCKET = load_params(ROOT / "profiles/pocket.yaml").tracks.limits.model_dump(exclude={"max_own_motion"})


def judged(frames):
    follow, (height, width) = load_estimator("tracks", "lucas_kanade"), frames.shape[1:3]
    tracks, visibility = follow(frames, point_grid(width, height, 16))
    return measure_tracks(tracks, visibility, height, misses(frames, tracks, follow))


def scene(kind, seed):
    return to_uint8(render(sample_scenes([kind], 12, [seed]), 96, 64)[0])


def test_good_tracks_are_seen_lead_back_and_go_with_the_camera():
    facts = judged(scene("camera", 0))
    assert facts.seen_first == 1.0 and facts.seen_middle >= facts.seen_last > 0.5
    assert facts.round_trip < 0.02 and facts.own_motion < 0.05


def test_a_dissolve_loses_its_points_and_is_dropped_by_the_pocket_profile():
    before, after = scene("camera", 1).astype(float), scene("mixed", 2).astype(float)[:, ::-1]
    mix = np.linspace(0, 1, 12)[:, None, None, None]
    facts = judged(((1 - mix) * before + mix * after).astype(np.uint8))
    assert facts.seen_last < 0.05
    assert "lost tracks" in why_unusable(facts, TrackLimits(**POCKET, max_own_motion=None))
    assert why_unusable(judged(scene("camera", 1)), TrackLimits(**POCKET, max_own_motion=None)) == ""


def test_what_moves_on_its_own_is_counted():
    tracks = np.tile(point_grid(96, 64, 16), (5, 1, 1))
    tracks += np.arange(5)[:, None, None] * np.array([1.5, 0.5], np.float32)
    tracks[:, :32] += np.arange(5)[:, None, None] * np.array([0, 1.5], np.float32)
    visibility = np.ones(tracks.shape[:2], bool)
    facts = measure_tracks(tracks, visibility, 64, None)
    assert facts == TrackFacts(1.0, 1.0, 1.0, None, 32 / 256)
    visibility[2:] = False
    lost = measure_tracks(tracks, visibility, 64, np.zeros(256))
    assert (lost.seen_middle, lost.seen_last, lost.round_trip) == (0.0, 0.0, None)


def test_points_that_do_not_lead_back_have_drifted():
    tracks = np.tile(point_grid(96, 64, 16), (5, 1, 1))
    visibility = np.ones(tracks.shape[:2], bool)
    frames = np.zeros((5, 64, 96, 3), np.uint8)
    back = lambda frames, points: (np.stack([points] * 4 + [points + 3.2]), visibility)  # noqa: E731
    missed = misses(frames, tracks, back)
    assert measure_tracks(tracks, visibility, 64, missed).round_trip == pytest.approx(3.2 * 2**0.5 / 64)
    assert hide_drifted(visibility, missed, 0.1).all()
    hidden = hide_drifted(visibility, missed, 0.05)
    assert hidden[0].all() and not hidden[1:].any()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"min_seen_middle": 0.6}, "50% of the points are seen in the middle frame, wanted at least 0.6"),
        ({"min_seen_last": 0.3}, "20% of the points are seen in the last frame"),
        ({"max_round_trip": 0.02}, "miss their start by 3.0% of the frame's height, allowed 0.02"),
        ({"max_own_motion": 0.3}, "40% of the points do not move with the camera"),
        ({}, ""),
    ],
)
def test_each_limit_has_its_reason(limits, reason):
    facts = TrackFacts(1.0, 0.5, 0.2, 0.03, 0.4)
    assert reason in why_unusable(facts, TrackLimits(**{**vars(NO_LIMITS), **limits}))
    assert bool(reason) == bool(why_unusable(facts, TrackLimits(**{**vars(NO_LIMITS), **limits})))
    unknown = TrackFacts(1.0, 1.0, 1.0, None, None)
    assert why_unusable(unknown, TrackLimits(0.5, 0.5, 0.01, 0.01)) == ""


def side_filled(frames, size, picture_width, blur, brightness=1.0):
    """Frames in the middle of a blurred, enlarged copy of themselves."""
    width, height = size
    out = []
    for frame in frames:
        scale = max(picture_width / frame.shape[1], height / frame.shape[0])
        scaled = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        x, y = (scaled.shape[1] - picture_width) // 2, (scaled.shape[0] - height) // 2
        picture = scaled[y : y + height, x : x + picture_width]
        fill = cv2.resize(picture, (width, round(height * width / picture_width)))
        y = (len(fill) - height) // 2
        fill = cv2.GaussianBlur(fill[y : y + height], (0, 0), blur) * brightness
        left = (width - picture_width) // 2
        fill[:, left : left + picture_width] = picture
        out.append(fill.astype(np.uint8))
    return np.stack(out)


def grey(frames):
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def test_blurred_fill_of_real_footage_is_found_and_the_footage_itself_has_none():
    for path in sorted(real_videos(), key=lambda path: path.stat().st_size)[:3]:
        frames = np.stack(list(read_frames(path, (192, 108)))[::8])
        assert find_side_fill(grey(frames)) == Bars(), path.name
        for picture_width, blur, brightness in ((62, 10, 0.5), (108, 4, 1.0)):
            filled = grey(side_filled(frames, (192, 108), picture_width, blur, brightness))
            side = (192 - picture_width) / 2 / 192
            found = find_side_fill(filled)
            assert found.left == pytest.approx(side, abs=0.02) and found.right == pytest.approx(side, abs=0.02), path
            assert find_side_fill(filled.swapaxes(1, 2)) == Bars(top=found.left, bottom=found.right)


def test_procedural_footage_has_no_fill():
    assert all(find_side_fill(grey(scene(kind, seed))) == Bars() for kind in ("mixed", "camera") for seed in range(20))


def test_fill_is_cropped_like_black_bars(tmp_path):
    picture = cv2.GaussianBlur(moving_texture(20, 216, 216, seed=3)[0], (0, 0), 1.0)
    frames = np.stack([np.roll(picture, 2 * t, axis=1) for t in range(20)])
    path = write_video(tmp_path / "a.mp4", side_filled(frames, (384, 216), 216, 16))
    settings = ClipSettings((96, 64), 8, (1, 1), 0, True)
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    facts = curate_clip(path, settings, cuts, flow, np.random.default_rng(0)).facts
    assert facts.bars_x == pytest.approx(168, abs=8) and facts.bars_y == 0
    assert "blurred fill" in facts.treatment
