"""Videos: `read` decodes whatever FFmpeg decodes, `write` encodes MP4 and GIF."""
