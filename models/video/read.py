"""Read any video that FFmpeg decodes. Frames are (H, W, 3) uint8 RGB, upright, square pixels."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from models.geometry import Size

MAX_PIXELS = 8192 * 4320
STALLED = 30.0  # seconds without a frame after which a video is given up
NOT_VIDEO = {"tty", "image2"}  # FFmpeg draws text files as films, and calls a picture a film of one frame
PLAYLIST = re.compile(rb"\s*(#EXTM3U|ffconcat|v=0\s|(<\?xml.*)?<MPD\b)", re.S)  # names other files to be read
ASPECT_CHANGE = 0.02  # of the frames' width over height within a video; more would distort them

_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS), "protocol_whitelist": "file"}
_waiting: dict[int, float] = {}  # thread -> since when it waits for FFmpeg


class UnreadableVideo(ValueError):
    """A file that cannot be read as a video; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class VideoInfo:
    """Width and height in pixels as displayed (after rotation and pixel aspect), frames per second (0 if unknown).

    tick: Seconds that one step of the time stamps takes (NaN if unknown).
    """

    width: int
    height: int
    fps: float
    tick: float


def read_info(path: str | Path) -> VideoInfo:
    """Describe a video by its first frame.

    Raises:
        UnreadableVideo: no frame can be read.
    """
    with _opened(path) as (container, stream):
        for frame in _whole_frames(container, stream):
            width, height = _display_size(frame, stream)
            rate, tick = stream.average_rate or stream.guessed_rate or 0, frame.time_base or nan
            return VideoInfo(width, height, float(rate), float(tick))
    raise UnreadableVideo("holds no frame")


def read_frames(
    path: str | Path,
    size: Size | None = None,
    indices: range | None = None,
    span: tuple[float, float] | None = None,
) -> Iterator[np.ndarray]:
    """Decode one frame after another, holding one at a time.

    Args:
        size: Width and height to scale to, as displayed; None keeps the video's own.
        indices: Frames to yield, counted from the start of `span`; None yields all.
        span: First and last second to read; None reads the whole video.

    Raises:
        UnreadableVideo: the file is no video, is damaged or truncated, or its frames are larger than `MAX_PIXELS`.
    """
    with _opened(path) as (container, stream):
        for index, frame in enumerate(_spanned_frames(container, stream, span)):
            if size is None:
                size = _display_size(frame, stream)
            if indices is None or index in indices:
                yield _upright(frame, size)
            if indices is not None and index >= indices[-1]:
                break


def read_stamped_frames(
    path: str | Path, size: Size, span: tuple[float, float] | None = None
) -> Iterator[tuple[np.ndarray, int | None]]:
    """Like `read_frames`, each frame with its time stamp, for `read_chosen_frames`."""
    with _opened(path) as (container, stream):
        for frame in _spanned_frames(container, stream, span):
            yield _upright(frame, size), frame.pts


def read_chosen_frames(
    path: str | Path,
    size: Size,
    indices: range,
    stamps: Sequence[int | None],
    span: tuple[float, float] | None = None,
) -> np.ndarray:
    """Some frames (T, H, W, 3) of a video that `read_stamped_frames` has read before.

    Frames before the first one's key frame are not decoded, nor those in between that no other frame needs; unless the
    stamps or the container do not allow to seek.

    Args:
        indices: Frames to read, counted from the start of `span`, rising.
        stamps: Time stamps of all frames of `span`.

    Raises:
        UnreadableVideo: as `read_frames`.
    """
    wanted = [stamps[index] for index in indices]
    numbers = [stamp for stamp in stamps if stamp is not None]
    if len(numbers) == len(stamps) and all(a < b for a, b in pairwise(numbers)):
        with suppress(UnreadableVideo):  # after a jump; from the start it may well be read
            frames = _sought_frames(path, size, wanted)
            if len(frames) == len(wanted):
                return np.stack(frames)
    return np.stack(list(read_frames(path, size, indices, span)))


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """All frames (T, H, W, 3) uint8 and the frames per second (0 if unknown). Raises UnreadableVideo."""
    frames = list(read_frames(path))
    if not frames:
        raise UnreadableVideo("holds no frame")
    return np.stack(frames), read_info(path).fps


def frame_seconds(path: str | Path) -> list[float]:
    """How long each frame is shown, 0 where the file does not say; nothing is decoded. Raises UnreadableVideo."""
    with _opened(path) as (container, stream):
        tick = float(stream.time_base or 0)
        return [tick * (packet.duration or 0) for packet in _packets(container, stream) if packet.size]


@contextmanager
def waiting() -> Iterator[None]:
    """Around each call of FFmpeg that reads or decodes: see `longest_wait`."""
    thread = threading.get_ident()
    _waiting[thread] = time.monotonic()
    try:
        yield
    finally:
        del _waiting[thread]


