"""Stage names = sections of params.yaml = modules in stages/, and each stage depends on the code that it imports."""

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml

from stages.params import Params, load_params

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
NO_STAGES = ["profile", "video", "sampler", "compute", "mlflow", "flows"]
SHAPES_NO_OUTPUT = {
    f"stages.{name}" for name in ("command", "compute", "items", "locks", "memory", "params", "tracking")
} | {
    "models.torchvision_ops",
    "models.estimators",
}
# Read the data of earlier stages, name folders and adapters: a change that matters changes those stages' outputs too.
ONLY_READS = {
    f"stages.{name}" for name in ("contracts", "latents", "motion_controlnet", "camera_lora", "object_lora")
} | {f"models.{name}" for name in ("branches", "codec", "curation.subset", "guidance", "video")}
ONLY_TRAINS = {"models.checkpointing", "models.diffusion", "models.orthogonal_loss"} | {
    f"stages.{name}" for name in ("checkpoint", "training", "training_items", "validation")
}
READERS = ("motion_controlnet", "camera_lora", "object_lora", "evaluate")


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def module_file(module: str) -> Path | None:
    path = ROOT / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of this project that `module` imports, by whatever statement."""
    file = module_file(module)
    assert file is not None, module
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {part for part in parts if module_file(part)}
            found |= inner | (set() if len(inner) == len(parts) else {node.module})
    return frozenset(name for name in found if name.split(".")[0] in ("models", "stages") and "." in name)


def reachable(module: str) -> set[str]:
    """`module` and all that it imports, directly or not, without what shapes no output."""
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in SHAPES_NO_OUTPUT:
            seen.add(name)
            waiting += imports(name)
    return seen


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
    with_tracker = {"tracks"} if stage in ("evaluate", "track_quality") else set()
    shared = {"video", "sampler"} | with_tracker
    assert set(definition(stage)["params"]) <= {stage, *shared}


@pytest.mark.parametrize("stage", [name for name in STAGES if not STAGES[name].get("frozen")])
def test_every_stage_depends_on_the_code_that_it_imports(stage):
    deps = [dep for dep in definition(stage)["deps"] if dep.startswith(("models", "stages"))]
    module = f"stages.{stage}"
    modules = reachable(module) - {"models.curation.subset"} - (ONLY_READS - {module} if stage in READERS else set())
    if stage == "evaluate":
        modules -= ONLY_TRAINS
    needed = {module_file(name).relative_to(ROOT).as_posix() for name in modules}

    assert not {path for path in needed if not any(path == dep or path.startswith(f"{dep}/") for dep in deps)}
    for dep in deps:
        assert "${" in dep or (ROOT / dep).exists(), dep


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


def test_both_profiles_state_the_same_keys():
    pocket, paper = (yaml.safe_load((ROOT / f"profiles/{name}.yaml").read_text()) for name in ("pocket", "paper"))

    assert list(pocket) == list(paper)
    assert {name: list(value) for name, value in pocket.items() if isinstance(value, dict)} == {
        name: list(value) for name, value in paper.items() if isinstance(value, dict)
    }


def test_changing_the_profile_does_not_change_the_pretraining():
    pocket, paper = (load_params(ROOT / f"profiles/{name}.yaml") for name in ("pocket", "paper"))

    assert paper.pretrain == pocket.pretrain
