"""What stages and programs do on a GPU, with a tiny model. Without a CUDA device these tests are skipped, and say so.

The results are compared with those of the CPU where both can be had in one process.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load

from models.estimators import load_estimator
from models.evaluation.experiment import Case, Method, sample_batch
from models.networks.foundation import Encoders
from models.precision import frozen_dtype
from models.serving.cli import main
from models.video.read import read_video
from stages import latents
from stages.data.curated import CuratedClip
from stages.evaluation.distances import CODEC
from stages.evaluation.jobs import FloorJob, Loaded, SamplingJob, Setup, floors_of, videos_of
from stages.run.device import best_device
from stages.train.loop import train
from tests.unit import tiny
from tests.unit.tiny_training import Listener, make_job, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FRAMES = np.random.default_rng(0).integers(0, 256, (tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
PRECISIONS = ["no", "bf16"]


def a_case() -> Case:
    generator = torch.Generator().manual_seed(0)
    size = (tiny.CHANNELS, tiny.HEIGHT // tiny.FACTOR, tiny.WIDTH // tiny.FACTOR)
    path = np.linspace((6, 8), (16, 8), tiny.FRAMES, dtype=np.float32)[:, None]
    text = torch.randn(24, tiny.TEXT, generator=generator)
    return Case("picture", "line", FRAMES[0], torch.randn(size, generator=generator), text, path, 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_latents_are_those_of_the_cpu(monkeypatch, precision):
    monkeypatch.setattr(latents, "read_clip", lambda path: FRAMES)
    nowhere = Path("nowhere")
    clip = CuratedClip("clip", "train", "a circle", nowhere, nowhere, nowhere, None)
    foundation, device = tiny.pipeline().foundation, best_device()
    parts = foundation.vae, foundation.text_encoder, foundation.tokenizer
    on_cpu = load(latents.encode_clip(clip, Encoders(*parts), 2))
    foundation.vae.to(frozen_dtype(precision, device))
    on_gpu = load(latents.encode_clip(clip, Encoders(*parts).to(device), 2))
    allowed = 0.02 if precision == "no" else 0.2
    for name, values in on_cpu.items():
        torch.testing.assert_close(on_gpu[name], values, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_steps_change_the_trained_weights_alone(tmp_path, monkeypatch, precision):
    monkeypatch.chdir(tmp_path)
    foundation, listener = tiny.pipeline().foundation, Listener()
    job = make_job(foundation, mixed_precision=precision, gradient_checkpointing=True)
    before = weights(job.network)
    train(job, foundation, Path("out"), listener)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert listener.heard
    after = {key: value.cpu() for key, value in job.network.state_dict().items()}
    changed = {key for key, value in after.items() if not torch.equal(value, before[key].cpu())}
    assert changed and all(".camera." in key for key in changed)
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_evaluated_case_is_near_that_of_the_cpu(monkeypatch, precision):
    monkeypatch.setattr("stages.evaluation.jobs.read_clip", lambda path: FRAMES)
    device, method = best_device(), Method("object_lora_1.1", "object", 1.1)
    [on_cpu] = sample_batch(tiny.pipeline(), [a_case()], method, 0)
    pipe = tiny.pipeline().to(device, frozen_dtype(precision, device))
    track = load_estimator("tracks", "lucas_kanade")
    loaded = Loaded(pipe, None, {"lucas_kanade": track}, {})
    setup = Setup("recipe", tiny.SETTINGS, precision, 0, None, "lucas_kanade", {}, ())
    [made] = videos_of(SamplingJob(setup, method, (a_case(),), (True,), True), loaded)
    assert np.abs(made.video.astype(int) - on_cpu).mean() < (1 if precision == "no" else 12)
    assert np.isfinite(made.measured.motions["lucas_kanade"].error.px) and np.isfinite(made.features[CODEC]).all()
    assert len(floors_of(FloorJob(setup, (a_case(),), Path("clip.mp4")), loaded)) == 2


@pytest.mark.parametrize("options", [[], ["--dtype=bfloat16"], ["--offload"]])
def test_the_command_line_makes_the_same_video_twice(tmp_path, options):
    tiny.pipeline().save_pretrained(tmp_path / "model")
    Image.fromarray(FRAMES[0]).save(tmp_path / "i.png")
    stroke = {"width": tiny.WIDTH, "height": tiny.HEIGHT, "trajectories": [[[4, 4], [16, 8]]]}
    (tmp_path / "t.json").write_text(json.dumps(stroke))
    given = {"image": "i.png", "trajectories": "t.json", "model": "model"}
    made = []
    for name in ("a.mp4", "b.mp4"):
        paths = [f"--{key}={tmp_path / value}" for key, value in (given | {"output": name}).items()]
        main(["generate", *paths, "--prompt=a circle", "--seed=3", *options])
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1] and len(read_video(tmp_path / "a.mp4")[0]) == tiny.FRAMES
