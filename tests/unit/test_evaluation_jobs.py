"""The evaluation in jobs: it goes on where it was stopped, and the order and the place of jobs change nothing."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.estimators import load_estimator, second_tracker
from models.evaluation.objects import MovingObject
from models.networks.foundation import SUBFOLDERS
from stages import evaluate
from stages.data.curated import CuratedClip
from stages.data.paths import EVALUATION, EVALUATION_REPORT, FOUNDATION
from stages.data.tables import ContractError
from stages.evaluation import cases, distances, jobs, real
from stages.evaluation.distances import CODEC, Distances, OfficialNetwork
from stages.evaluation.finished import read_finished
from stages.params import Params, load_params
from stages.run.mlflow_runs import SilentRun
from tests.footage import moving_texture
from tests.unit import tiny

ROOT = Path(__file__).parents[2]
CLIPS = 6
BATCH = 2
FOUND = MovingObject(
    np.array([12.0, 8.0], np.float32),
    np.array([[12, 8], [15, 8], [12, 11]], np.float32),
    np.array([[2, 2], [21, 2], [2, 13], [21, 13]], np.float32),
)


class Stopped(BaseException):
    """The end of a run from outside."""


def frames_of(path: Path) -> np.ndarray:
    return moving_texture(tiny.FRAMES, tiny.WIDTH, tiny.HEIGHT, 1, seed=int(path.stem))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The outputs of the training stages, and a start of the motion ControlNet."""
    root = tmp_path_factory.mktemp("weights")
    tiny.pipeline().save_pretrained(root / "saved")
    for path in (root / "saved").iterdir():
        owner = root / FOUNDATION if path.name in SUBFOLDERS or path.suffix == ".json" else root / "artifacts"
        owner.mkdir(parents=True, exist_ok=True)
        shutil.move(path, owner / path.name)
    (root / FOUNDATION / "weights.json").write_text("{}")
    shutil.copytree(root / "artifacts/motion_controlnet", root / "start")
    return root


