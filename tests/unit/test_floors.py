"""The rules of the layout: who may import whom, and how large a room may grow."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {"flows": 3, "stages": 2, "models": 1}
NOT_IN_MODELS = {"dvc", "prefect", "mlflow"}
LONG = {"stages/params.py"}  # see ARCHITECTURE.md
FILES = sorted(path.relative_to(ROOT).as_posix() for folder in FLOORS for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


@cache
def imports(file: str) -> frozenset[str]:
    """The names of all modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def file_of(module: str) -> str | None:
    path = Path(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((each.as_posix() for each in candidates if (ROOT / each).exists()), None)


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_imported_upwards(file):
    floor = FLOORS[file.split("/")[0]]
    assert not {name for name in imports(file) if FLOORS.get(name.split(".")[0], 0) > floor}


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("models/")])
def test_models_know_nothing_of_dvc_and_prefect_and_the_service_alone_knows_mlflow(file):
    forbidden = NOT_IN_MODELS - ({"mlflow"} if file.startswith("models/serving/") else set())
    assert not {name.split(".")[0] for name in imports(file)} & forbidden


def test_no_stage_imports_a_stage():
    stages = {file for file in FILES if file.startswith("stages/") and file.count("/") == 1}
    tools = {"stages/__init__.py", "stages/params.py"}
    for file in stages:
        others = {file_of(name) for name in imports(file)} & (stages - tools)
        assert not others, (file, others)


def test_no_files_import_each_other_in_a_circle():
    graph = {file: {file_of(name) for name in imports(file)} & set(FILES) - {file} for file in FILES}
    left = dict(graph)
    while free := {file for file, needed in left.items() if not needed & left.keys()}:
        left = {file: needed for file, needed in left.items() if file not in free}
    assert not left


@pytest.mark.parametrize("file", FILES)
def test_rooms_are_small(file):
    lines = (ROOT / file).read_text(encoding="utf-8").count("\n")
    assert lines <= 300 or file in LONG


@pytest.mark.parametrize("file", FILES)
def test_no_function_has_more_than_ten_parameters(file):
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len(arguments) <= 10, node.name


def test_public_names_have_one_meaning():
    meanings: dict[str, set[str]] = {}
    for file in FILES:
        for node in tree(file).body if file != "flows/scheduled.py" else []:  # a flow is named after what it schedules
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                meanings.setdefault(node.name, set()).add(file)
    protocol = {"main", "run", "load"}  # every stage has `run`, every program `main`, every estimator `load`
    assert not {name: files for name, files in meanings.items() if len(files) > 1 and name not in protocol}


def test_importing_models_is_quick_and_registers_nothing():
    code = "import sys; old = list(sys.meta_path); import models; print(sys.meta_path == old, 'torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "False"]
