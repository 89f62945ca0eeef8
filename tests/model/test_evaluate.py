"""The evaluation with a tiny model of the real classes: methods, equal noise, equal figures, the page."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from models.estimators import load_estimator
from models.evaluation.agreement import ranking_agreement
from models.evaluation.experiment import PLAIN, Case, generate_cases, guided
from models.evaluation.figures import error_entry, following_entry, guidance_entry, look_entry
from models.evaluation.measure import Look, Measured, Motion, measure
from models.evaluation.pictures import Shown, draw_report
from models.evaluation.report import write_evaluation_report
from models.metrics import Following, MotionError, still_error
from tests.footage import moving_texture
from tests.unit import tiny

SCALES = [1.0, 1.1, 2.0]
NAMES = "no_control controlnet camera_lora object_lora object_lora_1.0 object_lora_1.1 object_lora_2.0".split()
METHODS = {method.name: method for method in [*PLAIN, *guided(SCALES)]}


def case(number: int, strokes: int = 1) -> Case:
    generator = torch.Generator().manual_seed(number)
    size = (tiny.CHANNELS, tiny.HEIGHT // tiny.FACTOR, tiny.WIDTH // tiny.FACTOR)
    path = np.linspace((6, 8), (16, 8), tiny.FRAMES, dtype=np.float32)
    wanted = np.stack([path + np.array([0, n]) for n in range(strokes)], 1).astype(np.float32)
    text = torch.randn(24, tiny.TEXT, generator=generator)
    frame = np.zeros((tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
    return Case("picture", "line", frame, torch.randn(size, generator=generator), text, wanted, number)


def videos(cases: list[Case], method: str, seed: int = 0, batch_size: int = 4) -> dict[int, np.ndarray]:
    return {c.number: v for c, v in generate_cases(tiny.pipeline(), cases, METHODS[method], seed, batch_size)}


def test_the_methods_are_those_of_the_table():
    assert list(METHODS) == NAMES


@pytest.mark.parametrize("method", NAMES)
def test_every_case_gets_a_video_under_every_method(method):
    made = videos([case(0), case(1, strokes=3), case(2)], method)
    assert set(made) == {0, 1, 2}
    for frames in made.values():
        assert frames.shape == (tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3)
        assert frames.dtype == np.uint8


def test_a_video_depends_on_its_case_and_the_seed_and_not_on_its_batch():
    cases = [case(n) for n in range(3)]
    together, alone = videos(cases, "object_lora"), videos(cases, "object_lora", batch_size=1)
    for number, frames in together.items():
        assert np.abs(frames.astype(int) - alone[number]).max() <= 1
    again = videos(cases, "object_lora")
    assert all((again[number] == frames).all() for number, frames in together.items())
    other = videos(cases, "object_lora", seed=1)
    assert any((other[number] != frames).any() for number, frames in together.items())


def test_without_control_strokes_change_nothing():
    resting = Case(**{**vars(case(0)), "wanted": np.repeat(case(0).wanted[:1], tiny.FRAMES, 0)})
    assert (videos([case(0)], "no_control")[0] == videos([resting], "no_control")[0]).all()


TRACKERS = {name: load_estimator("tracks", name) for name in ("lucas_kanade", "template")}
STEP = 2  # pixels a frame that the textured videos move left


def textured_case(share: float = 1.0, number: int = 0, picture: str = "texture", strokes: int = 1) -> Case:
    """A case on a moving texture; `share` of its stroke is what the texture does."""
    frame = textured()[0]
    path = np.arange(6)[:, None] * np.array([-STEP / share, 0])
    starts = np.array([[50.0, 30.0], [50.0, 40.0]])[:strokes]
    background = np.array([[60.0, y] for y in (12, 24, 36, 48)], np.float32)
    wanted = (starts + path[:, None]).astype(np.float32)
    blank = torch.zeros(0)
    return Case(picture, "left", frame, blank, blank, wanted, number, background, background + np.float32(8))


def textured(**options) -> np.ndarray:
    return moving_texture(6, 96, 64, step=STEP, **options)


def test_every_tracker_measures_a_video_that_moves_as_a_whole():
    measured = measure(textured_case(), textured(), TRACKERS, camera=True)
    for name in TRACKERS:
        motion = measured.motions[name]
        assert motion.error.px < 0.3 and motion.error.stroke == pytest.approx(6) and not motion.error.lost
        assert motion.strokes.share == pytest.approx(1, abs=0.05)
        assert motion.background.share == pytest.approx(1, abs=0.05)
        assert motion.object_alone.share == pytest.approx(0, abs=0.05)
    assert measured.look.ssim == pytest.approx(1, abs=1e-4)
    assert measured.look.psnr == 100
    assert len(measured.look.colour) == len(measured.look.detail) == 6


@pytest.mark.parametrize(("camera", "share"), [(True, 0.0), (False, 1.0)])
def test_a_background_that_dissolves_is_the_bad_end_of_its_mode(camera, share):
    video = np.concatenate([textured()[:2], textured(seed=7)[2:]])
    motion = measure(textured_case(), video, TRACKERS, camera).motions["template"]
    assert motion.background.lost
    assert (motion.background.share <= share) if camera else (motion.background.share >= share)


def test_strokes_that_differ_have_no_share_to_follow():
    zoom = textured_case(strokes=2)
    zoom.wanted[:, 1] = zoom.wanted[:1, 1]
    motion = measure(zoom, textured(), TRACKERS, camera=True).motions["lucas_kanade"]
    assert motion.strokes is None and motion.background is None
    assert motion.object_alone is not None


def test_an_entry_has_both_scales_and_what_was_kept():
    errors = [MotionError(2.0, 8.0, False), MotionError(6.0, 8.0, True)]
    entry = error_entry(errors, ["a", "b"], seed=0)
    assert (entry["px"], entry["px_kept"], entry["relative"]) == (4, 2, 0.5)
    assert (entry["n"], entry["failures"]) == (2, 1)
    assert entry["ci95"] == [2, 6]
    assert "relative" not in error_entry([MotionError(2.0, 0.0, False)], ["a"], seed=0)


def test_shares_are_those_of_the_videos_that_know_the_points():
    entry = following_entry([None, Following(0.5, 3.0, True)], ["a", "b"], width=96, seed=0)
    assert (entry["share"], entry["px"], entry["n"], entry["failures"]) == (0.5, 12, 1, 1)
    assert entry["share_kept"] is None
    assert following_entry([None], ["a"], 96, 0) is None


def guided_video(picture: int, drift: float, share: float, drift_by_other: float = 0.0) -> Measured:
    case = textured_case(number=picture, picture=str(picture))
    motions = {
        name: Motion(MotionError(1.0, 6.0, False), Following(share, 6.0, False), Following(0.1, px, False), None)
        for name, px in (("t", drift), ("other", drift_by_other))
    }
    return Measured(case, motions, Look(30.0, 0.9, np.zeros(6), np.ones(6)))


def test_guidance_is_judged_on_all_scenes_and_on_those_that_drift():
    at_one = [guided_video(n, drift=0.1 * n, share=0.9, drift_by_other=0.1 * (9 - n)) for n in range(10)]  # 0.4 px each
    at_two = [guided_video(n, drift=0.05 * n, share=0.95) for n in range(10)]
    figures = guidance_entry({2.0: at_two, 1.0: at_one}, "t", "other", seed=0)
    assert figures["all"]["n"] == 10
    assert figures["drifting"]["n"] == 7  # 1.2 px and more, by the other
    drifting = figures["drifting"]["scales"]
    assert drifting["1.0"]["background_px"]["mean"] == pytest.approx(4 * 0.3)
    assert drifting["2.0"]["background_px"]["change"] == pytest.approx(-4 * 0.15)
    assert drifting["2.0"]["background_px"]["change_ci95"][1] < 0
    assert drifting["2.0"]["object_share"]["change_ci95"] == [0.05, 0.05]
    assert guidance_entry({1.0: []}, "t", "other", seed=0)["all"] == {"n": 0, "pictures": 0, "scales": {}}


def test_trackers_agree_unless_both_are_sure_of_opposite_orders():
    rng = np.random.default_rng(0)
    good, bad, groups = rng.normal(2, 0.3, 40), rng.normal(9, 0.3, 40), np.repeat(np.arange(8), 5)
    same = ranking_agreement({"a": good, "b": bad}, {"a": good + 1, "b": bad + 1}, groups, seed=0)
    assert same["agree"] and same["kendall_tau"] == 1 and same["told_apart"] == same["same_order"] == same["pairs"] == 1
    opposed = ranking_agreement({"a": good, "b": bad}, {"a": bad, "b": good}, groups, seed=0)
    assert not opposed["agree"] and opposed["opposed"] == [["a", "b"]] and opposed["kendall_tau"] == -1
    unsure = ranking_agreement({"a": good, "b": bad}, {"a": good, "b": good}, groups, seed=0)
    assert unsure["agree"] and unsure["told_apart"] == 0


def test_the_page_shows_every_figure_and_picture(tmp_path):
    cases = [textured_case(number=n, picture=f"p{n}") for n in range(2)]
    shown = Shown(dict.fromkeys(("cam_mc", "obj_mc", "scenes", "both", "many_strokes"), cases))
    plan = {"cam_mc": NAMES[:4], "obj_mc": NAMES, "scenes": ["camera_lora"], "both": ["both"]}
    plan |= {"many_strokes": NAMES[4:]}
    results: dict = {}
    for key, names in plan.items():
        results[key] = {name: [measure(c, textured(), TRACKERS, camera=False) for c in cases[:1]] for name in names}
        for name in names:
            shown.keep(key, name, cases[0], textured())
    sections = draw_report(tmp_path, results, shown, "template")
    groups, errors = ["p"] * 37, [still_error(cases[0].wanted)] * 37
    entry = error_entry([e._replace(lost=n < 30) for n, e in enumerate(errors)], groups, seed=0)
    entry |= {"second": {"px": 3.25, "ci95": [1.0, 2.0], "failures": 4}}
    share = following_entry([Following(0.25, 2.0, False)] * 37, groups, 96, seed=0)
    share |= {"second": {"share": 0.75, "ci95": [0.5, 0.9], "failures": 6}}
    ranks = {"kendall_tau": -1.0, "pairs": 1, "told_apart": 1, "same_order": 0, "opposed": [NAMES[:2]], "agree": False}
    looks = look_entry([Look(31.5, 0.875, np.full(6, 2.5), np.full(6, 0.625))] * 37, groups, seed=0)
    guidance = guidance_entry({s: [guided_video(n, 1.0, 0.5) for n in range(3)] for s in SCALES}, "t", "other", seed=0)
    distance = {"distance": 1.5, "n": 37, "pictures": 4, "n_real": 99, "real": "test clips"}
    figures = {
        "cam_mc": dict.fromkeys(["still", *NAMES, "real", "codec"], entry),
        "obj_mc": dict.fromkeys(["still", *NAMES, "real", "codec"], entry),
        "trackers": {"first": "lucas_kanade", "second": "template", "cam_mc": ranks, "obj_mc": ranks | {"agree": True}},
        "leakage": {"object_mode_background": share, "camera_strokes_object_alone": share},
        "guidance": {"lucas_kanade": guidance, "template": guidance},
        "both": {"object": entry, "object_alone": entry, "into_object": share},
        "fidelity": {"camera_lora": looks, "object_lora": looks, "codec": looks, "real": looks},
        "distances": {"frechet_codec": distance, "fid": distance | {"variant": "V", "sha256": "cafe"}},
        "profile": "pocket",
        "seed": 0,
    }
    json.dumps(figures, allow_nan=False)
    page = tmp_path / "index.html"
    write_evaluation_report(page, figures, sections)
    html = page.read_text(encoding="utf-8")
    assert html.count(">37<") >= 2 * (len(NAMES) + 3) + 5
    assert html.count("lost 30 of 37") == 2 * (len(NAMES) + 3)
    assert html.count("They contradict each other") == 2
    assert "cafe" in html and "31.5" in html and "0.875" in html and "3.25" in html
    assert "33.49" in html and "quoted" in html.lower()
    assert "http" not in html.replace("https://arxiv.org", "")
    files = [figure.file for section in sections for figure in section.figures]
    assert len(files) == 2 + 5 and all(f'src="{file}"' in html for file in files)
    with Image.open(tmp_path / "obj_mc-0-left.gif") as gif:
        assert gif.n_frames == 6 and gif.width == 3 * (2 * 96 + 4)
    assert "background 6.0 px, 100 % of the stroke" not in html  # at 384x256-equivalent: 24 px
    assert "background 24.0 px, 100 % of the stroke" in html


def test_a_missing_figure_is_an_error_and_no_gap(tmp_path):
    with pytest.raises(Exception, match="trackers"):
        write_evaluation_report(tmp_path / "index.html", {"seed": 0}, [])
