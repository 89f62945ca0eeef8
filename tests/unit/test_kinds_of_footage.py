"""What real files do: each kind is made here, and the right picture, rate or reason is known."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.codec.context import Flags
from av.filter import Graph
from av.stream import Disposition
from scipy.ndimage import gaussian_filter

from models.curation.clip import ClipSettings, curate_clip, curate_scenes
from models.curation.outcome import Clip
from models.curation.pace import find_pace
from models.estimators import load_estimator
from models.video.decode import Noticed, UnreadableVideo
from models.video.picture import tone_mapped
from models.video.read import read_chosen_frames, read_frames, read_info, read_stamped_frames, read_video
from tests.footage import moving_texture, write_video

SETTINGS = ClipSettings((96, 64), 8, (1, 1), margin=0, crop_bars=False)


def psnr(a, b):
    return 10 * np.log10(255**2 / max(1e-9, np.square(np.asarray(a, float) - b).mean()))


def smooth(frames, width=96, height=64, step=1, seed=0):
    """(T, H, W, 3) uint8: soft colours that move left by `step` pixels a frame; 4:2:0 keeps them."""
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.normal(size=(height, width + step * frames, 3)), (8, 8, 0))
    texture = np.clip(128 + 35 * texture / texture.std(), 0, 255).astype(np.uint8)
    return np.stack([texture[:, step * i : step * i + width] for i in range(frames)])


def curated(path, **changes):
    settings = ClipSettings(**{**SETTINGS.__dict__, **changes})
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    return curate_clip(path, settings, cuts, flow, np.random.default_rng(0))


def timed(path, frames, times, codec="libx264"):
    """Write frames at these milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_matrix(path, a, b, c, d):
    """Write a display matrix into an mp4's header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + (32 if data[data.index(b"tkhd") + 4] else 20) + 16
    data[start : start + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("matrix", "rotation", "mirrored"),
    [
        ((1, 0, 0, 1), 0, False),
        ((0, 1, -1, 0), 90, False),
        ((-1, 0, 0, -1), 180, False),
        ((0, -1, 1, 0), 270, False),
        ((-1, 0, 0, 1), 0, True),
        ((1, 0, 0, -1), 180, True),
        ((0, 1, 1, 0), 270, True),
        ((0, -1, -1, 0), 90, True),
    ],
)
def test_every_display_matrix_of_quarter_turns_and_mirrors_is_obeyed(tmp_path, matrix, rotation, mirrored):
    frames = smooth(3)
    path = with_matrix(write_video(tmp_path / "a.mp4", frames), *matrix)
    upright = frames[:, :, ::-1] if mirrored else frames
    upright = np.rot90(upright, -rotation // 90, axes=(1, 2))
    read, info = read_video(path)[0], read_info(path)
    assert read.shape == upright.shape and psnr(read, upright) > 35
    assert (info.source.rotation, info.source.mirrored) == (rotation, mirrored)
    # the matrix maps the place (x, y) of the stored picture to (a x + c y, b x + d y) of the shown one
    y, x = np.mgrid[:64, :96]
    a, b, c, d = matrix
    column, row = a * x + c * y, b * x + d * y
    shown = np.zeros_like(upright[0])
    shown[row - row.min(), column - column.min()] = frames[0]
    assert np.array_equal(shown, upright[0])


def test_a_display_matrix_within_the_video_holds_until_the_next_key_frame(tmp_path):
    """As an SEI message of H.264 with one key frame: mirrored left to right."""
    frames = smooth(12)
    path = write_video(tmp_path / "a.h264", frames)
    plain, data = read_video(path)[0], path.read_bytes()
    first_slice = data.index(b"\x00\x00\x01\x65")
    # type 47, 3 bytes: cancel 0, hor_flip 1, ver_flip 0, 16 bits of rotation, period 1 (010), extension 0
    message = b"\x00\x00\x01\x06\x2f\x03\x40\x00\x09\x80"
    path.write_bytes(data[:first_slice] + message + data[first_slice:])
    assert np.array_equal(read_video(path)[0], plain[:, :, ::-1])


def encoded_light(picture, transfer):
    """A BT.709 picture (…, 3) in 0..255 as HDR of BT.2020, as 16-bit values; white becomes 203 nits."""
    to_bt2020 = np.linalg.inv([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    light = np.maximum((picture / 255.0) ** 2.4 @ to_bt2020.T, 0) * 203
    if transfer == "pq":
        power = (light / 10_000) ** (2610 / 16384)
        c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
        signal = ((c1 + c2 * power) / (1 + c3 * power)) ** (2523 / 32)
    else:
        luminance = np.maximum(light @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None] / 1000
        scene = light / 1000 * luminance ** (1 / 1.2 - 1)
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    return np.rint(65535 * np.clip(signal, 0, 1)).astype(np.uint16)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_hdr_light_becomes_that_of_bt709_and_highlights_keep_their_order(transfer):
    grey = np.repeat(np.arange(0, 246, 5)[:, None], 3, 1)
    colours = np.random.default_rng(0).integers(0, 230, (500, 3))
    for picture in (grey, colours):
        assert psnr(tone_mapped(encoded_light(picture, transfer), transfer), picture) > 45
    bright = np.repeat(np.linspace(32_000, 65_535, 50).astype(np.uint16)[:, None], 3, 1)
    assert (np.diff(tone_mapped(bright, transfer)[:, 0].astype(int)) >= 0).all()
    assert tone_mapped(bright, transfer).max() == 255


@pytest.mark.parametrize(("transfer", "number"), [("pq", 16), ("hlg", 18)])
def test_hdr_videos_are_tone_mapped_and_say_so(tmp_path, transfer, number):
    frames = np.minimum(smooth(10), 235)
    signal = encoded_light(frames, transfer)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = number, 9
        stream.codec_context.colorspace = 9
        for image in signal:
            frame = av.VideoFrame.from_ndarray(image, format="rgb48le")
            container.mux(stream.encode(frame.reformat(format="yuv444p10le", dst_colorspace="BT2020")))
        container.mux(stream.encode())
    assert psnr(read_video(path)[0], frames) > 35
    clip = curated(path)
    assert clip.facts.transfer == {"pq": "smpte2084", "hlg": "arib_std_b67"}[transfer]
    assert clip.facts.primaries == "bt2020" and "tone-mapped" in clip.facts.treatment


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), "ITU709"), ((320, 180), "ITU601")])
def test_untagged_hd_is_bt709_and_smaller_is_bt601(tmp_path, size, matrix):
    picture = smooth(1, *size)[0]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p", dst_colorspace=matrix)
        untagged = av.VideoFrame.from_ndarray(frame.to_ndarray(), format="yuv444p")
        container.mux(stream.encode(untagged))
        container.mux(stream.encode())
    assert psnr(next(read_frames(path)), picture) > 40
    assert read_info(path).source.assumed_bt709 == (matrix == "ITU709")


@pytest.mark.parametrize("top_first", [True, False])
def test_interlaced_footage_is_deinterlaced(tmp_path, top_first):
    """Fields of a moving picture: the deinterlaced frames are near the progressive ones, woven fields are not."""
    fields = smooth(40, 192, 128, step=4)
    first, second = (0, 1) if top_first else (1, 0)
    woven = np.empty_like(fields[::2])
    woven[:, first::2], woven[:, second::2] = fields[::2, first::2], fields[1::2, second::2]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv444p"
        stream.options = {"crf": "1", "x264-params": "cpu-independent=1"}
        stream.codec_context.flags |= Flags.interlaced_dct
        marked = Graph()
        buffer = marked.add_buffer(width=192, height=128, format="yuv444p", time_base=Fraction(1, 25))
        mark, sink = marked.add("setfield", "tff" if top_first else "bff"), marked.add("buffersink")
        buffer.link_to(mark)
        mark.link_to(sink)
        marked.configure()
        for index, image in enumerate(woven):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv444p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            marked.push(frame)
            container.mux(stream.encode(marked.pull()))
        container.mux(stream.encode())
    read = read_video(path)[0]
    assert len(read) == len(woven)
    progressive = fields[4:-4:2]
    assert psnr(read[2:-2], progressive) > psnr(woven[2:-2], progressive) + 6
    combs = [np.abs(np.diff(film.astype(float), axis=1)).mean() for film in (progressive, read[2:-2], woven[2:-2])]
    assert combs[1] - combs[0] < 0.3 * (combs[2] - combs[0])
    noticed = Noticed()
    stamps = [stamp for _, stamp in read_stamped_frames(path, (192, 128), noticed=noticed)]
    for indices in (range(0, 20, 3), range(7, 20, 2), range(12, 15)):
        chosen = read_chosen_frames(path, (192, 128), indices, stamps, noticed=noticed)
        assert np.array_equal(chosen, read[list(indices)])
    assert curated(path).facts.interlaced


def test_fields_that_only_the_container_marks_are_deinterlaced(tmp_path):
    """PNG has no mark of its own; the header of a QuickTime file has the order of the fields."""
    fields = smooth(24, 192, 128, step=4)
    woven = fields[::2].copy()
    woven[:, 1::2] = fields[1::2, 1::2]
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "rgb24"
        stream.codec_context.field_order = 4
        for image in woven:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    read, progressive = read_video(path)[0][2:-2], fields[4:-4:2]
    assert psnr(read, progressive) > psnr(woven[2:-2], progressive) + 6
    assert read_info(path).source.interlaced and curated(path).facts.interlaced


def write_streams(path, streams):
    """Several video streams: (frames, codec, pixel format, dispositions)."""
    with av.open(str(path), "w") as container:
        opened = []
        for frames, codec, pixels, disposition in streams:
            stream = container.add_stream(codec, rate=10)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = pixels
            stream.disposition = disposition
            opened.append((stream, frames))
        packets = []
        for stream, frames in opened:
            for image in frames:
                packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
            packets += stream.encode()
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def test_the_film_is_read_and_no_cover_preview_or_still_picture(tmp_path):
    film, still, preview = smooth(20), smooth(1, 192, 128, seed=1), smooth(40, 48, 32, seed=2)
    none, default = Disposition(0), Disposition.default
    x264, jpeg = ("libx264", "yuv420p"), ("mjpeg", "yuvj420p")
    for name, streams in {
        "motion_photo.mp4": [(still, *x264, default), (film, *x264, default)],
        "cover_first.mkv": [(still, *jpeg, none), (film, *x264, default)],
        "cover_unflagged.mkv": [(still, *jpeg, none), (film, *x264, none)],
        "cover_flagged.mkv": [(still, *jpeg, default), (film, *x264, default)],
        "preview_first.mov": [(preview, *x264, none), (film, *x264, default)],
        "large_last.mkv": [(preview[:20], *x264, default), (film, *x264, default)],
    }.items():
        path = write_streams(tmp_path / name, streams)
        assert read_video(path)[0].shape == (20, 64, 96, 3), name
        facts = curated(path).facts
        assert facts.video_streams == 2 and "one of 2 video streams read" in facts.treatment, name


def without_rate(path):
    """Blank the default duration and the duration of a Matroska file, as browsers' recorders leave them out."""
    data = bytearray(path.read_bytes())
    for element, size in ((b"\x23\xe3\x83\x84", 8), (b"\x44\x89\x88", 11)):
        start = data.index(element)
        data[start : start + size] = b"\xec" + bytes([0x80 + size - 2]) + bytes(size - 2)
    path.write_bytes(data)
    return path


