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


LIES = {  # name of the part of a file, bytes from its start, what they are to say, what comes of it
    "frames far too large": ("mp4", b"avc1", 28, b"\xfd\xe8\xfd\xe8", "clip"),  # the codec's own header is believed
    "shown far too large": ("mp4", b"tkhd", 80, b"\xea\x60\0\0\xea\x60\0\0", "clip"),
    "a day long": ("mp4", b"mdhd", 20, b"\x7f\xff\xff\xff", "clip"),
    "all frames at once": ("mp4", b"stts", 12, b"\0\0\0\x14\0\0\0\0", "clip"),
    "four billion frames": ("mp4", b"stsz", 12, b"\xff\xff\xff\xff", "decoded"),
    "nothing to be shown": ("mp4", b"elst", 12, b"\0\0\0\0", "no frame"),
    "shown from beyond the end": ("mp4", b"elst", 16, b"\x7f\xff\xff\xff", "no frame"),
    "far too large": ("avi", b"strf", 12, b"\x60\xea\0\0\x60\xea\0\0", "clip"),
    "no frame rate": ("avi", b"strh", 28, bytes(8), "clip"),
    "a frame rate of billions": ("avi", b"strh", 28, b"\1\0\0\0\xff\xff\xff\xff", "clip"),
    "billions of frames": ("avi", b"avih", 24, b"\xff\xff\xff\x7f", "clip"),
    "a vast canvas": ("gif", b"GIF89a", 6, b"\xff\xff\xff\xff", "decoded"),
    "a vast picture": ("gif", b"\x21\xf9\4", 13, b"\xff\xff\xff\xff", "clip"),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(tmp_path, lie):
    container, part, offset, claim, wanted = LIES[lie]
    codec, pixels, options = CONTAINERS[container]
    frames = moving_texture(20, 96, 64)
    path = write_video(tmp_path / f"a.{container}", frames, codec=codec, pixels=pixels, options=options)
    data = bytearray(path.read_bytes())
    start = data.index(part) + offset
    assert data[start : start + len(claim)] != claim
    data[start : start + len(claim)] = claim
    path.write_bytes(data)
    outcome = curate(path)
    assert wanted in ("clip" if isinstance(outcome, Clip) else outcome.reason)


def curate(path):
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    return curate_clip(path, SETTINGS, cuts, flow, np.random.default_rng(0))