def longest_wait() -> float:
    """Seconds that some thread of this process has been waiting for a single call of FFmpeg, which may hang."""
    return max((time.monotonic() - since for since in list(_waiting.values())), default=0.0)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    path = Path(path)
    if not path.is_file():
        raise UnreadableVideo("file not found")
    if path.stat().st_size == 0:
        raise UnreadableVideo("file is empty")
    try:
        with path.open("rb") as file:
            if PLAYLIST.match(file.read(1024)):
                raise UnreadableVideo("a playlist, not a video")
        with waiting():
            opened = av.open(str(path), options=_DECODER_OPTIONS, metadata_errors="replace", timeout=STALLED)
        with opened as container:
            if NOT_VIDEO & set(container.format.name.split(",")) or container.format.name.endswith("_pipe"):
                raise UnreadableVideo(f"not a video (read as {container.format.name})")
            if not container.streams.video:
                raise UnreadableVideo(f"holds no video stream (read as {container.format.name})")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnreadableVideo("its codec is unknown")
            _check_size(stream.codec_context.width, stream.codec_context.height)
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.error.EOFError as error:
        raise UnreadableVideo("cannot be decoded: it ends too early") from error
    except (av.FFmpegError, OSError, UnicodeError) as error:
        detail = getattr(error, "strerror", None) or error
        raise UnreadableVideo(f"cannot be decoded: damaged or of an unknown kind ({detail})") from error


def _whole_frames(container: av.container.InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decode, refusing what FFmpeg would paper over: damaged packets and frames, another shape, no progress."""
    count, last, first = 0, time.monotonic(), None
    for packet in _packets(container, stream):
        if time.monotonic() - last > STALLED:
            raise UnreadableVideo(f"no frame within {STALLED:.0f} seconds after frame {count}")
        if packet.is_corrupt:
            raise UnreadableVideo(f"truncated or damaged after frame {count}")
        for frame in _decoded(packet):
            if frame.is_corrupt:
                raise UnreadableVideo(f"truncated or damaged at frame {count}")
            _check_size(frame.width, frame.height)
            width, height = shape = _display_size(frame, stream)
            first = first or shape
            if abs(width * first[1] / (height * first[0]) - 1) > ASPECT_CHANGE:
                raise UnreadableVideo(
                    f"its frames change from {first[0]}x{first[1]} to {width}x{height} at frame {count}"
                )
            count += 1
            yield frame
            last = time.monotonic()


def _packets(container: av.container.InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    packets = container.demux(stream)
    while True:
        with waiting():
            packet = next(packets, None)
        if packet is None:
            return
        yield packet


def _decoded(packet: "Packet[VideoStream]") -> list[VideoFrame]:
    with waiting():
        return packet.decode()


def _spanned_frames(
    container: av.container.InputContainer, stream: VideoStream, span: tuple[float, float] | None
) -> Iterator[VideoFrame]:
    if span is None:
        yield from _whole_frames(container, stream)
        return
    with waiting():
        container.seek(int(span[0] * av.time_base), backward=True)
    for frame in _whole_frames(container, stream):
        if frame.time is not None and frame.time > span[1]:
            break
        if frame.time is None or frame.time >= span[0]:
            yield frame


def _sought_frames(path: str | Path, size: Size, stamps: Sequence[int | None]) -> list[np.ndarray]:
    """Those frames with these rising time stamps that are found after a jump to the first."""
    frames: list[np.ndarray] = []
    wanted = set(stamps)
    with _opened(path) as (container, stream):
        if stream.codec_context.pix_fmt == "pal8":  # the palette may lie in the first packet alone
            return frames
        with waiting():
            container.seek(stamps[0] or 0, stream=stream, backward=True)
        for packet in _packets(container, stream):
            unneeded = packet.pts is not None and packet.pts not in wanted
            stream.codec_context.skip_frame = "NONREF" if unneeded else "DEFAULT"
            for frame in _decoded(packet):
                if frame.pts in wanted and not frame.is_corrupt:
                    frames.append(_upright(frame, size))
                if frame.pts == stamps[-1]:
                    return frames
    return frames


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableVideo(f"frames of {width}x{height} are larger than {MAX_PIXELS:,} pixels")


def _display_size(frame: VideoFrame, stream: VideoStream) -> Size:
    aspect = stream.sample_aspect_ratio or 1
    width, height = max(1, round(frame.width * aspect)), frame.height
    _check_size(width, height)
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


def _quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns that bring the stored frame upright."""
    if abs(frame.rotation) > 180:  # what FFmpeg makes of a matrix of zeros, which has no angle
        return 0
    return round(frame.rotation / 90) % 4


def _upright(frame: VideoFrame, size: Size) -> np.ndarray:
    turns = _quarter_turns(frame)
    width, height = size[::-1] if turns % 2 else size
    shrinks = width * height < frame.width * frame.height
    how = Interpolation.AREA if shrinks else Interpolation.BICUBIC
    image = frame.reformat(width=width, height=height, format="rgb24", interpolation=how).to_ndarray()
    return np.ascontiguousarray(np.rot90(image, turns))
