"""Numbers of Pods that may be given as a share: ``3`` or ``25%``.

Pure.
"""

from __future__ import annotations

import math


def share_up(value: int | str, total: int) -> int:
    """Give the number; a share is rounded up."""
    return value if isinstance(value, int) else math.ceil(_exact(value, total))


def share_down(value: int | str, total: int) -> int:
    """Give the number; a share is rounded down."""
    return value if isinstance(value, int) else math.floor(_exact(value, total))


def _exact(value: str, total: int) -> float:
    return int(value.rstrip("%") or 0) * total / 100 if value.endswith("%") else int(value)
