"""Every stage that computes on a GPU, and each way to sample, on a pretended GPU: no mixed devices, no hidden float32.

See `tests.unit.pretended_gpu`. The networks are tiny and of the real classes; all of them are asked for bf16.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import nn
from torchvision.models.optical_flow import raft_small

from models.estimators import load_estimator, second_tracker
from models.evaluation.objects import MovingObject
from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.serving import cli
from models.serving.pyfunc import ImageConductorModel
from models.serving.request import Request
from stages import camera_lora, evaluate, latents, motion_controlnet, object_lora, register
from stages.data.curated import CuratedClip
from stages.data.paths import FOUNDATION, MODEL
from stages.evaluation import cases, distances, jobs
from stages.params import Params, TrainingParams, load_params
from stages.run.mlflow_runs import SilentRun
from stages.train import items, validation
from tests.unit import published, tiny
from tests.unit.pretended_gpu import GPU, DeviceMix, PretendedGpu, SilentUpcast, pretended_gpu
from tests.unit.test_pyfunc import picture

ROOT = Path(__file__).parents[2]
TRAINED = (MotionUNet, ImageControlNet, MotionControlNet)  # the codec stays in float32 while networks are trained
VIDEO = np.random.default_rng(0).integers(0, 256, (tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
TRACKS = (np.array([[4.0, 4.0], [12.0, 8.0]]) + np.arange(tiny.FRAMES)[:, None, None]).astype(np.float32)
STROKE = [[[4, 4], [12, 8]]]


def tiny_params() -> Params:
    params = load_params(ROOT / "params.yaml")

    def trained(section: TrainingParams, scale: float, **changes) -> TrainingParams:
        checked = section.validation
        guidance = checked.guidance.model_copy(update={"scale": scale})
        checked = checked.model_copy(update={"every": 2, "clips": 1, "sampler_steps": 1, "guidance": guidance})
        small = {"batch_size": 1, "micro_batch_size": 1, "mixed_precision": "bf16", "checkpoint_every": 1}
        return section.model_copy(update={**small, "validation": checked, **changes})

    video = {"width": tiny.WIDTH, "height": tiny.HEIGHT, "frames": tiny.FRAMES}
    evaluation = {"images": 1, "trajectory_guidance_scales": [1.1], "precision": "bf16", "batch_size": 10}
    phases = {"dense_steps": 1, "sparse_steps": 1, "sparse_warmup_steps": 0}
    return params.model_copy(
        update={
            "video": params.video.model_copy(update=video),
            "compute": params.compute.model_copy(update={"backend": "serial"}),
            "latents": params.latents.model_copy(update={"precision": "bf16"}),
            "motion_controlnet": trained(params.motion_controlnet, 1.0, start=None, **phases),
            "camera_lora": trained(params.camera_lora, 1.0, steps=2, rank=2),
            "object_lora": trained(params.object_lora, 2.0, steps=2, rank=2),
            "sampler": params.sampler.model_copy(update={"num_inference_steps": 1, "guidance_scale": 2.0}),
            "evaluate": params.evaluate.model_copy(update=evaluation),
        }
    )


def curated(split, subset=None) -> list[CuratedClip]:
    nowhere, subsets = Path("nowhere"), ("train", "validation", "test", "test", "test")
    clips = [CuratedClip(f"{n}", each, "a circle", *[nowhere] * 3, None) for n, each in enumerate(subsets)]
    return [clip for clip in clips if subset in (None, clip.subset)]


def stand_still(frames, points):
    """A tracker; trackers compute on the CPU, whatever the networks compute on."""
    return np.repeat(points[None], len(frames), 0).astype(np.float32), np.ones((len(frames), len(points)), bool)


@contextmanager
def gpu_for_bf16(*asked: type[nn.Module]) -> Iterator[PretendedGpu]:
    """A pretended GPU; networks, or those of the classes `asked`, must compute in bf16."""
    with pretended_gpu() as gpu:
        gpu.precision, gpu.asked = torch.bfloat16, asked or gpu.asked
        yield gpu
    assert {"convolution", "addmm"} & gpu.computed
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def gpu():
    with gpu_for_bf16() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a tiny foundation, and clips that are read from memory."""
    two = {name: getattr(cases, name)()[:2] for name in ("camera_names", "object_names")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("device"))
        for module in (latents, items, validation, cases, distances):
            patch.setattr(module, "curated_clips", curated)
        for module in (latents, cases, jobs):
            patch.setattr(module, "read_clip", lambda path: VIDEO)
        for module in (items, cases):
            patch.setattr(module, "read_tracks", lambda path: (TRACKS, np.ones(TRACKS.shape[:2], bool)))
            patch.setattr(module, "read_draws", lambda path: np.array([[0, 1, -1]], np.int32))
        patch.setattr(cases, "find_object", lambda *given: MovingObject(TRACKS[0, 0], TRACKS[0], TRACKS[0]))
        for name, names in two.items():
            patch.setattr(cases, name, lambda names=names: names)
        patch.setattr(
            jobs,
            "load_trackers",
            lambda name, options: dict.fromkeys((name, second_tracker("lucas_kanade")), stand_still),
        )
        for drawing in ("draw_report", "write_evaluation_report"):
            patch.setattr(evaluate, drawing, lambda *given: None)
        tiny.pipeline().foundation.save(FOUNDATION)
        (FOUNDATION / "weights.json").write_text("{}")
        yield tiny_params()


