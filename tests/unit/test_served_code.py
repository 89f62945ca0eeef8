"""The code that a model is logged with has a name of its own; `make serve` says when it runs other code."""

import shutil
import sys
from pathlib import Path

import mlflow

from stages.registry.own_package import PREFIX, copy_as_own_package, own_package
from stages.serve import differs
from tests.unit import tiny
from tests.unit.test_service import record

ROOT = Path(__file__).parents[2]


def test_other_code_is_noticed_and_equal_or_absent_code_is_not(tmp_path):
    logged, running = tmp_path / "logged", tmp_path / "running"
    for folder in (logged, running):
        (folder / "sampling").mkdir(parents=True)
        (folder / "sampling/guidance.py").write_text("scale = 1\n")
    assert not differs(logged, running)
    assert not differs(tmp_path / "nothing", running)
    (running / "sampling/guidance.py").write_text("scale = 2\n")
    assert differs(logged, running)
    (running / "sampling/guidance.py").write_text("scale = 1\n")
    (running / "new.py").touch()
    assert differs(logged, running)


def test_two_versions_and_a_package_named_models_live_in_one_process(tmp_path):
    sources = [tmp_path / version / "models" for version in ("one", "two")]
    for number, source in enumerate(sources, 1):
        shutil.copytree(ROOT / "models", source, ignore=shutil.ignore_patterns("__pycache__", "*.jpg"))
        with open(source / "serving/limits.py", "a") as file:
            file.write(f"\nVERSION = {number}\n")
    tiny.pipeline().save_pretrained(tmp_path / "saved")
    found = []
    for source in sources:
        with own_package(source) as package:
            mlflow.pyfunc.save_model(
                source.parent / "logged",
                python_model=str(package / "serving/pyfunc.py"),
                artifacts={"model": str(tmp_path / "saved")},
                code_paths=[str(package)],
                pip_requirements=[],
            )
        model = mlflow.pyfunc.load_model(str(source.parent / "logged")).unwrap_python_model()
        used = sys.modules[type(model).plan.__globals__["Limits"].__module__]
        found.append((used.VERSION, Path(used.__file__).is_relative_to(source.parent / "logged")))
        assert model.plan.__globals__["make_video"].__module__.startswith(PREFIX)
        assert len(model.plan([record()])) == 1
    assert found == [(1, True), (2, True)]


def test_the_code_of_a_logged_model_has_the_hash_of_the_code_it_was_copied_from(tmp_path):
    package = copy_as_own_package(ROOT / "models", tmp_path)
    logged, here = (package / "serving/make_video.py").read_text(), (ROOT / "models/serving/make_video.py").read_text()
    assert logged != here
    assert logged.replace(package.name, "models") == here
