import ast
import runpy
import subprocess
import sys
from inspect import Parameter, Signature
from pathlib import Path

import pytest

from stages.data.tables import ContractError
from stages.run import command, locks
from stages.train.launch import run_training_stage
from tests.footage import ROOT

HOLD = (
    "import sys; from stages.run.locks import only_run\nwith only_run(sys.argv[1]): print('held', flush=True), input()"
)
BUILTIN_ERRORS = {"Exception", "ValueError", "RuntimeError", "OSError"}
SPLIT_STAGES = ("collect", "clips", "captions", "tracks", "sparse_flows", "latents")
WHOLE_STAGES = ("pretrain", "foundation", "curation_report", "track_quality", "object_lora", "evaluate", "register")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())


@pytest.fixture
def other_run(monkeypatch):
    """A function that lets another process hold a stage's lock."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    runs = []

    def hold(stage):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        runs.append(subprocess.Popen([sys.executable, "-c", HOLD, stage], **pipes))
        assert runs[-1].stdout.readline() == "held\n"
        return runs[-1]

    yield hold
    for run in runs:
        run.kill()
        run.communicate()


@pytest.mark.parametrize(
    ("stage", "given", "missing"),
    [
        ("camera_lora", "artifacts/foundation", "artifacts/motion_controlnet: .* stage motion_controlnet"),
        ("tracks@mixed", "", "data/clips/mixed: .* stage clips"),
        ("clips@camera", "", "data/videos/camera: .* stage collect"),
    ],
)
def test_a_missing_input_is_one_line_with_the_stage_that_makes_it(stage, given, missing, capsys):
    Path("dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    Path(given).mkdir(parents=True, exist_ok=True)
    with pytest.raises(SystemExit, match=f"^{stage}: {missing}"), command.one_line_errors(stage), locks.only_run(stage):
        raise AssertionError("it began")


def run_here(monkeypatch, stage, split):
    """Run the command of a split's stage; the splits whose work was begun."""
    begun = []
    monkeypatch.setattr(f"stages.{stage}.run", lambda split, params: begun.append(split))
    monkeypatch.setattr(sys, "argv", [stage, "--split", split])
    command.run_stage(f"stages.{stage}")
    return begun


def test_a_second_run_of_a_stage_is_refused_in_one_line(other_run):
    other_run("clips@mixed")
    run = subprocess.run(
        [sys.executable, "-m", "stages.clips", "--split", "mixed"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "clips@mixed: it runs already in this folder; wait until that run has ended, or stop it\n"
    assert not Path("data").exists()


@pytest.mark.parametrize("stage", WHOLE_STAGES)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_so_is_one_of_a_stage_without_splits(stage, other_run, monkeypatch):
    other_run(stage)
    monkeypatch.setattr(sys, "argv", [stage])
    with pytest.raises(SystemExit, match=f"{stage}: it runs already"):
        runpy.run_module(f"stages.{stage}", run_name="__main__")
    assert {path.name for path in Path().iterdir()} == {"params.yaml", ".locks"}


@pytest.mark.parametrize("stage", SPLIT_STAGES)
def test_each_split_has_its_own_lock_and_a_killed_run_holds_none(stage, other_run, monkeypatch):
    other = other_run(f"{stage}@mixed")
    with pytest.raises(SystemExit, match=f"{stage}@mixed: it runs already"):
        run_here(monkeypatch, stage, "mixed")
    assert run_here(monkeypatch, stage, "camera") == ["camera"]
    other.kill()
    other.wait()
    assert run_here(monkeypatch, stage, "mixed") == ["mixed"]


def test_a_training_stage_runs_once_and_its_launched_processes_need_no_lock(other_run, monkeypatch):
    other_run("camera_lora")
    monkeypatch.setattr("stages.train.launch.training_processes", lambda compute: 2)
    with pytest.raises(SystemExit, match="camera_lora: it runs already"):
        run_training_stage("camera_lora", Path("out"), lambda params, tracker: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("stages.train.launch.PartialState", lambda cpu: type("Other", (), {"is_main_process": False}))
    begun = []
    run_training_stage("camera_lora", Path("out"), lambda params, tracker: begun.append("camera_lora"))
    assert begun == ["camera_lora"]


def test_locks_are_not_for_git():
    assert f"/{locks.LOCKS}/" in (ROOT / ".gitignore").read_text().split()


@pytest.mark.parametrize("stage", [*SPLIT_STAGES, "foundation", "curation_report", "track_quality", "register"])
@pytest.mark.parametrize(
    "fault", [ContractError("clips: broken; run it again"), PermissionError(13, "Permission denied", "data/a")]
)
def test_what_a_user_can_put_right_is_one_line(stage, fault, monkeypatch, capsys):
    def run(**given):
        raise fault

    wanted = ["params", *(["split"] if stage in SPLIT_STAGES else [])]
    run.__signature__ = Signature([Parameter(name, Parameter.KEYWORD_ONLY) for name in wanted])
    monkeypatch.setattr(f"stages.{stage}.run", run)
    monkeypatch.setattr(sys, "argv", [stage, *(["--split", "mixed"] if stage in SPLIT_STAGES else [])])
    name = f"{stage}@mixed" if stage in SPLIT_STAGES else stage
    with pytest.raises(SystemExit) as ended:
        command.run_stage(f"stages.{stage}")
    assert ended.value.code == f"{name}: {fault}"


def test_every_error_of_the_project_that_names_a_remedy_is_a_user_error():
    """A new error class beside `UserError` would end as a traceback."""
    caught = {"Unusable", "UnreadableVideo", "DvcError", "DvcBusy"}  # where they are raised
    caught |= {"Refusal", "HttpRefusal", "Cancelled", "NoSlots"}
    names = set()
    for file in [*(ROOT / "models").rglob("*.py"), *(ROOT / "stages").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and {getattr(base, "id", "") for base in node.bases} & BUILTIN_ERRORS:
                names.add(node.name)
    assert names - caught == {"UserError"}