def test_the_rate_is_measured_where_the_container_has_none(tmp_path):
    times = np.cumsum([0, *([33, 33, 66] * 20)][:60]).tolist()
    path = without_rate(timed(tmp_path / "a.webm", smooth(60), times, "libvpx"))
    rate = 59 / (times[-1] / 1000)
    assert read_info(path).fps == pytest.approx(rate, rel=0.02) and read_info(path).measured
    assert read_video(path)[1] == pytest.approx(rate, rel=0.02)
    clip = curated(path)
    assert clip.facts.fps == pytest.approx(rate, rel=0.02) and "rate measured" in clip.facts.treatment
    assert clip.fps == pytest.approx(7 / (clip.times[-1] - clip.times[0]))


@pytest.mark.parametrize(("codec", "kind"), [("libx264", "h264"), ("libx265", "hevc")])
def test_a_bare_stream_has_the_rate_that_its_codec_says_and_no_seconds(tmp_path, codec, kind):
    path = tmp_path / f"a.{kind}"
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=50)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for image in smooth(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    clip = curated(path)
    assert read_info(path).fps == clip.facts.fps == clip.fps == 50
    with pytest.raises(UnreadableVideo, match="has no time stamps"):
        list(read_frames(path, span=(0.1, 0.3)))


def test_a_clip_of_uneven_frames_plays_at_its_own_speed(tmp_path):
    """2 s at 30 frames a second, then 2 s at 10, in which the picture moves by 60 pixels a second."""
    times = [*range(0, 2000, 33), *range(2000, 4000, 100)]
    pan = smooth(400, step=1)
    path = timed(tmp_path / "a.mkv", pan[[round(0.06 * time) for time in times]], times)
    for seed in range(4):
        settings = ClipSettings((96, 64), 16, (1, 3), margin=0, crop_bars=False)
        cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
        clip = curate_clip(path, settings, cuts, flow, np.random.default_rng(seed))
        steps = np.diff(clip.times)
        assert clip.fps == pytest.approx(1 / steps.mean(), rel=1e-6) and clip.facts.clip_fps == clip.fps
        assert steps.max() < 1.6 * steps.min() and clip.facts.even is False
        assert clip.facts.fps == pytest.approx(len(times) / 4, rel=0.05)
    assert "sampled by time" in clip.facts.treatment


@pytest.mark.parametrize("hold", [2, 3])
@pytest.mark.parametrize("first", [0, 1])
def test_animation_on_twos_and_threes_gives_distinct_frames(tmp_path, hold, first):
    frames = np.repeat(moving_texture(40, 96, 64, step=4), hold, 0)[first:]
    clip = curated(write_video(tmp_path / "a.mp4", frames))
    assert clip.facts.hold == pytest.approx(hold, rel=0.1) and clip.facts.frozen == 0
    assert clip.fps == pytest.approx(10 / hold) and f"{hold} for each picture" in clip.facts.treatment
    assert np.allclose(np.diff(clip.times), hold / 10)


@pytest.mark.parametrize("hold", [2, 3])
def test_key_frames_that_are_coded_anew_are_no_new_pictures(hold):
    """As in MPEG-2: every twelfth frame differs from the one before though it repeats the picture."""
    changes = np.where(np.arange(120) % hold, 0.04, 6.0)
    changes[1::12] = np.maximum(changes[1::12], 0.9)
    pace = find_pace((0, 120), changes, np.arange(120) / 25)
    assert pace.hold == pytest.approx(hold) and (pace.pictures % hold == 0).all()


def test_footage_that_stands_still_for_a_while_keeps_its_frames(tmp_path):
    frames = moving_texture(30, 96, 64, step=4)
    frames = np.concatenate([frames[:10], np.repeat(frames[9:10], 30, 0), frames[10:]])
    facts = curated(write_video(tmp_path / "a.mp4", frames)).facts
    assert facts.hold == 1 and facts.even


def transport_stream(path, frames):
    return write_video(path, frames).read_bytes()


def test_a_transport_stream_is_cut_at_its_flaws(tmp_path):
    """Segments whose counters start anew; a packet lost in a capture; a capture that begins in the middle."""
    scenes = [smooth(count, seed=seed) for seed, count in enumerate((12, 30, 14))]
    parts = [transport_stream(tmp_path / f"{i}.ts", frames) for i, frames in enumerate(scenes)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    clip = curated(joined)
    assert isinstance(clip, Clip) and clip.facts.flaws >= 1 and "damaged parts" in clip.facts.treatment
    assert clip.facts.scene_end - clip.facts.scene_start >= 25
    wanted = [psnr(clip.frames[0], frame) for frame in scenes[1]]
    assert max(wanted) > 30

    whole = transport_stream(tmp_path / "whole.ts", smooth(60))
    lost = tmp_path / "lost.ts"
    middle = 188 * (len(whole) // 188 // 6)
    lost.write_bytes(whole[:middle] + whole[middle + 188 :])
    noticed = Noticed()
    frames = [frame for frame, _ in read_stamped_frames(lost, (96, 64), noticed=noticed)]
    assert noticed.flaws or len(frames) < 60
    with pytest.raises(UnreadableVideo, match="decoded"):
        (tmp_path / "nothing.ts").write_bytes(whole[:188])
        read_video(tmp_path / "nothing.ts")


@pytest.mark.parametrize(("codec", "place"), [("libx264", 0.6), ("mpeg2video", 0.4)])
def test_frames_that_refer_to_a_damaged_one_are_left_out(tmp_path, codec, place):
    """Wrong bits within a packet of a transport stream, without a lost packet: FFmpeg shows what comes of them."""
    path = tmp_path / "a.ts"
    whole = dict(map(reversed, read_stamped_frames(write_video(path, moving_texture(40, 192, 128), codec), (192, 128))))
    data = bytearray(path.read_bytes())
    packet = 188 * int(place * len(data) / 188)
    data[packet + 40 : packet + 140] = np.random.default_rng(0).bytes(100)
    path.write_bytes(data)
    found = list(read_stamped_frames(path, (192, 128), noticed=Noticed()))
    assert 10 < len(found) < 40
    assert all(psnr(frame, whole[stamp]) > 60 for frame, stamp in found)


def test_seconds_count_from_the_first_frame(tmp_path):
    """A transport stream starts at some time; a span, as of RealEstate10K, is counted from its first frame."""
    transport_stream(tmp_path / "a.ts", smooth(40))
    info = read_info(tmp_path / "a.ts")
    assert info.source.start > 0.1
    everything = list(read_frames(tmp_path / "a.ts"))
    part = list(read_frames(tmp_path / "a.ts", span=(1.0, 2.05)))
    assert len(part) == 11 and np.array_equal(part[0], everything[10])
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    clip = curate_clip(tmp_path / "a.ts", SETTINGS, cuts, flow, np.random.default_rng(0), (1.0, 2.05))
    assert clip.times[0] == pytest.approx(1.0 + clip.facts.first_frame / 10, abs=1e-3)
    assert "counted as 0" in clip.facts.treatment


def test_every_scene_that_is_long_enough_gives_a_clip(tmp_path):
    film = np.concatenate([moving_texture(count, 96, 64, seed=seed) for seed, count in enumerate((20, 5, 30))])
    path = write_video(tmp_path / "a.mp4", film)
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    rng_of = np.random.default_rng
    clips = curate_scenes(path, SETTINGS, cuts, flow, rng_of, "all")
    assert [(clip.facts.scene_start, clip.facts.scene_end) for clip in clips] == [(0, 20), (25, 55)]
    (longest,) = curate_scenes(path, SETTINGS, cuts, flow, rng_of, "longest")
    assert (longest.facts.scene_start, longest.facts.scene_end) == (25, 55)
    short = write_video(tmp_path / "b.mp4", film[20:25])
    (dropped,) = curate_scenes(short, SETTINGS, cuts, flow, rng_of, "all")
    assert "too short" in dropped.reason
