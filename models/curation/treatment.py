"""What was done about what is unusual in a source video, in words for the table of clips."""

from models.curation.pace import Pace
from models.video.decode import Noticed
from models.video.read import VideoInfo

SQUARE = 0.01  # share by which a pixel may be wider or higher and still count as square


def describe_treatment(info: VideoInfo, fps: float, noticed: Noticed, pace: Pace) -> str:
    """Words, separated by commas; empty if nothing was done. fps: the rate that was taken for the true one."""
    source = info.source
    done = {
        f"turned by {source.rotation} degrees": source.rotation != 0,
        "mirrored": source.mirrored,
        "pixels made square": abs(source.pixel_aspect - 1) > SQUARE,
        f"tone-mapped from {source.transfer}": source.hdr,
        "colours taken for BT.709": source.assumed_bt709,
        "deinterlaced": noticed.interlaced,
        f"one of {source.video_streams} video streams read": source.video_streams > 1,
        "rate measured": info.measured or fps != info.fps,
        f"start at {source.start:.2f} s counted as 0": source.start != 0,
        f"repeated frames left out, {pace.hold:.2g} for each picture": pace.hold > 1,
        "sampled by time": not pace.even,
        f"cut at {len(noticed.flaws)} damaged parts": bool(noticed.flaws),
    }
    return ", ".join(words for words, was_done in done.items() if was_done)
