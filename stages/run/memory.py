"""How the C library handles memory that was freed."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: giving large blocks back at every step took up to half of a CPU step's time."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            m_trim_threshold, m_mmap_max = -1, -4
            libc.mallopt(m_mmap_max, 0)
            libc.mallopt(m_trim_threshold, 2**31 - 1)
