"""Settings for memory: of the C library, and of Python's garbage collection."""

import ctypes
import gc
import sys


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory. Returning large blocks took up to half of the time of a training step."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            m_trim_threshold, m_mmap_max = -1, -4
            libc.mallopt(m_mmap_max, 0)
            libc.mallopt(m_trim_threshold, 2**31 - 1)


def collect_garbage_rarely() -> None:
    """Look for reference cycles a hundred times more rarely than by default.

    A stage makes millions of objects for its items and nearly no cycles. Looking for cycles took a quarter of its time.
    """
    gc.freeze()
    gc.set_threshold(70_000, 20, 20)
