"""Open a video, choose its film among its streams, decode it. What FFmpeg would paper over is refused or left out."""

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import av
from av.codec.context import Flags
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from models.video.picture import display_size, marked

MAX_PIXELS = 8192 * 4320
STALLED = 30.0  # seconds without a frame after which a video is given up
NOT_VIDEO = {"tty", "image2"}  # FFmpeg draws text files as films, and calls a picture a film of one frame
PLAYLIST = re.compile(rb"\s*(#EXTM3U|ffconcat|v=0\s|(<\?xml.*)?<MPD\b)", re.S)  # names other files to be read
ASPECT_CHANGE = 0.02  # of the frames' width over height within a video; more would distort them
TRANSPORT = "mpegts"  # the container whose flaws are cut out: it is made for captures that lose packets
PROBED_PACKETS = 8  # of one stream; a stream that has a single packet by then is a picture
REORDERED = 8  # frames that are held back, since one shown before a damaged frame may refer to it
ALMOST_AS_LONG = 0.9  # share of the longest stream's length from which a stream counts as long as that

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS), "protocol_whitelist": "file"}
_waiting: dict[int, float] = {}  # thread -> since when it waits for FFmpeg

InputContainer = av.container.InputContainer
Video = str | Path | bytes
"""Where a video is read from: a path, or the bytes of a file."""


class UnreadableVideo(ValueError):
    """A file that cannot be read as a video; the message is the reason, without the file's name."""


@dataclass
class Noticed:
    """What decoding noticed on its way.

    flaws: index of each first whole frame after a damaged part, which is left out; only in transport streams.
    interlaced: a frame was.
    """

    flaws: list[int] = field(default_factory=list)
    interlaced: bool = False


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
def opened(video: Video) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container, and the stream that is its film. Raises UnreadableVideo, also from within the block."""
    try:
        start = _first_bytes(video)
        if not start:
            raise UnreadableVideo("file is empty")
        if PLAYLIST.match(start):
            raise UnreadableVideo("a playlist, not a video")
        with _container(video) as container:
            if NOT_VIDEO & set(container.format.name.split(",")) or container.format.name.endswith("_pipe"):
                raise UnreadableVideo(f"not a video (read as {container.format.name})")
            stream = _film(container, video)
            check_size(stream.codec_context.width, stream.codec_context.height)
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.error.EOFError as error:
        raise UnreadableVideo("cannot be decoded: it ends too early") from error
    except (av.FFmpegError, OSError, UnicodeError) as error:
        detail = getattr(error, "strerror", None) or error
        raise UnreadableVideo(f"cannot be decoded: damaged or of an unknown kind ({detail})") from error


def packets_of(container: InputContainer, *streams: Stream) -> Iterator["Packet[Any]"]:
    packets = container.demux(*streams)
    while True:
        with waiting():
            packet = next(packets, None)
        if packet is None:
            return
        yield packet


def decoded(packet: "Packet[Any]") -> list[VideoFrame]:
    with waiting():
        return packet.decode()


def seek(container: InputContainer, stream: VideoStream, stamp: int) -> None:
    """Go to the last key frame at or before a time stamp, as far as the container knows it."""
    with waiting():
        container.seek(stamp, stream=stream, backward=True)


def whole_frames(
    container: InputContainer, stream: VideoStream, noticed: Noticed | None = None
) -> Iterator[VideoFrame]:
    """Decode one frame after another.

    Args:
        noticed: Where to write down what is noticed. With it the damaged parts of a transport stream are left out.

    Raises:
        UnreadableVideo: a packet or frame is damaged, the frames change their shape, or no frame comes.
    """
    noticed = noticed or Noticed()
    if container.format.name == TRANSPORT:
        frames = _undamaged(container, stream, noticed)
    else:
        frames = _all_frames(container, stream)
    first = None
    for count, frame in enumerate(marked(frames, stream)):
        check_size(frame.width, frame.height)
        width, height = shape = display_size(frame, stream)
        check_size(width, height)
        first = first or shape
        if abs(width * first[1] / (height * first[0]) - 1) > ASPECT_CHANGE:
            raise UnreadableVideo(f"its frames change from {first[0]}x{first[1]} to {width}x{height} at frame {count}")
        noticed.interlaced |= frame.interlaced_frame
        yield frame


def check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableVideo(f"frames of {width}x{height} are larger than {MAX_PIXELS:,} pixels")


def _all_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Refuses the first damage."""
    count, last = 0, time.monotonic()
    for packet in packets_of(container, stream):
        _check_progress(last, count)
        if packet.is_corrupt:
            raise UnreadableVideo(f"truncated or damaged after frame {count}")
        for frame in decoded(packet):
            if frame.is_corrupt:
                raise UnreadableVideo(f"truncated or damaged at frame {count}")
            count += 1
            yield frame
            last = time.monotonic()


