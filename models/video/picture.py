"""The picture of a decoded frame as a viewer sees it: upright, square pixels, RGB of BT.709, no combs of two fields."""

import struct
from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream

from models.geometry import Size

HD_WIDTH, HD_HEIGHT = 1280, 577  # pixels of the stored frame from which untagged colours are BT.709, not BT.601
WHITE = 203.0  # nits; reference white of HDR (ITU-R BT.2408), which becomes the white of BT.709
PEAK = 1000.0 / WHITE  # of HDR, in units of WHITE; what is brighter is clipped
KNEE = 0.9  # in units of WHITE; brighter light is compressed so that PEAK becomes 1
DISPLAY_GAMMA = 2.4  # of a display for BT.709 (ITU-R BT.1886)
UNSPECIFIED = 2  # FFmpeg's number for an untagged matrix, transfer or primaries

UNMARKED = {"ffvhuff", "huffyuv", "magicyuv", "mjpeg", "png", "qtrle", "utvideo"}  # codecs without a mark of fields
_FIELD_ORDERS = {2: "tff", 3: "bff", 4: "tff", 5: "bff"}  # by FFmpeg's numbers, as its writers mean them

# linear light of BT.2020 to that of BT.709 (ITU-R BT.2087)
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMA_BT2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)

Hdr = Literal["pq", "hlg"]


class Orientation(NamedTuple):
    """How the stored frame becomes upright: rows and columns are exchanged first, then the frame is flipped."""

    transposed: bool
    flip_x: bool
    flip_y: bool

    @property
    def rotation(self) -> int:
        """Clockwise degrees, 0 to 270, by which the stored frame is turned, after it was mirrored left to right."""
        if self.transposed:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    @property
    def mirrored(self) -> bool:
        return self.transposed ^ self.flip_x ^ self.flip_y


def orientation(frame: VideoFrame) -> Orientation:
    """By the display matrix; angles other than quarter turns are taken as the nearest one.

    A frame without one has that which `marked` has carried to it.
    """
    matrix = _matrix_of(frame) or frame.opaque
    if not isinstance(matrix, bytes):
        return Orientation(False, False, False)
    a, b, _, c, d = struct.unpack("=9i", matrix[:36])[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, c < 0, b < 0)
    return Orientation(False, a < 0, d < 0)


def _matrix_of(frame: VideoFrame) -> bytes | None:
    # PyAV's types take side data for a mapping
    return next((bytes(data) for data in frame.side_data if data.type == Type.DISPLAYMATRIX), None)  # type: ignore[arg-type, attr-defined]


def display_size(frame: VideoFrame, stream: VideoStream) -> Size:
    """Width and height as displayed, after rotation and pixel aspect."""
    aspect = stream.sample_aspect_ratio or 1
    width, height = max(1, round(frame.width * aspect)), frame.height
    return (height, width) if orientation(frame).transposed else (width, height)


def hdr_of(frame: VideoFrame) -> Hdr | None:
    """The transfer of high dynamic range that the frame is tagged with."""
    kinds: dict[int, Hdr] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
    return kinds.get(frame.color_trc)


def assumes_bt709(frame: VideoFrame) -> bool:
    """The frame has YUV colours without a matrix, and is HD: FFmpeg would take it for BT.601."""
    untagged = frame.colorspace == UNSPECIFIED and not frame.format.is_rgb
    return untagged and (frame.width >= HD_WIDTH or frame.height >= HD_HEIGHT)


def upright(frame: VideoFrame, size: Size) -> np.ndarray:
    """The frame (H, W, 3) uint8 as displayed, scaled to `size` (width and height as displayed)."""
    turned = orientation(frame)
    width, height = size[::-1] if turned.transposed else size
    shrinks = width * height < frame.width * frame.height
    how = Interpolation.AREA if shrinks else Interpolation.BICUBIC
    hdr = hdr_of(frame)
    image = frame.reformat(
        width=width,
        height=height,
        format="rgb48le" if hdr else "rgb24",
        interpolation=how,
        src_colorspace=_matrix(frame, hdr),
    ).to_ndarray()
    if hdr:
        image = tone_mapped(image, hdr)
    if turned.transposed:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: -1 if turned.flip_y else 1, :: -1 if turned.flip_x else 1])


