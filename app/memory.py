"""Keep the memory that a step has freed: the next one asks for the same again."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h. Anything that is no glibc (macOS, musl) has another allocator and is left alone.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to hold on to freed memory until the process ends; return whether it has such a setting.

    By default every tensor from 32 MB on is mapped anew from the system and unmapped after use, and each of its pages
    costs a fault: a step of training can spend a quarter of its time in them. The process stays as large as it ever
    was, which is right for a training or a file of predictions and wrong for a server.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(option, value) == 1
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, LARGEST), (TOP_PAD, 64 * 1024 * 1024))
    )
