"""Mode `both` in the evaluation, and what the report claims."""

import copy

import numpy as np
import pytest
import torch

from models.evaluation.claims import claims_of
from models.evaluation.experiment import Case, batches
from models.evaluation.measure import measure
from stages.evaluation.finished import KeptVideo, read_finished, to_bytes

FRAMES, SIZE = 4, (48, 32)
RIGHT, DOWN = np.array([6.0, 0.0]), np.array([2.0, 6.0])  # not at right angles: each has a share in the other


def path(starts, step) -> np.ndarray:
    """(T, N, 2) of points that move by `step` a frame."""
    return (np.array(starts, np.float32) + np.arange(FRAMES)[:, None, None] * step).astype(np.float32)


def case(camera: bool = True) -> Case:
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    background = np.array([[30, 5], [35, 8]], np.float32)
    strokes = path([[2, 3]], DOWN) if camera else np.zeros((0, 0, 2), np.float32)
    embeds = torch.zeros(2, 4)
    return Case("p", "t", picture, torch.zeros(4, 4, 6), embeds, path([[10, 10]], RIGHT), 0, background, camera=strokes)


def measured(object_step, background_step, of: Case | None = None):
    """A video measured by a tracker that sees the object and the background move by these steps."""
    made = of or case()

    def follow(video, points):
        steps = np.array([object_step] + [background_step] * (len(points) - 1), np.float32)
        tracks = points + np.arange(FRAMES)[:, None, None] * steps
        return tracks.astype(np.float32), np.ones(tracks.shape[:2], bool)

    video = np.zeros((FRAMES, SIZE[1], SIZE[0], 3), np.uint8)
    return measure(made, video, {"fake": follow}, camera=False)


def test_in_mode_both_the_background_should_follow_the_camera_and_the_object_its_own_stroke():
    motion = measured(RIGHT, DOWN).motions["fake"]
    assert motion.error.px == pytest.approx(0) and motion.background_error.px == pytest.approx(0)
    assert motion.background.share == pytest.approx(1)
    assert motion.into_object.share == pytest.approx(0) and motion.into_background.share == pytest.approx(0)


def test_each_motion_in_the_other_is_measured_apart():
    carried = measured(RIGHT + 0.5 * DOWN, DOWN).motions["fake"]
    assert carried.into_object.share == pytest.approx(0.5) and carried.into_background.share == pytest.approx(0)
    dragged = measured(RIGHT, DOWN + 0.25 * RIGHT).motions["fake"]
    assert dragged.into_background.share == pytest.approx(0.25) and dragged.into_object.share == pytest.approx(0)


def test_without_camera_strokes_the_background_should_rest():
    motion = measured(RIGHT, DOWN, case(camera=False)).motions["fake"]
    assert motion.background_error.px == pytest.approx(2 * np.linalg.norm(DOWN)) and motion.into_object is None


def test_cases_of_one_batch_have_equal_numbers_of_both_kinds_of_strokes():
    assert [len(batch) for batch in batches([case(), case(camera=False), case()], 8)] == [2, 1]


def test_a_kept_measurement_comes_back_equal(tmp_path):
    kept = KeptVideo(measured(RIGHT + 0.5 * DOWN, DOWN))
    (tmp_path / "job.npz").write_bytes(to_bytes([kept]))
    assert read_finished(tmp_path / "job.npz", [kept.measured.case])[0].measured.motions == kept.measured.motions


def entry(name: str, value: float) -> dict:
    """A row with the same value by both trackers, and an interval of 1 to each side."""
    row = {name: value, "ci95": [value - 1, value + 1]}
    return row | {"second": dict(row)}


def evaluated() -> dict:
    """Figures of an evaluation as far as claims read them."""
    errors = {name: entry("px", 40) for name in ("still", "no_control", "controlnet", "camera_lora", "object_lora")}
    look = {"psnr": 30.0}
    return {
        "trackers": {"first": "a", "second": "b"},
        "cam_mc": copy.deepcopy(errors),
        "obj_mc": copy.deepcopy(errors),
        "leakage": {"object_mode_background": entry("share", 0.0)},
        "guidance": {name: {"all": {"scales": {}}} for name in ("a", "b")},
        "fidelity": {"camera_lora": look, "object_lora": look},
    }


def verdict(figures: dict, words: str) -> str:
    [claim] = [claim for claim in claims_of(figures) if words in claim.sentence]
    return claim.verdict


def test_a_claim_holds_only_if_both_trackers_say_so():
    figures = evaluated()
    row = figures["leakage"]["object_mode_background"]
    assert verdict(figures, "rest of the picture stays") == "yes"
    row["second"]["share"] = 0.5
    assert verdict(figures, "rest of the picture stays") == "trackers differ"
    row["share"] = 0.5
    assert verdict(figures, "rest of the picture stays") == "no"


def test_training_helps_only_if_every_step_lowers_the_error_and_the_intervals_are_apart():
    figures = evaluated()
    assert verdict(figures, "camera motion more exact") == "no"
    figures["cam_mc"] |= {"controlnet": entry("px", 20), "camera_lora": entry("px", 10)}
    assert verdict(figures, "camera motion more exact") == "yes"
    figures["cam_mc"]["camera_lora"] = entry("px", 18.5)
    assert verdict(figures, "camera motion more exact") == "no"


@pytest.mark.parametrize(("change", "holds"), [(-0.5, "yes"), (0.5, "no")])
def test_guidance_is_read_at_its_highest_scale(change, holds):
    figures = evaluated()
    background = {"change": change, "change_ci95": [change - 0.1, change + 0.1]}
    scales = {"1.0": {}, "2.0": {"background_px": background, "object_share": {"change": 0.001}}}
    figures["guidance"] = {name: {"all": {"scales": scales}} for name in ("a", "b")}
    assert verdict(figures, "brings the background to rest") == holds