class Stopped(SilentRun):
    """A listener that plays the machine that goes down in step 2."""

    def metrics(self, values, step=0):
        if step == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def trained(workspace):
    """The folder after latents and all training; one run was interrupted, and went on from its checkpoint."""
    with gpu_for_bf16():
        for split in ("mixed", "camera"):
            latents.run(split, workspace)
    with gpu_for_bf16(*TRAINED):
        motion_controlnet.run(workspace, SilentRun())
        with pytest.raises(KeyboardInterrupt):
            camera_lora.run(workspace, Stopped())
        assert list(Path("checkpoints/camera_lora").iterdir())
        camera_lora.run(workspace, SilentRun())
        assert not Path("checkpoints/camera_lora").exists()
        object_lora.run(workspace, SilentRun())
    register.assemble(MODEL, workspace)
    return workspace


def test_mixed_devices_are_found(gpu):
    gpu.precision = None
    layer, picture = nn.Linear(3, 4).to("cuda"), torch.ones(2, 3)
    assert layer.weight.device == GPU and layer(picture.cuda()).device == GPU
    assert torch.zeros(2, device=GPU).is_cuda and not torch.zeros(2).is_cuda
    for mixed in (
        lambda: layer(picture),
        lambda: picture + picture.cuda(),
        lambda: torch.cat([picture, picture.cuda()]),
        lambda: torch.zeros(3)[torch.tensor([1]).cuda()],
        lambda: picture.cuda().numpy(),
        lambda: np.asarray(picture.cuda()),
        lambda: nn.functional.mse_loss(layer(picture.cuda()), torch.zeros(2, 4)).backward(),
    ):
        with pytest.raises(DeviceMix):
            mixed()
    for allowed in (picture.cuda()[torch.tensor([1])], picture.cuda() * torch.tensor(2.0), layer.weight.detach().cpu()):
        assert torch.isfinite(allowed).all()


def test_float32_in_a_network_that_was_asked_for_less_is_found(gpu):
    layer, given = nn.Linear(3, 4).to("cuda"), torch.ones(2, 3, device="cuda")
    with pytest.raises(SilentUpcast, match="Linear"):
        layer(given)
    with torch.autocast("cuda", torch.bfloat16):
        layer(given).float().sum().backward()
    assert layer.weight.grad.device == GPU and layer.weight.grad.dtype == torch.float32
    assert torch.equal(layer.weight.grad.cpu(), torch.full((4, 3), 2.0))
    gpu.precision = None
    with pytest.raises(RuntimeError, match="dtype"):
        layer.to(torch.bfloat16)(given)


def test_evaluation_of_what_was_trained(trained, gpu):
    figures = evaluate.run(trained, SilentRun())
    assert figures["cam_mc"]["camera_lora"]["n"] == 2


def test_service(trained, gpu):
    model = ImageConductorModel()
    model.load_context(SimpleNamespace(artifacts={"model": str(MODEL)}, model_config={"precision": "bf16"}))
    request = Request(image=picture(), trajectories=STROKE, camera_trajectories=STROKE, mode="both", prompt="a circle")
    (answer,) = model.predict(None, [request])
    assert answer.num_frames == tiny.FRAMES


@pytest.mark.parametrize("options", [[], ["--offload"]])
def test_generate(trained, gpu, options):
    Image.fromarray(VIDEO[0]).save("picture.png")
    drawn = {"width": tiny.WIDTH, "height": tiny.HEIGHT, "trajectories": STROKE}
    Path("strokes.json").write_text(json.dumps(drawn))
    files = ["--image", "picture.png", "--trajectories", "strokes.json", "--output", "video.mp4"]
    cli.main(["generate", "--model", str(MODEL), *files, "--dtype", "bfloat16", *options])
    assert Path("video.mp4").stat().st_size


def test_captions_and_flow(gpu, tmp_path):
    gpu.precision = None  # BLIP-2 keeps parts of T5 in float32, RAFT is float32
    published.write_blip2(tmp_path / "opt")
    published.write_blip2_with_t5(tmp_path / "t5")
    torch.save(raft_small().state_dict(), tmp_path / "raft.pth")
    frames = np.zeros((3, 128, 128, 3), np.uint8)
    for model in ("opt", "t5"):
        assert len(load_estimator("captions", "blip2", model=str(tmp_path / model))(frames)) == 3
    flow = load_estimator("flow", "raft", model="small", weights=str(tmp_path / "raft.pth"))(frames)
    assert isinstance(flow, np.ndarray) and np.isfinite(flow).all()
