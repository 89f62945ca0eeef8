"""Write videos: H.264 in MP4, or GIF. Frames are (T, H, W, 3) uint8 RGB."""

import io
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

# without cpu-independent, x264 gives other bytes from run to run
_H264 = {"crf": "12", "preset": "veryfast", "x264-params": "cpu-independent=1"}


def encode_mp4(frames: np.ndarray, fps: float) -> bytes:
    """H.264 at high quality, playable everywhere; the same frames give the same bytes.

    Args:
        frames: (T, H, W, 3) uint8 with even H and W.

    Raises:
        ValueError: the frames have another shape or type, or an odd side (4:2:0 colour needs even ones).
    """
    _check_frames(frames)
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 needs even sides, got {width}x{height}; crop or pad by one pixel")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        rate = Fraction(min(max(fps, 1.0), 240.0)).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options=_H264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_gif(frames: np.ndarray, fps: float, colours: int | None = None) -> bytes:
    """An endless GIF of (T, H, W, 3) uint8 frames; equal ones in a row become one that is shown for longer.

    Args:
        colours: None gives each frame the palette that suits it best; a number, one palette of so many colours for the
            whole, which is far smaller and faster.

    Raises:
        ValueError: the frames have another shape or type.
    """
    _check_frames(frames)
    first, *rest = (Image.fromarray(image) for image in frames)
    if colours is not None:
        every = Image.fromarray(np.concatenate(frames[:, ::2, ::2]))
        palette = every.quantize(colours, method=Image.Quantize.FASTOCTREE)
        first, *rest = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in (first, *rest))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=round(1000 / max(fps, 1.0)), loop=0)
    return buffer.getvalue()


def _check_frames(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames must be (T, H, W, 3) uint8 with T >= 1, got {frames.shape} {frames.dtype}")
