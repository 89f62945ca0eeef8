"""Camera motion, quality, near-duplicates: what is measured of a clip, and which clips are kept."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from models.curation import duplicates
from models.curation.camera import camera_class, camera_motion
from models.curation.clip import ClipSettings, Samples, curate_clip, curate_scenes
from models.curation.duplicates import Candidate, near_duplicates, signature
from models.curation.outcome import Clip, Facts
from models.curation.quality import Bars, find_bars, measure_quality
from models.curation.selection import Rules, Source, most_of_a_class, select
from models.estimators import load_estimator
from tests.footage import moving_texture, real_videos, write_video

NO_RULES = Rules(None, None, None, None, None, None, 0.02, None, None, None, 0.0)


def picture(seed=0, side=300):
    noise = np.random.default_rng(seed).uniform(0, 255, (side // 6, side // 6, 3)).astype(np.float32)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def filmed(x=0.0, y=0.0, zoom=0.0, roll=0.0, frames=12, width=96, height=64):
    """A picture seen by a camera that moves by so much per frame: pixels, log scale, degrees."""
    view = []
    for t in range(frames):
        matrix = cv2.getRotationMatrix2D((150, 150), roll * t, np.exp(zoom * t))
        matrix[:, 2] += (width / 2 - 150 + x * t, height / 2 - 150 + y * t)
        view.append(cv2.warpAffine(picture(), matrix, (width, height), flags=cv2.INTER_CUBIC))
    return np.stack(view)


def classify(frames):
    motion = camera_motion(frames)
    return camera_class(motion.pan, motion.zoom, motion.roll, 0.02), motion


@pytest.mark.parametrize(
    ("move", "wanted"),
    [
        ({}, "static"),
        ({"x": 0.4, "y": 0.2}, "pan"),
        ({"x": -3, "y": 2}, "pan"),
        ({"zoom": 0.02}, "zoom"),
        ({"zoom": -0.02}, "zoom"),
        ({"roll": 1.5}, "roll"),
        ({"x": 1, "zoom": 0.025, "roll": 2}, "complex"),
    ],
)
def test_the_camera_is_named_after_how_it_moves(move, wanted):
    assert classify(filmed(**move))[0] == wanted


def test_strength_is_the_share_of_the_diagonal():
    _, motion = classify(filmed(x=1.5, y=-2.0, frames=11))
    assert motion.strength == pytest.approx(25 / np.hypot(96, 64), rel=0.05)
    assert motion.pan == pytest.approx(motion.strength, rel=0.05) and motion.object_share < 0.05


@pytest.mark.parametrize(("camera", "wanted"), [(0.0, "static"), (1.5, "pan")])
def test_a_large_object_is_not_the_camera(camera, wanted):
    frames = filmed(x=camera)
    thing = picture(seed=5)
    for t, frame in enumerate(frames):
        frame[14:52, 44 - 2 * t : 88 - 2 * t] = thing[:38, :44]
    name, motion = classify(frames)
    assert name == wanted and motion.object_share > 0.2
    assert motion.pan * np.hypot(96, 64) == pytest.approx(11 * camera, abs=1.5)


def test_a_flat_picture_says_nothing_about_the_camera():
    assert camera_motion(np.full((6, 64, 96, 3), 90, np.uint8)) is None
    assert camera_class(None, None, None, 0.02) == "unknown"


def test_quality_is_measured():
    frames = moving_texture(10, 96, 64)
    frames[:3] = 0
    frames[5] = frames[6]
    measured = measure_quality(frames)
    assert (measured.black, measured.frozen) == (0.3, pytest.approx(3 / 9)) and measured.brightness > 100
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in moving_texture(10, 96, 64)])
    assert measure_quality(soft).sharpness < 0.1 * measured.sharpness


def test_bars_are_found_in_all_frames_but_not_in_the_dark():
    frames = moving_texture(8, 160, 120)[..., 0]
    assert find_bars(frames) == Bars()
    frames[:, :15], frames[:, -15:] = 3, 0
    bars = find_bars(frames)
    assert (bars.left, bars.right) == (0, 0) and 15 <= bars.top * 120 <= 17 and 15 <= bars.bottom * 120 <= 17
    frames[3, 5, 40] = 200
    assert find_bars(frames).top == 6 / 120
    assert find_bars(np.full((4, 90, 160), 9, np.uint8)) == Bars()


def curate(path, **changes):
    settings = ClipSettings((96, 64), 8, (1, 1), margin=0, crop_bars=True)
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    return curate_clip(path, replace(settings, **changes), cuts, flow, np.random.default_rng(0))


def test_text_is_looked_for_in_a_larger_picture_of_what_the_clip_shows(tmp_path):
    seen = []

    def find_text(frames):
        seen.append(frames.shape)
        return np.array([0.0, 0.1, 0.3], np.float32)

    frames = moving_texture(12, 160, 160)
    frames[:, :40], frames[:, -40:] = 0, 0
    path = write_video(tmp_path / "a.mp4", frames)
    settings = ClipSettings((96, 64), 8, (1, 1), margin=0, crop_bars=True)
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    (clip,) = curate_scenes(path, settings, cuts, flow, np.random.default_rng, "longest", None, find_text)
    assert seen == [(3, 491, 736, 3)] and clip.facts.text_share == pytest.approx(0.1)
    assert curate(path).facts.text_share is None


def test_a_clip_under_text_is_dropped():
    clips = {"a": Facts(text_share=0.05), "b": Facts(text_share=0.01), "c": Facts()}
    sources = {name: Source(name, name) for name in clips}
    reasons = select(clips, sources, replace(NO_RULES, max_text=0.02))
    assert reasons == {"a": ("quality", "text: 5.0% of the picture, allowed 2.0%")}


def test_bars_are_cut_off_and_what_is_between_them_fills_the_frame(tmp_path):
    frames = moving_texture(12, 160, 160, step=0)
    frames[:, :40], frames[:, -40:] = 0, 0
    path = write_video(tmp_path / "a.mp4", frames)
    clip = curate(path)
    assert isinstance(clip, Clip) and (clip.facts.bars_x, clip.facts.bars_y) == (0, 82)
    inner = cv2.resize(frames[0, 41:119, 21:138], (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(clip.frames[0].astype(int) - inner).mean() < 20
    assert curate(path, crop_bars=False).frames[:, :8].mean() < 5


def test_frames_beside_a_cut_are_left_out(tmp_path):
    path = write_video(tmp_path / "a.mp4", np.concatenate([moving_texture(12, 96, 64, seed=i) for i in (1, 2)]))
    clip = curate(path, margin=4)
    assert (clip.facts.scene_start, clip.facts.scene_end, clip.facts.first_frame) == (0, 12, 0)
    assert "7 usable frames, a clip needs 8" in curate(path, margin=5).reason


def test_samples_are_few_and_spread():
    samples = Samples()
    frames = ((np.full((2, 2, 3), i // 4, np.uint8), 7 * i) for i in range(1000))
    assert sum(1 for _ in samples.watch(frames)) == 1000 and samples.stamps == list(range(0, 7000, 7))
    seen = samples.of((0, 1000))[:, 0, 0]
    assert 125 <= len(seen) <= 256 and np.ptp(np.diff(seen.astype(int))) == 0
    assert samples.of((1, 2)).shape == (1, 2, 2)


def test_the_same_footage_encoded_and_scaled_again_is_a_near_duplicate(tmp_path):
    one, two = moving_texture(30, 320, 240, seed=1), moving_texture(30, 320, 240, seed=2)
    small = np.stack([cv2.resize(frame, (160, 120), interpolation=cv2.INTER_AREA) for frame in one])
    dim = (small * 0.8 + 10).astype(np.uint8)
    videos = {"one": one, "two": two, "small": small, "dim": dim}
    found = {name: curate(write_video(tmp_path / f"{name}.mp4", frames)).facts for name, frames in videos.items()}
    sources = {name: Source(f"{name}.mp4", name) for name in found}
    reasons = select(found, sources, replace(NO_RULES, near_duplicates=6))
    assert reasons == dict.fromkeys(("small", "dim"), ("duplicate", "near-duplicate of one.mp4"))
    assert select(found, sources, NO_RULES) == {}


def test_real_footage_of_different_things_is_no_near_duplicate():
    videos = [path for path in real_videos() if "distorted" not in path.name]
    clips = {path.name: curate(path) for path in videos}
    candidates = [Candidate(name, clip.facts.signature, ()) for name, clip in clips.items()]
    assert near_duplicates(candidates, 12) == {}


def test_a_chain_of_alike_clips_does_not_fall_to_one():
    grey = np.random.default_rng(0).integers(0, 256, (8, 32, 32), np.uint8)
    bits = bytearray.fromhex(signature(grey))
    chain = []
    for step in range(5):
        chain.append(Candidate(str(step), bytes(bits).hex(), (step,)))
        for frame in range(8):
            bits[8 * frame + step] ^= 0xFF  # 8 of 64 bits
    assert near_duplicates(chain, 8) == {"1": "0", "3": "2"}


@pytest.mark.parametrize("limit", [0, 2, 6, 6.3, 12])
def test_near_duplicates_are_those_that_comparing_all_pairs_finds(limit, monkeypatch):
    monkeypatch.setattr(duplicates, "FEW", 8)
    rng = np.random.default_rng(int(limit))
    bits = rng.integers(0, 2, (200, 512), dtype=np.uint8)
    for clip in range(1, 200, 2):  # alike to an earlier one, around the limit
        bits[clip] = bits[rng.integers(clip)]
        bits[clip, rng.choice(512, rng.integers(8 * limit + 6, dtype=int), replace=False)] ^= 1
    candidates = [
        Candidate(str(i), np.packbits(row).tobytes().hex(), (int(rng.integers(3)),)) for i, row in enumerate(bits)
    ]
    kept, repeats = [], {}
    for candidate in sorted(candidates, key=lambda candidate: (candidate.rank, candidate.name)):
        alike = [name for name in kept if (bits[int(name)] != bits[int(candidate.name)]).sum() <= 8 * limit]
        if alike:
            repeats[candidate.name] = alike[0]
        else:
            kept.append(candidate.name)
    assert near_duplicates(candidates, limit) == repeats and 20 < len(repeats) < 100


def facts(score=1.0, pan=0.0, **changes):
    values = {"black": 0.0, "frozen": 0.0, "brightness": 99.0, "sharpness": 99.0, "object_share": 0.0}
    return Facts(motion_score=score, pan=pan, zoom=0.0, roll=0.0, **(values | changes))


@pytest.mark.parametrize(
    ("rule", "changes", "reason"),
    [
        ({"max_black": 0.5}, {"black": 0.6}, "black: 60% of its frames, allowed 50%"),
        ({"max_frozen": 0.5}, {"frozen": 0.7}, "frozen: 70% of its steps, allowed 50%"),
        ({"min_brightness": 20}, {"brightness": 9.0}, "dark: brightness 9, wanted 20"),
        ({"min_sharpness": 50}, {"sharpness": 9.0}, "blurred: sharpness 9, wanted 50"),
        ({"camera_classes": ["pan"]}, {}, "camera: static, wanted pan"),
        ({"max_object_share": 0.1}, {"object_share": 0.3}, "moving objects: 30% of the picture, allowed 10%"),
    ],
)
def test_each_rule_drops_with_its_reason_and_can_be_switched_off(rule, changes, reason):
    clips = {"good": facts(pan=0.3), "bad": facts(**changes)}
    sources = {name: Source(f"{name}.mp4", name) for name in clips}
    dropped = select(clips, sources, replace(NO_RULES, **rule))
    assert {name: text for name, (_, text) in dropped.items()} == {"bad": reason}
    assert select(clips, sources, NO_RULES) == {}


def test_the_least_motion_is_counted_among_what_the_other_rules_leave():
    clips = {f"c{i}": facts(score=float(i)) for i in range(8)} | {"dark": facts(score=0.5, brightness=1.0)}
    sources = {name: Source(name, name) for name in clips}
    dropped = select(clips, sources, replace(NO_RULES, min_brightness=10, drop_share=0.25))
    assert {name: step for name, (step, _) in dropped.items()} == {"dark": "quality", "c0": "motion", "c1": "motion"}


def test_a_common_class_is_cut_to_its_share_by_content():
    clips = {f"still{i}": facts() for i in range(8)} | {f"pan{i}": facts(pan=0.5) for i in range(3)}
    sources = {name: Source(name, name[::-1]) for name in clips}
    rules = replace(NO_RULES, max_class_share=0.5)
    dropped = set(select(clips, sources, rules))
    assert dropped == {f"still{i}" for i in range(3, 8)}
    del clips["still7"]
    assert set(select(clips, sources, rules)) == dropped - {"still7"}


@pytest.mark.parametrize(
    ("counts", "share", "most"),
    [([8, 3], 0.5, 3), ([8, 3], 0.8, 8), ([8, 3, 3], 0.4, 4), ([5], 0.6, 5), ([9, 9], 0.4, 9), ([], 0.5, 0)],
)
def test_how_many_a_class_may_keep(counts, share, most):
    assert most_of_a_class(counts, share) == most
