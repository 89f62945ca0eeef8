import io

import numpy as np
import pytest
from PIL import Image

from models.video import decode, read
from models.video.decode import UnreadableVideo
from models.video.read import (
    read_chosen_frames,
    read_frames,
    read_info,
    read_stamped_frames,
    read_video,
)
from models.video.write import encode_gif, encode_mp4
from tests.footage import moving_texture, real_videos, turn, write_broken, write_unusual, write_video


def psnr(a, b):
    return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())


def test_h264_keeps_frames_and_rate(tmp_path):
    y, x = np.mgrid[:64, :96]
    frames = np.stack([np.stack([2 * x + 3 * t, 3 * y, x + y], -1) for t in range(8)]).astype(np.uint8)
    (tmp_path / "a.mp4").write_bytes(encode_mp4(frames, 12))
    read, fps = read_video(tmp_path / "a.mp4")
    assert read.shape == frames.shape and fps == 12
    assert psnr(read, frames) > 36
    assert encode_mp4(frames, 12) == encode_mp4(frames, 12)


def test_gif_has_every_frame():
    picture = Image.open(io.BytesIO(encode_gif(moving_texture(5, 32, 24), 10)))
    assert picture.n_frames == 5 and picture.info["duration"] == 100 and picture.info["loop"] == 0


@pytest.mark.parametrize(
    "frames", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8)]
)
def test_frames_of_another_shape_or_type_are_refused(frames):
    with pytest.raises(ValueError, match="frames must be"):
        encode_mp4(frames, 8)