@pytest.fixture
def params(weights, tmp_path, monkeypatch) -> Params:
    """A folder of its own with these weights; six test clips of each split, one trajectory of each kind."""
    shutil.copytree(weights, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    nowhere = Path("nowhere")
    clips = [CuratedClip(f"clip{n}", "test", "", Path(f"{n}.mp4"), nowhere, nowhere, None) for n in range(CLIPS)]
    for module in (cases, distances):
        monkeypatch.setattr(module, "curated_clips", lambda split, subset=None: clips)
        monkeypatch.setattr(module, "read_latents", lambda path: latents_of(path))
    for module in (cases, jobs, real):
        monkeypatch.setattr(module, "read_clip", frames_of)
    monkeypatch.setattr(cases, "read_tracks", lambda path: (np.full((3, 4, 2), 8, np.float32), np.ones((3, 4), bool)))
    monkeypatch.setattr(cases, "read_draws", lambda path: np.array([[0, 1, -1]], np.int32))
    monkeypatch.setattr(cases, "find_object", lambda *given: FOUND)
    monkeypatch.setattr(cases, "camera_names", lambda: ["pan_left"])
    monkeypatch.setattr(cases, "object_names", lambda: ["line_right"])
    track = load_estimator("tracks", "lucas_kanade")
    monkeypatch.setattr(jobs, "load_trackers", lambda name, options: {name: track, second_tracker(name): track})
    monkeypatch.setattr(jobs, "code_of", lambda function, params: {"code": "the same"})
    whole = load_params(ROOT / "params.yaml")
    changes: dict = {
        "video": {"width": tiny.WIDTH, "height": tiny.HEIGHT, "frames": tiny.FRAMES},
        "sampler": {"num_inference_steps": 1},
        "evaluate": {"images": BATCH, "batch_size": BATCH, "trajectory_guidance_scales": [1.1]},
        "motion_controlnet": {"start": "start"},
        "compute": {"backend": "serial"},
    }
    jobs._loaded.cache_clear()
    return whole.model_copy(update={k: getattr(whole, k).model_copy(update=v) for k, v in changes.items()})


def latents_of(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(int(path.stem.removeprefix("clip")))
    shape = tiny.FRAMES, tiny.CHANNELS, tiny.HEIGHT // tiny.FACTOR, tiny.WIDTH // tiny.FACTOR
    return torch.randn(shape, generator=generator).half(), torch.randn(24, tiny.TEXT, generator=generator).half()


def all_jobs(params: Params) -> list:
    """The jobs of a whole evaluation, none of them done."""
    asked: list = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluate, "do_jobs", lambda setup, planned, compute: asked.extend(planned) or stop())
        with pytest.raises(Stopped):
            evaluate.run(params, SilentRun())
    return asked


def stop() -> None:
    raise Stopped


def outputs() -> dict[str, bytes]:
    """Every file that the stage leaves, with its bytes."""
    files = [EVALUATION, *sorted(EVALUATION_REPORT.iterdir())]
    return {path.name: path.read_bytes() for path in files}


def test_a_stopped_evaluation_goes_on_to_the_bytes_that_jobs_give_in_any_order_and_process(params, monkeypatch):
    sampled: list[int] = []
    sample = jobs.sample_batch

    def counted(pipe, batch, method, seed):
        if len(sampled) == stop_at:
            raise Stopped
        sampled.append(len(batch))
        return sample(pipe, batch, method, seed)

    monkeypatch.setattr(jobs, "sample_batch", counted)
    stop_at = 5
    with pytest.raises(Stopped):
        evaluate.run(params, SilentRun())
    assert not EVALUATION.exists()
    stop_at = -1
    evaluate.run(params, SilentRun())
    whole = outputs()
    assert len(sampled) == (4 + 1) + (4 + 1 + 1) + 1 + 1 + 1 and set(sampled) == {BATCH}  # a batch a method

    shutil.rmtree(".cache")
    planned = all_jobs(params)
    for shard in (planned[1::2], planned[::2]):
        jobs._loaded.cache_clear()
        for job in reversed(shard):
            jobs.do_job(pickle.loads(pickle.dumps(job)))  # as another process gets it
    assert {path.stem for path in jobs.VIDEOS.folder.iterdir()} == {job.name for job in planned}
    jobs.VIDEOS.folder.joinpath("recipe").write_text(planned[0].setup.recipe)
    sampled.clear()
    evaluate.run(params, SilentRun())
    assert not sampled and outputs() == whole


@pytest.mark.parametrize("changed", ["artifacts/camera_lora", "artifacts/motion_controlnet", "start", "foundation"])
def test_nothing_is_kept_when_weights_change(params, changed):
    setup = jobs.setup_of(params, [])
    if changed == "foundation":
        (FOUNDATION / "weights.json").write_text('{"unet": "another"}')
    else:
        [file] = Path(changed).glob("*.safetensors")
        file.write_bytes(file.read_bytes() + b"\0")
    assert jobs.setup_of(params, []).recipe != setup.recipe


def test_only_settings_that_shape_a_video_make_it_again(params):
    setup = jobs.setup_of(params, [])
    for change, same in ({"images": 9}, True), ({"batch_size": 1}, True), ({"seed": 1}, False):
        other = params.model_copy(update={"evaluate": params.evaluate.model_copy(update=change)})
        assert (jobs.setup_of(other, []).recipe == setup.recipe) is same
    names = [job.name for job in all_jobs(params) if isinstance(job, jobs.SamplingJob)]
    assert len(set(names)) == len(names)


def test_damaged_files_and_dying_processes_end_as_one_line(params, tmp_path):
    [job, *_] = all_jobs(params)
    with pytest.raises(ContractError, match=r"evaluate\.batch_size"):
        jobs._crashed(job)
    (tmp_path / "damaged.npz").write_bytes(b"PK\3\4")
    with pytest.raises(ContractError, match=r"damaged\.npz.*delete it"):
        read_finished(tmp_path / "damaged.npz", job.cases)


class Network:
    """Stands in for an official network: two numbers of each video, and the number of calls."""

    variant, sha256, calls = "two numbers", "cafe", 0

    def __call__(self, videos):
        Network.calls += 1
        return np.stack([[video.mean(), video.std()] for video in videos])


def test_features_of_real_clips_are_taken_once(params, monkeypatch):
    monkeypatch.setattr(OfficialNetwork, "load", lambda self: Network())
    real._loaded.cache_clear()
    network = OfficialNetwork("fid", "weights", "cafe")
    clips = distances.curated_clips("mixed")
    rows = real.features_of_clips(network, clips[:4], params)
    assert rows.shape == (4, 2) and Network.calls == 4
    np.testing.assert_array_equal(real.features_of_clips(network, clips[:5], params)[:4], rows)
    assert Network.calls == 5
    real._loaded.cache_clear()
    real.features_of_clips(network._replace(sha256="other"), clips[:2], params)
    assert Network.calls == 7
    measured = Distances({"fid": network}, params)
    for clip in clips[:2]:
        measured.add(clip.clip_id, {CODEC: np.ones((1, 2 * tiny.CHANNELS)), "fid": rows[:1]})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OfficialNetwork, "variant", "words")
        entries = measured.entries(lambda network, clips: real.features_of_clips(network, clips, params))
    assert (entries["fid"]["n_real"], entries["fid"]["sha256"]) == (4, "cafe")
