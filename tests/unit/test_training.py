"""The training loop: who learns, what is kept, and that interruptions and several processes leave no trace."""

import csv
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch.autograd.graph import saved_tensors_hooks

from models.denoising.denoiser import motion_residuals
from models.denoising.loss import TrainingBatch
from models.denoising.strokes import Strokes
from models.networks.gradient_checkpointing import checkpoint_blocks
from models.sampling.adapters import use_lora
from models.sampling.branches import Guidance
from models.sampling.guided_training import sample_with_guidance
from stages import camera_lora, motion_controlnet
from stages.data.paths import FOUNDATION
from stages.params import ParamsError, load_params
from stages.train import items, launch
from stages.train.checkpoint import shaping, training_key
from stages.train.items import EncodedClip, TrainingItems
from stages.train.launch import adopt, launch_command, training_processes
from stages.train.loop import division, train, with_dropped_captions
from stages.train.stopping import TrainingStopped
from tests.unit import tiny
from tests.unit.tiny_training import SETTINGS, STEPS, Listener, environment, make_job, weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # one precision per process, were it not for this


@pytest.fixture
def foundation():
    return tiny.pipeline().foundation


class Whole(NamedTuple):
    """What an uninterrupted run of one process left: its weights, and the text of its curves."""

    weights: dict[str, torch.Tensor]
    loss: str
    validation: str

    @property
    def losses(self) -> list[float]:
        return [float(row["loss"]) for row in csv.DictReader(self.loss.splitlines())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    made_on = tiny.pipeline().foundation
    job = make_job(made_on)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        train(job, made_on, Path("out"), Listener())
        texts = [Path("out", name).read_text() for name in ("loss.csv", "validation.csv")]
    AcceleratorState._reset_state(reset_partial_state=True)
    return Whole(weights(job.network), *texts)


def curve(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_only_the_trained_weights_change_by_a_bit(foundation):
    job = make_job(foundation)
    before, base = weights(job.network), [weights(network) for network in foundation.networks()]
    train(job, foundation, Path("out"), Listener())
    changed = {key for key, value in job.network.state_dict().items() if not torch.equal(value, before[key])}
    lora = {key for key in before if ".camera." in key}
    assert changed <= lora
    # A is learned through B, which starts at zero: where B's gradient is small, A may stay for these few steps.
    # conv_in sees zeros only.
    still = {key for key in lora - changed if ".lora_B." in key and not key.startswith("conv_in.")}
    assert still == set()
    for network, old in zip(foundation.networks(), base, strict=True):
        assert all(torch.equal(value, old[key]) for key, value in network.state_dict().items())
    assert [row["step"] for row in curve(Path("out/loss.csv"))] == ["1", "2", "3", "4"]


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(foundation, whole):
    with pytest.raises(KeyboardInterrupt):
        train(make_job(foundation, fail_at=7), foundation, Path("halves"), Listener())  # step 4, after a checkpoint
    assert list(Path("checkpoints/camera_lora").iterdir())
    resumed = make_job(foundation)
    train(resumed, foundation, Path("halves"), Listener())
    assert is_same(resumed, whole)
    assert Path("halves/loss.csv").read_text() == whole.loss
    assert Path("halves/validation.csv").read_text() == whole.validation
    assert not Path("checkpoints/camera_lora").exists()


def test_a_run_that_got_sigterm_keeps_its_step_and_goes_on_from_it(foundation, whole):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped, match="after step 2 of 4"):
        train(make_job(foundation, checkpoint_every=100, stop_at=4), foundation, Path("halves"), Listener())
    assert list(Path("checkpoints/camera_lora").iterdir()) and signal.getsignal(signal.SIGTERM) == before
    listener = Listener()
    resumed = make_job(foundation, checkpoint_every=100)
    train(resumed, foundation, Path("halves"), listener)
    assert min(step for step, _ in listener.heard) == 3
    assert is_same(resumed, whole)


@pytest.mark.parametrize(("minutes", "steps_left"), [(None, 4), (1e-9, 2)])
def test_a_checkpoint_is_also_due_after_minutes(foundation, minutes, steps_left):
    settings = {"checkpoint_every": 100, "minutes": minutes}
    with pytest.raises(KeyboardInterrupt):
        train(make_job(foundation, fail_at=7, **settings), foundation, Path("out"), Listener())
    listener = Listener()
    train(make_job(foundation, **settings), foundation, Path("out"), listener)
    assert len({step for step, _ in listener.heard}) == steps_left


def test_a_batch_that_the_processes_cannot_share_is_told_once_before_they_start(monkeypatch):
    params = load_params(ROOT / "profiles/paper.yaml")
    params = params.model_copy(update={"compute": params.compute.model_copy(update={"training_processes": 3})})
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(launch, "load_params", lambda: params)
    monkeypatch.setattr(launch, "run_and_pass_sigterm_on", lambda command: pytest.fail("processes were started"))
    with pytest.raises(SystemExit, match="batch_size 64 must be a multiple of 3 processes"):
        launch.run_training_stage("camera_lora", Path("out"), lambda params, run: None)


def test_sigterm_goes_on_to_the_launched_processes():
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('ready', flush=True); "
        "time.sleep(60)"
    )
    launcher = (
        "import sys; from stages.train.stopping import run_and_pass_sigterm_on as go\n"
        "sys.exit(go([sys.executable, '-c', sys.argv[1]]))"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher, code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(60) == 7


def test_the_best_weights_outlive_an_interruption(foundation):
    errors = [0.5, 0.2, 0.9, 0.8]
    whole = make_job(foundation, errors=errors, every=1)
    train(whole, foundation, Path("whole"), Listener())
    with pytest.raises(KeyboardInterrupt):
        train(make_job(foundation, fail_at=7, errors=errors, every=1), foundation, Path("halves"), Listener())
    resumed = make_job(foundation, errors=errors[2:], every=1)
    train(resumed, foundation, Path("halves"), Listener())
    expected = weights(whole.network)
    assert all(torch.equal(value, expected[key]) for key, value in resumed.network.state_dict().items())


def test_a_run_that_was_killed_does_not_go_on_with_another_base(foundation):
    foundation.save(FOUNDATION)
    (FOUNDATION / "weights.json").write_text("{}")
    killed = make_job(foundation, fail_at=7)
    killed.shaped_by = shaping(camera_lora.run, "camera")
    with pytest.raises(KeyboardInterrupt):
        train(killed, foundation, Path("out"), Listener())
    assert shaping(camera_lora.run, "camera") == killed.shaped_by
    found = [killed.shaped_by]
    for name in ("scheduler/scheduler_config.json", "unet/diffusion_pytorch_model.safetensors"):
        with (FOUNDATION / name).open("ab") as file:
            file.write(b" ")
        found.append(shaping(camera_lora.run, "camera"))
        assert found.count(found[-1]) == 1
    again = make_job(foundation)
    again.shaped_by = found[-1]
    listener = Listener()
    train(again, foundation, Path("out"), listener)
    assert min(step for step, _ in listener.heard) == 1


def test_a_checkpoint_of_other_settings_is_not_taken(foundation):
    job, other = make_job(foundation), make_job(foundation, checkpoint_every=3)
    assert len({training_key(each.settings, STEPS, each.network, each.items, ()) for each in (job, other)}) == 2


def test_the_weights_that_move_clips_best_are_kept_whenever_they_were(foundation):
    job = make_job(foundation, errors=[0.5, 0.2, 0.9, 0.8], every=1)
    train(job, foundation, Path("out"), Listener())
    [kept] = [step for step, seen in enumerate(job.validation.weights, start=1) if is_equal(seen, job.parameters)]
    assert kept == 2
    assert [row["motion_error"] for row in curve(Path("out/validation.csv"))] == ["0.5", "0.2", "0.9", "0.8"]


def test_validation_sees_the_moving_average_and_training_goes_on_from_the_weights(foundation):
    job, other = make_job(foundation, errors=[1.0] * STEPS, every=1), make_job(foundation, errors=[1.0], every=STEPS)
    for each in (job, other):
        train(each, foundation, Path("out"), Listener())
    assert is_equal(job.validation.weights[-1], other.validation.weights[-1])


@pytest.mark.parametrize(("patience", "patient_until", "steps"), [(1, 0, 3), (2, 0, 4), (1, 3, 4), (None, 0, 4)])
def test_a_stage_ends_when_nothing_gets_better(foundation, patience, patient_until, steps):
    job = make_job(foundation, errors=[0.5, 0.2, 0.9, 0.8], every=1, patience=patience, patient_until=patient_until)
    train(job, foundation, Path("out"), Listener())
    assert len(curve(Path("out/loss.csv"))) == steps


def test_validation_sees_the_network_as_it_is_sampled(foundation):
    job = make_job(foundation, errors=[1.0] * STEPS, every=1)
    entered, states = [], []

    @contextmanager
    def as_sampled():
        entered.append(True)
        yield lambda lora: states.append((lora, bool(entered)))
        entered.pop()

    def motion_error(foundation, network, switch, accelerator, batch_size):
        switch("camera")
        return 1.0

    job.as_sampled, job.validation.motion_error = as_sampled, motion_error
    train(job, foundation, Path("out"), Listener())
    assert states == [("camera", True)] * STEPS and not entered


def test_dropped_captions_are_the_empty_prompt_and_the_others_stay(foundation):
    text, null = torch.randn(3, 24, tiny.TEXT), foundation.encode_text([""])
    made = with_dropped_captions(text, torch.tensor([True, False, True]), null)
    assert torch.equal(made[1], text[1]) and torch.equal(made[0], null[0]) and torch.equal(made[2], null[0])


def test_a_share_of_the_items_drops_its_caption(monkeypatch):
    params = load_params(ROOT / "params.yaml")
    clip = EncodedClip(
        torch.zeros(params.video.frames, 4, 4, 6), torch.zeros(5, 16), torch.zeros(params.video.frames, 2, 2),
        torch.ones(params.video.frames, 2, dtype=torch.bool), np.array([[0, 1]], np.int32),
    )  # fmt: skip
    monkeypatch.setattr(items, "curated_clips", lambda split, subset: [f"{split} {subset}"])
    monkeypatch.setattr(EncodedClip, "read", classmethod(lambda cls, number, split: clip))
    for share in (0.0, 0.25, 1.0):
        settings = params.camera_lora.model_copy(update={"caption_dropout": share})
        made = TrainingItems("mixed", params, settings, lambda item: "sparse")
        dropped = [bool(made[index]["drop_caption"]) for index in range(400)]
        assert np.mean(dropped) == pytest.approx(share, abs=0.06)
        assert dropped[:50] == [bool(made[index]["drop_caption"]) for index in range(50)]


@pytest.mark.parametrize(
    ("mode", "scale", "trajectory_scale"),
    [
        ("controlnet", 3.0, None),
        ("camera", 3.0, None),
        ("object", 3.0, 1.5),
        ("object", 1.0, 1.5),
        ("object", 3.0, None),
    ],
)
def test_validation_samples_what_the_sampler_samples(mode, scale, trajectory_scale):
    pipe = tiny.pipeline()
    network, foundation = pipe.motion_controlnet, pipe.foundation
    text, null = torch.randn(2, 24, tiny.TEXT), foundation.encode_text([""])
    first, noise = torch.randn(2, tiny.CHANNELS, 4, 6), tiny.noise(2)
    strokes = Strokes.visible(torch.rand(2, tiny.FRAMES, 2, 2) * 15)
    wanted = pipe.sample_latents(
        first, text, {"object": strokes}, mode, latents=noise, negative_prompt_embeds=null,
        guidance_scale=scale, trajectory_guidance_scale=trajectory_scale, guidance_rescale=0.5,
    )  # fmt: skip
    made_from = TrainingBatch(first[:, :, None], text, strokes, noise, torch.zeros(2))
    guidance = Guidance(mode, scale, trajectory_scale, 0.5)
    made = sample_with_guidance(
        foundation, network, lambda lora: use_lora(network, lora), made_from, null, guidance,
        pipe.settings.num_inference_steps,
    )  # fmt: skip
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("profile", ["pocket", "paper"])
def test_the_profiles_validate_with_the_guidance_of_their_sampler(profile):
    params = load_params(ROOT / f"profiles/{profile}.yaml")
    sampler = params.sampler
    for stage in (params.motion_controlnet, params.camera_lora, params.object_lora):
        guidance, validation = stage.validation.guidance, stage.validation
        assert (guidance.scale, guidance.rescale) == (sampler.guidance_scale, sampler.guidance_rescale)
        assert validation.sampler_steps == sampler.num_inference_steps
    assert params.object_lora.validation.guidance.trajectory_scale == sampler.trajectory_guidance_scale


def test_without_validation_clips_the_last_moving_average_is_kept(foundation):
    guarded, free = make_job(foundation, errors=[0.5], every=STEPS), make_job(foundation, errors=[])
    for job in (guarded, free):
        train(job, foundation, Path("out"), Listener())
    assert is_equal(guarded.validation.weights[0], free.parameters)
    assert curve(Path("out/validation.csv")) == []


def test_several_passes_make_the_step_of_one_also_in_a_run_that_goes_on(foundation, whole):
    with pytest.raises(KeyboardInterrupt):
        train(make_job(foundation, fail_at=7, micro_batch_size=1), foundation, Path("out"), Listener())
    job = make_job(foundation, micro_batch_size=1)
    listener = Listener()
    train(job, foundation, Path("out"), listener)
    assert min(step for step, _ in listener.heard) == 3
    assert [float(row["loss"]) for row in curve(Path("out/loss.csv"))] == pytest.approx(whole.losses, rel=1e-4)
    for key, value in job.network.state_dict().items():
        torch.testing.assert_close(value, whole.weights[key], rtol=1e-3, atol=2e-5)


ACCELERATE = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
ACCELERATE += " --mixed_precision no --dynamo_backend no"


def test_two_processes_of_either_launcher_make_the_weights_of_one(whole):
    torchrun = launch_command("camera_lora", 2)
    launchers = {
        "torchrun": torchrun[: torchrun.index("-m", 2)],
        "accelerate": [sys.executable, "-m", *ACCELERATE.split()],
    }
    started = []
    for name, launcher in launchers.items():
        Path(name).mkdir()
        command = [*launcher, "-m", "tests.unit.tiny_training"]
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment(Path.cwd() / name)))
    assert [process.wait() for process in started] == [0, 0]
    for name in launchers:
        made = load_file(f"{name}/together/weights.safetensors")
        assert made.keys() == whole.weights.keys()
        for key, value in made.items():
            torch.testing.assert_close(value, whole.weights[key], rtol=1e-3, atol=2e-5)
        losses = [float(row["loss"]) for row in curve(Path(f"{name}/together/loss.csv"))]
        assert losses == pytest.approx(whole.losses, rel=1e-4)
        [row] = curve(Path(f"{name}/together/validation.csv"))
        assert (row["step"], float(row["motion_error"])) == ("4", pytest.approx(1.5))