def tone_mapped(image: np.ndarray, hdr: Hdr) -> np.ndarray:
    """HDR frames (…, 3) uint16 of BT.2020 as BT.709 (…, 3) uint8.

    Reference white becomes white. Light below KNEE keeps its ratio; brighter light is compressed, at constant hue.
    """
    light = _light(hdr)[image]
    if hdr == "hlg":  # the display's light grows with the luminance of the scene, for a peak of 1000 nits
        luminance = light @ _LUMA_BT2020
        light *= (PEAK * np.maximum(luminance, 1e-6) ** 0.2)[..., None]
    light = np.maximum(light @ _BT2020_TO_BT709.T, 0)
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    over = np.clip((brightest - KNEE) / (PEAK - KNEE), 0, 1)
    steep = (PEAK - KNEE) / (1 - KNEE)  # the curve goes on at the knee without a kink
    compressed = KNEE + (1 - KNEE) * steep * over / (1 + (steep - 1) * over)
    light *= np.where(brightest > KNEE, compressed / brightest, 1)
    return np.rint(255 * np.clip(light, 0, 1) ** (1 / DISPLAY_GAMMA)).astype(np.uint8)


def deinterlaced(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """As many frames, in which those that are marked interlaced are replaced by progressive ones (FFmpeg's bwdif).

    A frame depends on itself and on the frames right beside it.
    """
    fields: _Fields | None = None
    previous = None
    for frame in frames:
        if fields and not fields.fits(frame):
            yield from fields.put(None)
            fields = previous = None
        if fields is None and frame.interlaced_frame:
            fields = _Fields(frame)
            if previous is not None and fields.fits(previous):
                yield from fields.put(previous, seen=True)
        if fields:
            yield from fields.put(frame)
        else:
            previous = frame
            yield frame
    if fields:
        yield from fields.put(None)


def marked(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[VideoFrame]:
    """The frames with marks that FFmpeg does not set.

    A display matrix within the video holds until the next key frame. Where the container says that frames are
    interlaced and the codec has no mark of its own, they are marked interlaced.
    """
    matrix = None
    for frame in _fields_marked(frames, stream):
        matrix = _matrix_of(frame) or (None if frame.key_frame else matrix)
        frame.opaque = matrix
        yield frame


def _fields_marked(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[VideoFrame]:
    order = _FIELD_ORDERS.get(stream.codec_context.field_order)
    if order is None or stream.codec_context.codec.name not in UNMARKED:
        yield from frames
        return
    graph, kind = Graph(), None
    for frame in frames:
        if kind != (kind := (frame.width, frame.height, frame.format.name)):
            graph = _graph(frame, "setfield", order)
        graph.push(frame)
        done = graph.vpull()
        done.pts, done.time_base = frame.pts, frame.time_base
        yield done


def _graph(like: VideoFrame, name: str, options: str) -> Graph:
    """One filter for frames of this size and format."""
    graph = Graph()
    buffer = graph.add_buffer(width=like.width, height=like.height, format=like.format, time_base=like.time_base)
    middle, sink = graph.add(name, options), graph.add("buffersink")
    buffer.link_to(middle)
    middle.link_to(sink)
    graph.configure()
    return graph


class _Fields:
    """FFmpeg's deinterlacer. It gives one frame for each, in order, a frame later; only times are copied by hand."""

    def __init__(self, like: VideoFrame):
        self._kind = like.width, like.height, like.format.name
        self._graph = _graph(like, "bwdif", "mode=send_frame:deint=interlaced")
        self._inside: deque[tuple[VideoFrame, bool]] = deque()

    def fits(self, frame: VideoFrame) -> bool:
        return (frame.width, frame.height, frame.format.name) == self._kind

    def put(self, frame: VideoFrame | None, seen: bool = False) -> Iterator[VideoFrame]:
        """Give a frame, or None at the end; get those that are done. `seen`: it is a neighbour only, not wanted."""
        self._graph.push(frame)
        if frame is not None:
            self._inside.append((frame, seen))
        while self._inside:
            try:
                done = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            source, unwanted = self._inside.popleft()
            done.pts, done.time_base, done.opaque = source.pts, source.time_base, source.opaque
            if not unwanted:
                yield done


def _matrix(frame: VideoFrame, hdr: Hdr | None) -> int | None:
    if assumes_bt709(frame) and not hdr:
        return Colorspace.ITU709
    if frame.colorspace == UNSPECIFIED and (hdr or frame.color_primaries == ColorPrimaries.BT2020):
        return Colorspace.BT2020
    return None


@cache
def _light(hdr: Hdr) -> np.ndarray:
    """Linear light for each of 65536 values: of the display in units of WHITE (pq), of the scene in 0..1 (hlg)."""
    signal = np.arange(65536) / 65535
    if hdr == "pq":  # SMPTE ST 2084
        power = signal ** (32 / 2523)
        light = np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)
        return (10_000 / WHITE * light ** (8192 / 1305)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # ARIB STD-B67
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