def test_odd_sides_are_refused():
    with pytest.raises(ValueError, match="even sides, got 33x24"):
        encode_mp4(np.zeros((2, 24, 33, 3), np.uint8), 8)


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotation_is_honoured(tmp_path, clockwise):
    frames = moving_texture(3, 48, 32)
    path = turn(write_video(tmp_path / "a.mp4", frames), clockwise)
    upright = np.rot90(frames, -clockwise // 90, axes=(1, 2))
    read, _ = read_video(path)
    info = read_info(path)
    assert read.shape == upright.shape and (info.width, info.height) == upright.shape[2:0:-1]
    assert psnr(read, upright) > 20


def test_a_rotation_by_no_angle_is_none(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_texture(3, 48, 32))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = bytes(36)
    path.write_bytes(data)
    assert read_video(path)[0].shape == (3, 32, 48, 3)


def test_scaled_frames_are_upright_too(tmp_path):
    path = turn(write_video(tmp_path / "a.mp4", moving_texture(3, 48, 32)), 90)
    assert next(read_frames(path, size=(16, 24))).shape == (24, 16, 3)


def test_only_the_asked_frames_are_yielded(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_texture(20, 48, 32))
    everything = list(read_frames(path))
    picked = list(read_frames(path, indices=range(3, 14, 5)))
    assert len(picked) == 3 and all(np.array_equal(a, everything[i]) for a, i in zip(picked, (3, 8, 13), strict=True))


def test_a_span_of_seconds(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_texture(20, 48, 32))
    everything = list(read_frames(path))
    part = list(read_frames(path, span=(0.5, 1.2)))
    assert len(part) == 8 and np.array_equal(part[0], everything[5])


def test_unusual_videos_are_read(tmp_path):
    for name in write_unusual(tmp_path):
        frames, fps = read_video(tmp_path / name)
        assert len(frames) == 24 and frames.std() > 30 and fps > 0, name


def test_broken_files_give_reasons(tmp_path):
    reasons = write_broken(tmp_path)
    for name in reasons.keys() - {"one_frame.mp4", "too_short.mp4", "thin.avi"}:
        with pytest.raises(UnreadableVideo, match=reasons[name]):
            read_video(tmp_path / name)


def test_a_missing_file_gives_a_reason(tmp_path):
    with pytest.raises(UnreadableVideo, match="not found"):
        read_info(tmp_path / "none.mp4")


def test_real_footage_is_read():
    for path in real_videos():
        info = read_info(path)
        assert next(read_frames(path)).shape == (info.height, info.width, 3)


def test_frames_that_are_sought_are_those_that_lie_there(tmp_path):
    film = np.concatenate([moving_texture(30, 96, 64, seed=seed) for seed in range(3)])
    for name in ("b_frames.mp4", "b_frames.mkv"):
        write_video(tmp_path / name, film)
    for name, codec in (("mpeg2.ts", "mpeg2video"), ("mpeg4.avi", "mpeg4"), ("vp9.webm", "libvpx-vp9")):
        write_video(tmp_path / name, film, codec=codec)
    write_video(tmp_path / "uneven.mkv", film, times=[100 * i + 40 * (i % 3) for i in range(90)])
    write_video(tmp_path / "palette_in_first_packet.avi", film, codec="rawvideo", pixels="monob")
    write_unusual(tmp_path / "unusual")
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        stamps = [stamp for _, stamp in read_stamped_frames(path, (48, 32))]
        for indices in (range(12), range(5, len(stamps), 4), range(len(stamps) - 3, len(stamps))):
            wanted = np.stack(list(read_frames(path, (48, 32), indices)))
            assert np.array_equal(read_chosen_frames(path, (48, 32), indices, stamps), wanted), path.name


def test_a_video_that_cannot_be_sought_is_read_from_its_start(tmp_path):
    path = write_video(tmp_path / "a.gif", moving_texture(30, 96, 64), codec="gif", pixels="rgb8")
    path.write_bytes(path.read_bytes() * 2)
    stamps = [stamp for _, stamp in read_stamped_frames(path, (48, 32))]
    wanted = np.stack(list(read_frames(path, (48, 32), range(31, 57, 5))))
    assert np.array_equal(read_chosen_frames(path, (48, 32), range(31, 57, 5), stamps), wanted)


def test_frames_before_the_key_frame_are_not_decoded(tmp_path, monkeypatch):
    film = np.concatenate([moving_texture(30, 96, 64, seed=seed) for seed in range(3)])
    path = write_video(tmp_path / "a.mp4", film)
    stamps = [stamp for _, stamp in read_stamped_frames(path, (48, 32))]
    monkeypatch.setattr(read, "read_frames", lambda *given: pytest.fail("read from the start"))
    assert len(read_chosen_frames(path, (48, 32), range(70, 80), stamps)) == 10


def test_time_stamps_that_lead_nowhere_are_not_needed(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_texture(20, 96, 64))
    wanted = np.stack(list(read_frames(path, (48, 32), range(4, 8))))
    for stamps in ([None] * 20, [7] * 20, list(range(1, 21))):
        assert np.array_equal(read_chosen_frames(path, (48, 32), range(4, 8), stamps), wanted)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile '{}'\n"),
        ("list.mpd", '<?xml version="1.0"?>\n<MPD type="static"><Period><BaseURL>{}</BaseURL></Period></MPD>'),
        ("list.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_playlists_are_not_followed(tmp_path, monkeypatch, name, text):
    monkeypatch.setattr(decode.av, "open", lambda *_, **__: pytest.fail("FFmpeg may read what it names"))
    (tmp_path / name).write_text(text.format("other.ts"), encoding="utf-8")
    with pytest.raises(UnreadableVideo, match="a playlist"):
        read_info(tmp_path / name)


@pytest.mark.parametrize(("width", "height", "accepted"), [(320, 240, True), (96, 120, False)])
def test_frames_may_change_their_size_but_not_their_shape(tmp_path, width, height, accepted):
    parts = [(160, 120), (width, height)]
    streams = [write_video(tmp_path / f"{w}.mjpeg", moving_texture(5, w, h), "mjpeg", "yuvj420p") for w, h in parts]
    path = tmp_path / "joined.mjpeg"
    path.write_bytes(b"".join(stream.read_bytes() for stream in streams))
    if accepted:
        assert read_video(path)[0].shape == (10, 120, 160, 3)
    else:
        with pytest.raises(UnreadableVideo, match="its frames change from 160x120 to 96x120 at frame 5"):
            read_video(path)


def test_a_video_that_does_not_get_on_is_given_up(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", moving_texture(20, 96, 64))
    clock = iter(range(0, 100_000, 20))
    monkeypatch.setattr(decode.time, "monotonic", lambda: next(clock))
    with pytest.raises(UnreadableVideo, match="no frame within 30 seconds after frame 0"):
        list(read_frames(path))