def test_training_in_bf16_comes_near_full_precision_and_leaves_full_weights(foundation, whole):
    rounded = make_job(foundation, mixed_precision="bf16")
    train(rounded, foundation, Path("rounded"), Listener())
    assert {parameter.dtype for parameter in rounded.parameters} == {torch.float32}
    losses = [float(row["loss"]) for row in curve(Path("rounded/loss.csv"))]
    assert losses == pytest.approx(whole.losses, rel=0.05) and losses != whole.losses


def test_checkpointing_makes_the_same_gradients_from_less_memory():
    kept, gradients = [], []
    for checkpointed in (False, True):
        pipe = tiny.pipeline()
        network = pipe.motion_controlnet.requires_grad_(True)
        if checkpointed:
            assert checkpoint_blocks(network) == 3 + 2 + 3  # two down blocks, the middle
        sizes = []
        condition = torch.randn(1, network.config.conditioning_channels, tiny.FRAMES, 4, 6,
                                generator=torch.Generator().manual_seed(0))  # fmt: skip
        text = torch.ones(tiny.FRAMES, 5, tiny.TEXT)

        def keep(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            down, mid = motion_residuals(network, torch.tensor([500]), text, condition)
        sum(part.square().sum() for part in [*down, mid]).backward()
        kept.append(sum(sizes))
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    assert kept[1] < kept[0] / 3
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_checkpointed_training_is_training(foundation, whole):
    frugal = make_job(foundation, gradient_checkpointing=True)
    train(frugal, foundation, Path("frugal"), Listener())
    assert is_same(frugal, whole)


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "expected"),
    [(64, 1, 8, (8, 1)), (64, 64, 8, (1, 8)), (8, 8, 1, (1, 8)), (8, 2, 2, (2, 2))],
)
def test_a_batch_is_divided_among_processes_and_passes(batch, micro, processes, expected):
    settings = SETTINGS.model_copy(update={"batch_size": batch, "micro_batch_size": micro})
    assert division(settings, processes) == expected


