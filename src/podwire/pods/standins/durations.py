"""Durations as Go writes them, which is how annotations and agnhost's flags have them. Pure; the standard library alone.

Source: https://pkg.go.dev/time#ParseDuration
"""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"\+?(?:0|(?:{_PART.pattern})+)")


def parse_duration(text: str) -> float:
    """Seconds of ``200ms``, ``1m30s`` or ``0``. One below zero is none to us. Raises ValueError."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is no duration such as 200ms, 1.5s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
