"""How the C library's allocator treats memory that was freed, in processes that move bytes in bulk.

glibc gives large blocks back to the kernel when they are freed, and asks for them again a moment later: each piece of a stream is then paid
for with page faults and zeroed pages, several times what its copying costs. With these thresholds a few MiB stay.

Source: mallopt(3)
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
MAPPED: Final = 1024 * 1024  # bytes from which on a block is mapped by itself
KEPT: Final = 4 * 1024 * 1024  # free bytes at the top of the heap that are kept


def keep_freed() -> None:
    """Set the thresholds of this process; other C libraries have none."""
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MAPPED)
        mallopt(_M_TRIM_THRESHOLD, KEPT)
