"""glibc keeps the memory that a training frees, instead of giving it back to the system and asking for it again."""

import ctypes
import sys

# Of malloc.h: parameter and value.
SETTINGS = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads, because the others' are limited to 64 MB
    -4: 0,  # M_MMAP_MAX: nothing outside of it, which would go back to the system as soon as it is freed
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: nor does the end of the heap, up to 2 GB
    -2: 2**26,  # M_TOP_PAD: the heap grows by 64 MB at once
}


def keep_memory() -> None:
    """Set it for this process, where the C library is glibc; it changes no number.

    A step's tensors have up to 17 MB. By default malloc gives them back and maps them anew in the next step, and the
    system clears each page: half of the time of a step of the Keras CNN on a virtual machine (docs/performance.md).
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for parameter, value in SETTINGS.items():
                mallopt(parameter, value)
