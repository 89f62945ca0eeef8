"""Read any video that FFmpeg decodes. Frames are (H, W, 3) uint8 RGB, upright, square pixels, BT.709, progressive."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from math import nan

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from av.video.stream import VideoStream

from models.geometry import Size
from models.video.decode import (
    InputContainer,
    Noticed,
    UnreadableVideo,
    Video,
    decoded,
    opened,
    packets_of,
    seek,
    whole_frames,
)
from models.video.picture import assumes_bt709, deinterlaced, display_size, hdr_of, marked, orientation, upright

PLAUSIBLE_RATE = 1.0, 240.0  # frames per second; a header that says less or more is checked by the packets' times
SAME_RATE = 0.02  # share by which a header's rate may differ from the rate of the time stamps and still be right


@dataclass(frozen=True)
class SourceFacts:
    """What a video's file says of itself. Words are FFmpeg's; `unknown` where the file does not say.

    rotation: clockwise degrees by which the stored frames are turned. mirrored: they are flipped as well.
    pixel_aspect: width over height of a stored pixel. video_streams: how many the file has; the best one is read.
    start: seconds of the first frame's time stamp. assumed_bt709: HD without a colour tag, taken for BT.709.
    """

    container: str
    codec: str
    transfer: str
    primaries: str
    interlaced: bool
    rotation: int
    mirrored: bool
    pixel_aspect: float
    video_streams: int
    start: float
    hdr: bool
    assumed_bt709: bool


@dataclass(frozen=True)
class VideoInfo:
    """Width and height in pixels as displayed (after rotation and pixel aspect), frames per second (0 if unknown).

    tick: Seconds that one step of the time stamps takes (NaN if unknown).
    first: Time stamp of the first frame, in ticks (0 if unknown).
    measured: The header names no plausible rate; `fps` is that of the packets' times.
    """

    width: int
    height: int
    fps: float
    tick: float
    first: int
    measured: bool
    source: SourceFacts


def read_info(video: Video) -> VideoInfo:
    """Describe a video by its first frame.

    Raises:
        UnreadableVideo: no frame can be read.
    """
    with opened(video) as (container, stream):
        frame = next(whole_frames(container, stream, Noticed()), None)
        if frame is None:
            raise UnreadableVideo("holds no frame")
        width, height = display_size(frame, stream)
        source = _facts(container, stream, frame)
        rate, tick, first = _header_rate(stream, frame), float(frame.time_base or nan), frame.pts or 0
    plausible = PLAUSIBLE_RATE[0] <= rate <= PLAUSIBLE_RATE[1]
    if not plausible:
        rate = _packet_rate(video)
    return VideoInfo(width, height, rate, tick, first, not plausible and rate > 0, source)


def read_frames(
    video: Video,
    size: Size | None = None,
    indices: Sequence[int] | None = None,
    span: tuple[float, float] | None = None,
    noticed: Noticed | None = None,
) -> Iterator[np.ndarray]:
    """Decode one frame after another, holding one at a time.

    Args:
        size: Width and height to scale to, as displayed; None keeps the video's own.
        indices: Frames to yield, rising, counted from the start of `span`; None yields all.
        span: First and last second to read, counted from the first frame; None reads the whole video.
        noticed: Where to write down what is noticed; with it damaged parts of transport streams are left out.

    Raises:
        UnreadableVideo: the file is no video, is damaged or truncated, or its frames are larger than `MAX_PIXELS`.
    """
    wanted = None if indices is None else set(indices)
    with opened(video) as (container, stream):
        for index, frame in enumerate(deinterlaced(_spanned_frames(container, stream, span, noticed))):
            if size is None:
                size = display_size(frame, stream)
            if wanted is None or index in wanted:
                yield upright(frame, size)
            if indices is not None and index >= indices[-1]:
                break


def read_stamped_frames(
    video: Video, size: Size, span: tuple[float, float] | None = None, noticed: Noticed | None = None
) -> Iterator[tuple[np.ndarray, int | None]]:
    """Like `read_frames`, each frame with its time stamp, for `read_chosen_frames`.

    At half the height or less two fields are not told apart: their mean is what a deinterlaced frame looks like.
    """
    with opened(video) as (container, stream):
        frames = _spanned_frames(container, stream, span, noticed)
        for frame in frames if 2 * size[1] <= stream.codec_context.height else deinterlaced(frames):
            yield upright(frame, size), frame.pts


def read_chosen_frames(
    video: Video,
    size: Size,
    indices: Sequence[int],
    stamps: Sequence[int | None],
    span: tuple[float, float] | None = None,
    noticed: Noticed | None = None,
) -> np.ndarray:
    """Some frames (T, H, W, 3) of a video that `read_stamped_frames` has read before.

    Frames before the first one's key frame are not decoded, nor those in between that no other frame needs; unless the
    stamps or the container do not allow to seek.

    Args:
        indices: Frames to read, counted from the start of `span`, rising.
        stamps: Time stamps of all frames of `span`.
        noticed: What the first reading noticed, if anything.

    Raises:
        UnreadableVideo: as `read_frames`.
    """
    wanted = [stamps[index] for index in indices]
    numbers = [stamp for stamp in stamps if stamp is not None]
    if len(numbers) == len(stamps) and all(a < b for a, b in pairwise(numbers)):
        neighbour = numbers[max(0, indices[0] - 1)] if noticed and noticed.interlaced else None
        with suppress(UnreadableVideo):  # after a jump; from the start it may well be read
            frames = _sought_frames(video, size, wanted, neighbour)
            if len(frames) == len(wanted):
                return np.stack(frames)
    return np.stack(list(read_frames(video, size, indices, span, noticed and Noticed())))


def read_video(video: Video) -> tuple[np.ndarray, float]:
    """All frames (T, H, W, 3) uint8 and the frames per second (0 if unknown). Raises UnreadableVideo."""
    frames = list(read_frames(video))
    if not frames:
        raise UnreadableVideo("holds no frame")
    return np.stack(frames), read_info(video).fps


def frame_seconds(video: Video) -> list[float]:
    """How long each frame is shown, 0 where the file does not say; nothing is decoded. Raises UnreadableVideo."""
    with opened(video) as (container, stream):
        tick = float(stream.time_base or 0)
        return [tick * (packet.duration or 0) for packet in packets_of(container, stream) if packet.size]


def true_rate(header: float, times: Sequence[float] | np.ndarray, tolerance: float = SAME_RATE) -> float:
    """Frames per second: the header's, unless the time stamps (seconds, NaN where unknown) say another.

    A step of more than ten usual ones is a gap in the video, and no step.

    Args:
        tolerance: Share by which the header's rate may differ and still be right.
    """
    steps = np.diff(np.asarray(times, float))
    steps = steps[np.isfinite(steps) & (steps > 0)]
    if len(steps) == 0:
        return header
    rate = 1 / float(steps[steps <= 10 * np.median(steps)].mean())
    return header if abs(header / rate - 1) <= tolerance else rate


def _header_rate(stream: VideoStream, frame: VideoFrame) -> float:
    """Frames per second; 0 if unknown. Without time stamps (bare H.264) the container's are FFmpeg's guess."""
    codec = stream.codec_context.framerate if frame.pts is None else None
    return float(codec or stream.average_rate or 0)


def _packet_rate(video: Video) -> float:
    """Packets over the span of their time stamps; 0 if there are none. Nothing is decoded."""
    with opened(video) as (container, stream):
        stamps = [packet.pts for packet in packets_of(container, stream) if packet.size and packet.pts is not None]
        seconds = (max(stamps) - min(stamps)) * float(stream.time_base or 0) if stamps else 0.0
    return (len(stamps) - 1) / seconds if seconds > 0 else 0.0


def _facts(container: InputContainer, stream: VideoStream, frame: VideoFrame) -> SourceFacts:
    turned = orientation(frame)
    return SourceFacts(
        container=container.format.name.split(",")[0],
        codec=stream.codec_context.name,
        transfer=_name(ColorTrc, frame.color_trc),
        primaries=_name(ColorPrimaries, frame.color_primaries),
        interlaced=frame.interlaced_frame,
        rotation=turned.rotation,
        mirrored=turned.mirrored,
        pixel_aspect=float(stream.sample_aspect_ratio or 1),
        video_streams=len(container.streams.video),
        start=float(frame.time or 0),
        hdr=hdr_of(frame) is not None,
        assumed_bt709=assumes_bt709(frame),
    )


def _name(names: type, number: int) -> str:
    named = {int(member.value): member.name.lower() for member in names}  # type: ignore[attr-defined]
    return named.get(number, "unknown").replace("unspecified", "unknown")


def _spanned_frames(
    container: InputContainer,
    stream: VideoStream,
    span: tuple[float, float] | None,
    noticed: Noticed | None,
) -> Iterator[VideoFrame]:
    if span is None:
        yield from whole_frames(container, stream, noticed)
        return
    first = next(whole_frames(container, stream, noticed and Noticed()), None)
    if first and first.time is None:
        raise UnreadableVideo("has no time stamps, which tell where the wanted seconds are; a copy in a container has")
    start = first.time if first and first.time else 0.0
    low, high = start + span[0], start + span[1]
    seek(container, stream, int(low / (stream.time_base or 1)))
    frames = whole_frames(container, stream, noticed)
    first = next(frames, None)
    if first is None or (first.time is not None and first.time > low):  # some containers lead to a later key frame
        seek(container, stream, min(0, stream.start_time or 0))
        frames = whole_frames(container, stream, noticed)
    elif first.time is None or first.time >= low:
        yield first
    for frame in frames:
        if frame.time is not None and frame.time > high:
            break
        if frame.time is None or frame.time >= low:
            yield frame


def _sought_frames(video: Video, size: Size, stamps: Sequence[int | None], neighbour: int | None) -> list[np.ndarray]:
    """Those frames with these rising time stamps that are found after a jump to the first.

    neighbour: In an interlaced video, the time stamp of the frame before the first one: fields need those beside them.
    """
    frames: list[np.ndarray] = []
    wanted = set(stamps)
    with opened(video) as (container, stream):
        if stream.codec_context.pix_fmt == "pal8":  # the palette may lie in the first packet alone
            return frames
        seek(container, stream, (stamps[0] if neighbour is None else neighbour) or 0)
        skip = neighbour is None
        found = _needed_frames(container, stream, wanted if skip else None)
        found = marked(found, stream)
        for frame in found if skip else deinterlaced(found):
            if frame.pts in wanted and not frame.is_corrupt:
                frames.append(upright(frame, size))
            if frame.pts == stamps[-1]:
                return frames
    return frames


def _needed_frames(
    container: InputContainer, stream: VideoStream, wanted: set[int | None] | None
) -> Iterator[VideoFrame]:
    """All frames, or those with the time stamps `wanted` and those that they need."""
    for packet in packets_of(container, stream):
        unneeded = wanted is not None and packet.pts is not None and packet.pts not in wanted
        stream.codec_context.skip_frame = "NONREF" if unneeded else "DEFAULT"
        yield from decoded(packet)
