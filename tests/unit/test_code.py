"""Which code shapes a result: everything that a function uses, and nothing else."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

from stages.params import load_params
from stages.run import code
from stages.run.code import Definition, code_of, files_of

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
ITEM_FUNCTIONS = {  # what makes one item of a stage, and a module deep below that shapes it
    "collect": ("draw_video", "models.scenes"),
    "clips": ("make_clips", "models.curation.motion"),
    "captions": ("describe", "models.curation.captioning"),
    "tracks": ("track_clip", "models.estimators.tracks_lucas_kanade"),
    "sparse_flows": ("draw_clip", "models.curation.sparse"),
    "latents": ("encode_clip", "models.networks.codec"),
    "motion_controlnet": ("run", "models.denoising.flow_maps"),
    "camera_lora": ("run", "models.lora.sets"),
    "object_lora": ("run", "models.lora.orthogonal_loss"),
}


@pytest.fixture(autouse=True)
def _changed_sources_are_forgotten():
    yield
    code._top_level.cache_clear()


def read_as(monkeypatch, module: str, source: str) -> None:
    """Let a module read as if `source` were its text."""
    original, changed = code._tree.__wrapped__, ast.parse(source)
    monkeypatch.setattr(code, "_tree", lambda name: changed if name == module else original(name))
    code._top_level.cache_clear()


def change(monkeypatch, module: str, old: str, new: str) -> None:
    source = code.module_file(module).read_text(encoding="utf-8")
    assert old in source
    read_as(monkeypatch, module, source.replace(old, new))


def grown(monkeypatch, module: str, function: str | None = None) -> None:
    """One more statement at the end of a module, or of one of its functions."""
    tree = ast.parse(code.module_file(module).read_text(encoding="utf-8"))
    parts = {getattr(node, "name", ""): node for node in tree.body}
    (parts[function] if function else tree).body.append(ast.parse("changed = 1").body[0])
    read_as(monkeypatch, module, ast.unparse(tree))


def item_code(stage: str) -> dict[Definition, str]:
    return code_of(getattr(import_module(f"stages.{stage}"), ITEM_FUNCTIONS[stage][0]), PARAMS)


@pytest.mark.parametrize("stage", ITEM_FUNCTIONS)
def test_a_change_of_the_stages_own_function_changes_its_code(stage, monkeypatch):
    before, (function, _) = item_code(stage), ITEM_FUNCTIONS[stage]
    grown(monkeypatch, f"stages.{stage}", function)
    assert item_code(stage) != before


@pytest.mark.parametrize("stage", ITEM_FUNCTIONS)
def test_what_else_its_module_holds_does_not_count(stage, monkeypatch):
    before = item_code(stage)
    grown(monkeypatch, f"stages.{stage}")
    assert item_code(stage) == before


@pytest.mark.parametrize("stage", ITEM_FUNCTIONS)
def test_a_change_of_a_module_below_changes_its_code(stage, monkeypatch):
    before, (_, module) = item_code(stage), ITEM_FUNCTIONS[stage]
    grown(monkeypatch, module)
    assert item_code(stage) != before


@pytest.mark.parametrize("stage", ITEM_FUNCTIONS)
@pytest.mark.parametrize("elsewhere", ["models.sampling.pipeline", "models.serving.cli", "stages.run.compute"])
def test_a_change_elsewhere_changes_nothing(stage, elsewhere):
    assert elsewhere not in {definition.module for definition in item_code(stage)}


def test_the_seed_of_the_sparse_draws_is_part_of_their_code(monkeypatch):
    before = item_code("sparse_flows")
    change(monkeypatch, "stages.sparse_flows", "int(item.clip_id, 16)", "int(item.clip_id, 16) + 1")
    assert item_code("sparse_flows") != before


def test_comments_and_docstrings_do_not_count(monkeypatch):
    before = item_code("tracks")
    change(monkeypatch, "models.geometry", '"""Geometry', '"""Other words. Geometry')
    assert item_code("tracks") == before


def test_an_estimator_is_found_by_its_name_in_the_code_or_in_the_parameters():
    tracks = {path.name for path in files_of(item_code("tracks"))}
    clips = {path.name for path in files_of(item_code("clips"))}
    evaluate = {path.name for path in files_of(code_of(import_module("stages.evaluate").run, PARAMS))}
    assert "tracks_lucas_kanade.py" in tracks and "tracks_template.py" not in tracks
    assert {"cuts_adaptive.py", "flow_dis.py"} <= clips and "flow_raft.py" not in clips
    assert {"tracks_template.py", "flow_dis.py"} <= evaluate


def test_what_shapes_nothing_is_not_followed():
    for stage in ITEM_FUNCTIONS:
        modules = {definition.module for definition in item_code(stage)}
        assert not {name for name in modules if name.startswith("stages.run") or name == "stages.params"}