@pytest.mark.parametrize(("batch", "micro", "processes"), [(8, 3, 1), (8, 1, 3), (2, 1, 4)])
def test_a_batch_that_cannot_be_divided_is_refused(batch, micro, processes):
    settings = SETTINGS.model_copy(update={"batch_size": batch, "micro_batch_size": micro})
    with pytest.raises(ParamsError, match=f"batch_size {batch} must be a multiple of {processes} processes"):
        division(settings, processes)


def test_one_process_trains_where_there_is_no_gpu_unless_more_are_asked_for():
    compute = load_params(ROOT / "params.yaml").compute
    assert training_processes(compute) == max(1, torch.cuda.device_count())
    assert training_processes(compute.model_copy(update={"training_processes": 3})) == 3


def test_strokes_are_dense_then_sparse_with_a_mixture_between():
    settings = load_params(ROOT / "params.yaml").motion_controlnet.model_copy(
        update={"dense_steps": 100, "sparse_warmup_steps": 200, "sparse_steps": 300, "batch_size": 2}
    )
    kinds = [[motion_controlnet.stroke_kind_by_step(2 * step + row, settings) for step in range(400)] for row in (0, 1)]
    assert kinds[0] == kinds[1]  # a batch is of one kind
    sparse = [[kind == "sparse" for kind in kinds[0][start : start + 100]].count(True) for start in (0, 100, 200, 300)]
    assert sparse[0] == 0 and sparse[3] == 100
    assert 10 < sparse[1] < 40 < 60 < sparse[2] < 90
    abrupt = settings.model_copy(update={"sparse_warmup_steps": 0})
    assert [motion_controlnet.stroke_kind_by_step(2 * step, abrupt) for step in (99, 100)] == ["dense", "sparse"]


def is_same(job, whole: Whole) -> bool:
    """Whether all weights of the job's network are those of the uninterrupted run, bit for bit."""
    return all(torch.equal(value, whole.weights[key]) for key, value in job.network.state_dict().items())


def is_equal(some, others) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_weights_of_a_source_are_taken_without_what_else_lies_there(tmp_path):
    source, output = tmp_path / "official", tmp_path / "artifacts" / "camera_lora"
    for folder in (source, output):
        folder.mkdir(parents=True)
    (source / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    (source / "notes.txt").write_text("mine")
    (output / "loss.csv").write_text("step,loss")
    adopt("camera_lora", source, output)
    assert [path.name for path in output.iterdir()] == ["pytorch_lora_weights.safetensors"]
    with pytest.raises(ParamsError, match="camera_lora.source: .*empty: no weights"):
        adopt("camera_lora", tmp_path / "empty", output)
    assert [path.name for path in output.iterdir()] == ["pytorch_lora_weights.safetensors"]
