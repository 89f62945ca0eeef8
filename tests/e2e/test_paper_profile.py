"""The whole `paper` profile, from raw videos to a served request, on the real classes with small random weights.

Every part lies where its hub client or loader keeps it, in its published layout: SD 1.5, the motion adapter, SparseCtrl
and BLIP-2 in the hub's cache at the pinned commits; RAFT and CoTracker in torch hub's folder; Inception and I3D in
`weights/`. WebVid's table and RealEstate10K's camera files are in their real formats. So no path of the profile
changes, and sizes alone differ.

Two parts are stand-ins with the interface of the real ones, because their files may not be kept here: the code of
CoTracker's repository (`HUBCONF`), and I3D's TorchScript.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from models.curation.subset import SUBSETS, Subset, subset_of
from models.estimators.tracks_cotracker import REPOSITORY, REVISION
from models.origins.addresses import parse_hub_id
from tests.e2e.project import changed, commit, copy_project, frames_of, picture, post, run, served
from tests.footage import moving_texture, write_video
from tests.unit import published

SIZES = {
    "video.width": 64,
    "video.height": 64,
    "video.clip_frames": 10,
    "video.frames": 10,  # the fewest that FVD takes
    "clips.raft.model": "small",
    "clips.held_out": 0.35,
    "clips.validation": 0.25,
    "tracks.grid": 8,
    "sparse_flows.draws": 1,
    "track_quality.scenes": 1,
    "track_quality.width": 96,
    "track_quality.height": 64,
    "track_quality.frames": 4,
    "motion_controlnet.dense_steps": 1,
    "motion_controlnet.sparse_warmup_steps": 1,
    "motion_controlnet.sparse_steps": 1,
    "camera_lora.steps": 1,
    "object_lora.steps": 1,
    "sampler.num_inference_steps": 1,
    "evaluate.images": 1,
    "evaluate.batch_size": 10,
    "compute.workers": 1,
    **{
        f"{stage}.{key}": value
        for stage in ("motion_controlnet", "camera_lora", "object_lora")
        for key, value in (("batch_size", 1), ("validation.clips", 1), ("validation.sampler_steps", 1))
    },
}
SOURCES = ("webvid", "realestate10k")
WEBVID = 2 * SUBSETS
REALESTATE10K = (*SUBSETS, SUBSETS[0])  # as many pans as zooms, so that none is dropped for their share
Drawing = Callable[[int, int], np.ndarray]
STATUS = ("kept", "dropped")
HUBCONF = '''"""CoTracker's entry point and call; a linear layer is its network, optical flow makes its tracks."""

import cv2
import numpy as np
import torch


class Predictor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(2, 2)

    def forward(self, video, queries):
        grey = [cv2.cvtColor(f.byte().numpy(), cv2.COLOR_RGB2GRAY) for f in video[0].permute(0, 2, 3, 1)]
        places = [queries[0, :, None, 1:].numpy()]
        seen = [np.ones(len(places[0]), bool)]
        for before, after in zip(grey, grey[1:]):
            place, found, _ = cv2.calcOpticalFlowPyrLK(before, after, places[-1], None)
            places.append(place)
            seen.append(found[:, 0].astype(bool) & seen[-1])
        return torch.from_numpy(np.stack(places)[None, :, :, 0]), torch.from_numpy(np.stack(seen)[None])


def cotracker3_offline(*, pretrained=True):
    predictor = Predictor()
    if pretrained:
        where = f"{torch.hub.get_dir()}/checkpoints/scaled_offline.pth"
        predictor.model.load_state_dict(torch.load(where, map_location="cpu", weights_only=True))
    return predictor
