"""Stage names = sections of params.yaml = modules in stages/, and each stage depends on the code that it imports."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from stages.params import Params, load_params
from stages.run.code import code_of, files_of

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
NO_STAGES = ["profile", "video", "sampler", "compute", "mlflow", "serve", "flows"]


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def code_dependencies(stage: str) -> list[str]:
    """Files and folders of code that dvc.yaml names for a stage, with the estimators of the parameters put in."""
    params = load_params(ROOT / "params.yaml").model_dump(by_alias=True)

    def value(match: re.Match) -> str:
        section, key = match.group(1).split(".")
        return params[section][key]

    deps = [dep for dep in definition(stage)["deps"] if dep.startswith(("models", "stages"))]
    return [re.sub(r"\$\{([a-z_.]+)\}", value, dep) for dep in deps]


def shaping_files(stage: str) -> set[str]:
    """Files of code that shape the output of a stage."""
    module = import_module(f"stages.{stage}")
    code = code_of(getattr(module, "run", None) or module.main, load_params(ROOT / "params.yaml"))
    return {path.relative_to(ROOT).as_posix() for path in files_of(code)}


def test_stages_are_the_sections_of_params_in_the_same_order():
    sections = [field.alias or name for name, field in Params.model_fields.items()]

    assert [name for name in sections if name not in NO_STAGES] == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_module_that_its_command_runs(stage):
    assert (ROOT / "stages" / f"{stage}.py").exists()
    assert definition(stage)["cmd"].split(" --")[0] == f"python -m stages.{stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_described_and_depends_on_its_own_section_only(stage):
    assert definition(stage)["desc"]
    assert stage in definition(stage)["params"]
    with_tracker = {"tracks"} if stage in ("evaluate", "register", "track_quality") else set()
    shared = {"video", "sampler"} | with_tracker
    if stage in ("evaluate", "register"):
        shared |= {"collect.source", "collect.synthetic.world", "collect.synthetic.pictures"}  # of object scenes
    if stage == "collect":
        shared |= {"clips.held_out", "clips.validation"}  # they decide which side a drawn video shows pictures of
    assert set(definition(stage)["params"]) <= {stage, *shared}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_depends_on_the_code_that_shapes_its_output_and_on_no_other(stage):
    deps, needed = code_dependencies(stage), shaping_files(stage)

    assert not {path for path in needed if not any(path == dep or path.startswith(f"{dep}/") for dep in deps)}
    code = [dep for dep in deps if not dep.endswith(".j2")]
    assert not {dep for dep in code if not any(path == dep or path.startswith(f"{dep}/") for path in needed)}
    assert all((ROOT / dep).exists() for dep in deps)


def test_committed_params_are_the_pocket_profile():
    assert (ROOT / "params.yaml").read_text() == (ROOT / "profiles/pocket.yaml").read_text()


def test_paper_profile_has_the_numbers_of_the_paper():
    paper = load_params(ROOT / "profiles/paper.yaml")

    assert (paper.video.width, paper.video.height, paper.video.clip_frames, paper.video.frames) == (384, 256, 32, 16)
    assert paper.clips.interval == (1, 16)
    assert paper.clips.drop_share["mixed"] == 0.25
    assert (paper.tracks.grid, paper.sparse_flows.max_tracks) == (16, 8)
    assert (paper.sampler.num_inference_steps, paper.sampler.guidance_scale) == (25, 8.5)
    for stage in (paper.camera_lora, paper.object_lora):
        assert (stage.learning_rate, stage.batch_size, stage.rank) == (1e-4, 64, 64)
    assert paper.motion_controlnet.condition == ["flow"]
    assert paper.motion_controlnet.flow_scale == 1


def test_filters_that_the_paper_does_not_name_are_off_in_its_profile():
    clips = load_params(ROOT / "profiles/paper.yaml").clips

    assert (clips.margin, clips.crop_bars, clips.near_duplicates) == (0, False, None)
    assert set(clips.quality.model_dump().values()) == {None}
    assert clips.camera.classes.mixed is clips.camera.classes.camera is None
    assert clips.camera.max_object_share.mixed is clips.camera.max_object_share.camera is None
    assert clips.camera.max_class_share.mixed is None and clips.camera.max_class_share.camera is not None
    assert clips.drop_share.camera == 0


@pytest.mark.parametrize("other", ["paper", "pictures"])
def test_all_profiles_state_the_same_keys(other):
    pocket, others = (yaml.safe_load((ROOT / f"profiles/{name}.yaml").read_text()) for name in ("pocket", other))

    assert list(pocket) == list(others)
    assert {name: list(value) for name, value in pocket.items() if isinstance(value, dict)} == {
        name: list(value) for name, value in others.items() if isinstance(value, dict)
    }
    load_params(ROOT / f"profiles/{other}.yaml")


@pytest.mark.parametrize("profile", ["pocket", "pictures", "paper"])
def test_every_knob_is_explained(profile):
    """A knob has its words on its line or on one right above it; a choice by split may have them on its first line."""
    silent, above, before = [], "", ""
    for line in (ROOT / f"profiles/{profile}.yaml").read_text().splitlines():
        before, previous = line, before
        if not line.strip() or line.strip().startswith("#"):
            continue
        knob, _, words = line.partition(" # ")
        if previous.startswith("  ") and previous.strip().startswith("# "):
            words = words or previous.strip()
        key, _, value = knob.strip().partition(":")
        if not value.strip():
            above = words
        elif not words.strip() and not (key in ("mixed", "camera") and above.strip()):
            silent.append(line)

    assert not silent


def test_changing_the_profile_does_not_change_the_pretraining():
    pocket, paper = (load_params(ROOT / f"profiles/{name}.yaml") for name in ("pocket", "paper"))

    assert paper.pretrain == pocket.pretrain
