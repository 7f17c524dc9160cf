"""glibc keeps the memory that a training frees, instead of giving it back to the system and asking for it again."""

import ctypes
import sys

# Of malloc.h: parameter and value. Each batch's arrays are of many megabytes, which malloc maps anew by default.
SETTINGS = {-4: 0, -1: 2**31 - 1, -2: 2**26, -8: 1}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX


def keep_memory() -> None:
    """Set it for this process, where the C library is glibc; it changes no number."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for parameter, value in SETTINGS.items():
                mallopt(parameter, value)
