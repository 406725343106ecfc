"""How much room there is where a folder lies.

A folder counts as full before its last byte is written, so that what goes wrong can still be said where it is kept.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FULL: Final = 1 << 20
"""With fewer bytes than these left a folder is full."""


def room(folder: str | Path) -> int:
    """How many bytes the user can still write there; none where there is no room for a further file. Raises OSError."""
    found = os.statvfs(folder)
    if found.f_files and not found.f_favail:  # without a limit of their own files are not counted
        return 0
    return found.f_bavail * found.f_frsize


def is_full(folder: str | Path) -> bool:
    """Whether there is no room left. A folder that is not there is not full."""
    try:
        return room(folder) < FULL
    except OSError:
        return False