'''


def write_hub(folder: Path, profile: dict) -> None:
    """The hub's cache with the four repositories that the profile names, at the commits that it names."""
    writers = {
        profile["foundation"]["base"]: published.write_base,
        profile["foundation"]["motion_adapter"]: lambda place: published.write(place, "motion_adapter"),
        profile["foundation"]["image_controlnet"]: lambda place: published.write(place, "sparsectrl"),
        profile["captions"]["model"]: published.write_blip2,
    }
    for address, write in writers.items():
        hub_id = parse_hub_id(address)
        repository = folder / f"models--{hub_id.repository.replace('/', '--')}"
        (repository / "snapshots").mkdir(parents=True)
        write(repository / "snapshots" / hub_id.revision)


def write_torch_hub(folder: Path) -> None:
    """Torch hub's folder: RAFT's weights by their published name, CoTracker's code at its commit with its weights."""
    from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

    torch.manual_seed(0)
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(raft_small().state_dict(), folder / "checkpoints" / Raft_Small_Weights.DEFAULT.url.rpartition("/")[2])
    code = folder / f"{REPOSITORY.replace('/', '_')}_{REVISION}"
    code.mkdir()
    (code / "hubconf.py").write_text(HUBCONF)
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "checkpoints/scaled_offline.pth")


def write_features(settings: dict, folder: Path) -> None:
    """Random weights of FID's and FVD's networks."""
    from tests.unit.feature_networks import write_i3d, write_inception

    torch.manual_seed(0)
    (folder / settings["inception_weights"]).parent.mkdir()
    write_inception(folder / settings["inception_weights"])
    write_i3d(folder / settings["i3d_weights"])


def write_webvid(csv: Path, videos: Path, write: Callable[[Path, Subset, int], None]) -> None:
    """WebVid's table and its folders of videos; the last video is gone, as many are."""
    rows = []
    for number, subset in enumerate([*WEBVID, None]):
        name, page = 1066674784 + number, f"{number % 3:06d}_{number % 3 + 50:06d}"
        rows.append(
            {
                "videoid": name,
                "contentUrl": f"https://ak.picdn.net/shutterstock/videos/{name}/preview/stock-footage-tiles.mp4",
                "duration": "PT00H00M03S",
                "page_dir": page,
                "name": 'Tiles, "coloured", move to the left' if number % 2 else "",
            }
        )
        if subset:
            write(videos / page / f"{name}.mp4", subset, number)
    pd.DataFrame(rows).to_csv(csv, index=False)


def write_realestate10k(cameras: Path, videos: Path, write: Callable[[Path, Subset, int], None]) -> None:
    """Camera files of 19 columns, each for a part of a longer video: pans and zooms; the last one's video is gone."""
    cameras.mkdir(parents=True)
    for number, subset in enumerate([*REALESTATE10K, None]):
        name = f"video{number:06d}"
        lines = [f"https://www.youtube.com/watch?v={name}"]
        for microseconds in range(600_000, 3_000_000, 100_000):
            pose = np.column_stack([np.eye(3), [0, 0, microseconds / 1e6]])
            numbers = [0.474812, 0.844111, 0.5, 0.5, 0.0, 0.0, *pose.ravel()]
            lines.append(" ".join([str(microseconds), *(f"{value:.9f}" for value in numbers)]))
        (cameras / f"{number:016x}.txt").write_text("\n".join(lines) + "\n")
        if subset:
            write(videos / f"{name}.mp4", subset, number)


def write_of_subset(
    shares: dict, draw: Callable[[int, int], np.ndarray], path: Path, subset: Subset, number: int
) -> None:
    """A video whose content is of this subset: one after another is made until one is."""
    for seed in range(1000 * number, 1000 * number + 100):
        write_video(path, draw(number, seed))
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        if subset_of(content, shares["held_out"], shares["validation"]) == subset:
            return
    raise AssertionError(f"no video of subset {subset}")


def moving_object(number: int, seed: int) -> np.ndarray:
    """A patch of texture that moves to the right over a still one."""
    background, patch = moving_texture(1, 192, 108, seed=seed)[0], moving_texture(1, 52, 52, seed=seed + 50_000)[0]
    frames = np.stack([background] * 32)
    for index, frame in enumerate(frames):
        left = 44 + (1 + number % 2) * index
        frame[28:80, left : left + 52] = patch
    return frames


def moving_camera(number: int, seed: int) -> np.ndarray:
    """A pan, or a zoom for odd numbers."""
    pan = moving_texture(32, 192, 108, 2 + number % 3, seed=seed)
    return zoomed(pan[0]) if number % 2 else pan


def zoomed(frame: np.ndarray) -> np.ndarray:
    """32 frames of a camera that moves towards a picture."""
    height, width = frame.shape[:2]
    matrices = [cv2.getRotationMatrix2D((width / 2, height / 2), 0, 1 + 0.02 * i) for i in range(32)]
    return np.stack([cv2.warpAffine(frame, m, (width, height), borderMode=cv2.BORDER_REFLECT) for m in matrices])


def flat(section: dict, name: str = "") -> dict:
    """Values by dotted key."""
    found = {}
    for key, value in section.items():
        found |= flat(value, f"{name}{key}.") if isinstance(value, dict) else {f"{name}{key}": value}
    return found


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_paper_profile_from_raw_videos_to_a_served_request(tmp_path):
    copy_project(tmp_path)
    profile = yaml.safe_load((tmp_path / "profiles/paper.yaml").read_text())
    params = changed(yaml.safe_load((tmp_path / "profiles/paper.yaml").read_text()), SIZES)
    assert {key for key, value in flat(params).items() if value != flat(profile)[key]} == set(SIZES)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    commit(tmp_path)
    collect = {key: {name: tmp_path / path for name, path in params["collect"][key].items()} for key in SOURCES}
    write_webvid(**collect["webvid"], write=partial(write_of_subset, params["clips"], moving_object))
    write_realestate10k(**collect["realestate10k"], write=partial(write_of_subset, params["clips"], moving_camera))
    write_features(params["evaluate"], tmp_path)
    write_hub(tmp_path / "cache/hub", params)
    write_torch_hub(tmp_path / "cache/torch/hub")
    caches = {"HF_HUB_CACHE": str(tmp_path / "cache/hub"), "TORCH_HOME": str(tmp_path / "cache/torch")}
    variables = caches | {"HF_HUB_OFFLINE": "1"}

    run(tmp_path, sys.executable, "-m", "tests.e2e.all_stages", **variables)

    for split, count in (("mixed", len(WEBVID)), ("camera", len(REALESTATE10K))):
        rows = pd.read_parquet(tmp_path / f"data/clips/{split}/clips.parquet")
        assert len(rows) == count + 1 and rows["status"].isin(STATUS).all()
        assert rows.query("status == 'dropped'")["reason"].str.len().min() > 0
        assert rows["reason"].str.startswith("file not found").sum() == 1
        captions = pd.read_parquet(tmp_path / f"data/captions/{split}.parquet")
        assert captions["caption"].str.len().min() > 0
    evaluation = json.loads((tmp_path / "metrics/evaluation.json").read_text())
    assert evaluation["trackers"]["first"] == "cotracker"
    for key in ("cam_mc", "obj_mc"):
        for method in ("still", "no_control", "controlnet", "camera_lora", "object_lora", "real", "codec"):
            assert np.isfinite(evaluation[key][method]["px"]) and evaluation[key][method]["n"] > 0
    for scale in params["evaluate"]["trajectory_guidance_scales"]:
        assert np.isfinite(evaluation["obj_mc"][f"object_lora_{scale}"]["px"])
    assert np.isfinite([evaluation["distances"][name]["distance"] for name in ("fid", "fvd")]).all()

    request = {"image": picture(192, 108), "trajectories": [[[60, 50], [120, 50]]], "mode": "object", "prompt": "tiles"}
    with served(tmp_path, "--model", f"models:/{params['register']['model_name']}/1", **variables) as port:
        status, answer = post(port, {"inputs": [request | {"seed": 3}]})
    assert status == 200, answer
    [record] = answer["predictions"]
    assert (record["width"], record["height"], record["num_frames"]) == (64, 64, 10)
    assert frames_of(base64.b64decode(record["video"])) == 10
