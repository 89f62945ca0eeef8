"""What `stages.evaluate` compares: test clips only, and real clips that no generated video began with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.evaluation.experiment import Case, Method, generate_cases
from models.evaluation.objects import MovingObject
from models.pictures.objects import Scene
from models.precision import frozen_dtype
from stages.data.curated import CuratedClip
from stages.data.tables import ContractError
from stages.evaluation import cases, distances
from stages.evaluation.distances import CODEC, Distances, features_of
from stages.params import load_params
from tests.unit import tiny

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
FRAMES = 6


def clip(number: int, subset: str = "test") -> CuratedClip:
    nowhere = Path("nowhere")
    return CuratedClip(f"clip{number:03d}", subset, "", nowhere, nowhere, nowhere, None)


def no_networks(network, clips):
    raise AssertionError("no official network was asked for")


@pytest.fixture
def world(monkeypatch):
    """200 clips of each split, half of them for the test; pictures and tracks are made up. Notes what is asked for."""
    asked: list[tuple] = []

    def curated(split, subset=None):
        asked.append((split, subset))
        return [each for n in range(200) if subset in (None, (each := clip(n, "train" if n % 2 else "test")).subset)]

    tracks = np.zeros((FRAMES, 4, 2), np.float32)
    visible = np.ones((FRAMES, 4), bool)
    monkeypatch.setattr(cases, "read_clip", lambda path: np.zeros((FRAMES, 16, 24, 3), np.uint8))
    for module in (cases, distances):
        monkeypatch.setattr(module, "curated_clips", curated)
        monkeypatch.setattr(module, "read_latents", lambda path: (torch.randn(FRAMES, 4, 4, 6), torch.zeros(5, 16)))
    monkeypatch.setattr(cases, "read_tracks", lambda path: (tracks, visible))
    monkeypatch.setattr(cases, "read_draws", lambda path: np.array([[0, 1, -1]], np.int32))
    return asked


def test_cases_are_made_of_test_clips_only(world):
    cases.camera_cases(PARAMS)
    cases.floor_cases("mixed", PARAMS)
    assert set(world) == {("camera", "test"), ("mixed", "test")}


def test_a_case_keeps_nothing_of_its_clip_but_the_first_frame(world):
    [case, *_] = cases.camera_cases(PARAMS)
    assert case.first_frame.base is None
    assert case.first_latents.untyped_storage().nbytes() == case.first_latents.nbytes


def test_the_floors_are_as_many_as_a_method_has_videos(world):
    of_method = cases.camera_cases(PARAMS)
    floors = cases.floor_cases("camera", PARAMS)
    assert len(floors) == len(of_method) == 60 < 100


def test_scenes_are_looked_for_only_until_there_are_enough(world, monkeypatch):
    looked = []

    def find(*arguments):
        looked.append(arguments)
        return "an object"

    monkeypatch.setattr(cases, "find_object", find)
    assert len(cases.object_scenes(PARAMS)) == len(looked) == PARAMS.evaluate.images


def test_scenes_of_pictures_come_from_the_test_pictures_of_the_album(monkeypatch):
    synthetic = PARAMS.collect.synthetic.model_copy(update={"world": "pictures", "pictures": "album"})
    params = PARAMS.model_copy(update={"collect": PARAMS.collect.model_copy(update={"synthetic": synthetic})})
    opened, foundation = [], tiny.pipeline().foundation
    points = np.array([[4, 4], [5, 5]], np.float32)
    drawn = Scene(7, np.zeros((16, 24, 3), np.uint8), "a ball", MovingObject(points[0], points, points))
    monkeypatch.setattr(cases, "picture_world", lambda *album: opened.append(album))
    monkeypatch.setattr(cases, "scenes_with_object", lambda world, count, *rest: [drawn] * count)
    monkeypatch.setattr(cases.Encoders, "load", lambda folder: foundation)
    scenes = cases.object_scenes(params)
    assert opened == [("album", "test")] and len(scenes) == params.evaluate.images
    assert (scenes[1].case.picture, scenes[1].case.number, scenes[1].caption) == ("scene-7", 100, "a ball")
    assert scenes[0].case.first_latents.shape == (tiny.CHANNELS, 4, 6)


def test_the_real_clips_of_a_distance_are_others_than_those_animated(world):
    rows = features_of(np.zeros((FRAMES, 16, 24, 3), np.uint8), tiny.pipeline().foundation, {})
    measured = Distances({}, PARAMS)
    for number in (0, 2, 2, 4, 1):
        measured.add(clip(number).clip_id, rows)
    [entry] = measured.entries(no_networks).values()
    assert (entry["n"], entry["pictures"]) == (5, 4)
    assert (entry["n_real"], entry["real"]) == (97, "test clips, mixed split")
    assert set(world) == {("mixed", "test")}


def test_too_few_test_clips_are_joined_by_all_others_but_the_animated(world, monkeypatch):
    made = distances.curated_clips
    monkeypatch.setattr(distances, "curated_clips", lambda split, subset=None: made(split, subset)[:8])
    measured = Distances({}, PARAMS)
    for _ in range(2):
        measured.add(clip(0).clip_id, {CODEC: np.ones((1, 8))})
    [entry] = measured.entries(no_networks).values()
    assert entry["n_real"] == 7 and "training ones included" in entry["real"]
    monkeypatch.setattr(distances, "curated_clips", lambda split, subset=None: [clip(0), clip(1)])
    with pytest.raises(ContractError, match="add videos"):
        measured.entries(no_networks)


def test_pictures_and_latents_go_to_the_device_of_the_codec():
    foundation = tiny.pipeline().foundation
    foundation.vae.to("meta")  # a device that is not the CPU; without the move, the codec is given CPU tensors
    seen = []
    for part in (foundation.vae.encoder, foundation.vae.post_quant_conv):
        part.register_forward_pre_hook(lambda module, given: seen.append(given[0].device.type))
    distances.encoded(foundation, np.zeros((2, 16, 24, 3), np.uint8))
    foundation.decode(torch.zeros(1, tiny.CHANNELS, 1, 4, 6))
    assert seen == ["meta", "meta"]


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), ("cuda", torch.bfloat16)])
def test_frozen_networks_compute_in_less_than_float32_on_gpus_only(device, dtype):
    assert frozen_dtype("bf16", torch.device(device)) == dtype
    assert frozen_dtype("no", torch.device(device)) == torch.float32


def test_videos_of_bf16_networks_are_near_those_of_float32():
    size = (tiny.CHANNELS, 4, 6)
    path = np.linspace((6, 8), (16, 8), tiny.FRAMES, dtype=np.float32)[:, None]
    frame = np.zeros((tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
    case = Case("picture", "line", frame, torch.randn(size), torch.randn(24, tiny.TEXT), path, 0)
    made = []
    for dtype in (torch.float32, torch.bfloat16):
        pipe = tiny.pipeline().to(dtype)
        [(_, video)] = generate_cases(pipe, [case], Method("object_lora_1.1", "object", 1.1), 0, 1)
        made.append(video.astype(int))
    assert 0 < np.abs(made[0] - made[1]).mean() < 12


def test_pictures_are_encoded_in_the_precision_of_the_codec():
    foundation = tiny.pipeline().foundation
    foundation.vae.to(torch.bfloat16)
    latents = distances.encoded(foundation, np.zeros((2, 16, 24, 3), np.uint8))
    assert latents.dtype == torch.bfloat16
    assert foundation.decode(latents.transpose(0, 1)[None].float()).dtype == torch.bfloat16