def _undamaged(container: InputContainer, stream: VideoStream, noticed: Noticed) -> Iterator[VideoFrame]:
    """Leaves out what is damaged: from a lost packet or a damaged frame to the next key frame.

    Each packet carries its number, that of its key frame and whether it is sound through the decoder to its frame,
    since frames come out in another order than their packets go in, and time stamps may start anew within the file.
    """
    stream.codec_context.flags |= Flags.copy_opaque
    count, last, last_bad, noted = 0, time.monotonic(), -1, -1
    damaged, left_out, before = False, False, None
    key, spoiled = 0, dict[int, int]()  # packet of a key frame -> that of the first damaged frame until the next one
    held: deque[tuple[VideoFrame, int, int, bool]] = deque()
    for number, packet in enumerate(packets_of(container, stream)):
        _check_progress(last, count)
        if packet.is_keyframe and not packet.is_corrupt:  # frames shown before it may still refer to what is damaged
            before, damaged, key = packet.pts if damaged else None, False, number
        damaged |= packet.is_corrupt
        sound = not damaged and (before is None or packet.pts is None or packet.pts >= before)
        if packet.size:
            packet.opaque = number, key, sound
            last_bad = last_bad if sound else number
        try:
            frames = decoded(packet)
        except av.error.InvalidDataError:
            damaged, last_bad, frames = True, number, []
        for frame in frames:
            last = time.monotonic()
            made_by, after, whole = cast(tuple[int, int, bool], frame.opaque or (number, key, sound))
            if frame.is_corrupt:
                spoiled[after] = min(made_by, spoiled.get(after, made_by))
            held.append((frame, made_by, after, whole))
        while len(held) > (REORDERED if packet.size else 0):
            frame, made_by, after, whole = held.popleft()
            if not whole or made_by >= spoiled.get(after, made_by + 1):
                left_out, last_bad = True, max(last_bad, made_by)
                continue
            if left_out or made_by > last_bad > noted:
                noticed.flaws += [count] if count else []
                left_out, noted = False, last_bad if made_by > last_bad else noted
            count += 1
            yield frame


def _check_progress(last: float, count: int) -> None:
    if time.monotonic() - last > STALLED:
        raise UnreadableVideo(f"no frame within {STALLED:.0f} seconds after frame {count}")


def _first_bytes(video: Video) -> bytes:
    if isinstance(video, bytes):
        return video[:1024]
    if not Path(video).is_file():
        raise UnreadableVideo("file not found")
    with Path(video).open("rb") as file:
        return file.read(1024)


def _container(video: Video) -> InputContainer:
    with waiting():
        file = BytesIO(video) if isinstance(video, bytes) else str(video)
        return av.open(file, "r", options=_DECODER_OPTIONS, metadata_errors="replace", timeout=STALLED)


def _film(container: InputContainer, video: Video) -> VideoStream:
    """The stream that a player shows: no cover, preview or still picture; the default one; else the longest, largest.

    Raises:
        UnreadableVideo: there is none.
    """
    if not container.streams.video:
        raise UnreadableVideo(f"holds no video stream (read as {container.format.name})")
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams:
        raise UnreadableVideo("its codec is unknown")
    if len(streams) == 1:
        return streams[0]
    pictures = {stream.index for stream in streams if stream.disposition & _PICTURES or stream.frames == 1}
    films = [stream for stream in streams if stream.index not in pictures] or streams
    if len(films) > 1 and any(not stream.frames for stream in films):
        single = _single_packets(video, [stream.index for stream in films])
        films = [stream for stream in films if stream.index not in single] or films
    longest = max(_seconds(stream) for stream in films)
    return max(
        films,
        key=lambda stream: (
            bool(stream.disposition & Disposition.default),
            _seconds(stream) >= ALMOST_AS_LONG * longest,
            stream.codec_context.width * stream.codec_context.height,
            -stream.index,
        ),
    )


def _single_packets(video: Video, streams: list[int]) -> set[int]:
    """Those of the streams that have no second packet when another one has PROBED_PACKETS."""
    counts = dict.fromkeys(streams, 0)
    with _container(video) as container:
        for packet in packets_of(container, *(container.streams[index] for index in streams)):
            counts[packet.stream_index] += bool(packet.size)
            if counts[packet.stream_index] >= PROBED_PACKETS:
                return {index for index, count in counts.items() if count <= 1}
    return set()


def _seconds(stream: VideoStream) -> float:
    return float((stream.duration or 0) * (stream.time_base or 0))
