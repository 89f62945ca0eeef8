"""Files cut off, with flipped bits or with holes, in many containers: each gives a clip or one reason."""

import numpy as np
import pytest

from models.curation.clip import ClipSettings, curate_clip
from models.curation.outcome import Clip, Dropped
from models.estimators import load_estimator
from tests.footage import moving_texture, write_video

SETTINGS = ClipSettings(size=(48, 32), frames=8, interval=(1, 2), margin=0, crop_bars=True)
CONTAINERS = {
    "mp4": ("libx264", "yuv420p", {}),
    "fast.mp4": ("libx264", "yuv420p", {"movflags": "+faststart"}),
    "parts.mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "mkv": ("libx264", "yuv420p", {}),
    "avi": ("mpeg4", "yuv420p", {}),
    "webm": ("libvpx-vp9", "yuv420p", {}),
    "mov": ("mjpeg", "yuvj420p", {}),
    "ts": ("mpeg2video", "yuv420p", {}),
    "gif": ("gif", "rgb8", {}),
}


def damages(data: bytes):
    for share in (0.02, 0.3, 0.7, 0.98):
        yield data[: int(len(data) * share)]
    for seed, (part, count) in enumerate([(1, 4), (1, 40), (100, 4), (100, 200)]):
        flipped = np.frombuffer(data, np.uint8).copy()
        rng = np.random.default_rng([seed, len(data)])
        places = rng.integers(0, max(64, len(data) * part // 100), count)
        flipped[places] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)
        yield flipped.tobytes()
    yield data[: len(data) // 3] + bytes(1000) + data[len(data) // 3 + 1000 :]


@pytest.mark.parametrize("container", CONTAINERS)
def test_damage_ends_in_a_clip_or_a_reason(tmp_path, container):
    codec, pixels, options = CONTAINERS[container]
    whole = write_video(
        tmp_path / f"whole.{container}", moving_texture(20, 96, 64), codec=codec, pixels=pixels, options=options
    )
    assert isinstance(curate(whole), Clip)
    outcomes = []
    for index, data in enumerate(damages(whole.read_bytes())):
        path = tmp_path / f"{index}.{container}"
        path.write_bytes(data)
        outcomes.append(curate(path))
    for outcome in outcomes:
        if isinstance(outcome, Dropped):
            assert outcome.reason and "\n" not in outcome.reason and outcome.step in ("decode", "length", "shape")
        else:
            assert outcome.frames.shape == (8, 32, 48, 3)
    assert isinstance(outcomes[0], Dropped)


def curate(path):
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    return curate_clip(path, SETTINGS, cuts, flow, np.random.default_rng(0))
