"""How values are printed in the cells of a Table: ages, counts, lists.

Pure: the present moment is a parameter. Not here: any kind's columns (``kinds/``).

Source: k8s.io/apimachinery/pkg/util/duration and the printed columns of https://kubernetes.io/docs/reference/kubectl/
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

UNKNOWN = "<unknown>"
NONE = "<none>"


def duration(seconds: float) -> str:
    """Print a length of time as people read it: two units while small, one when large.

    >>> [duration(s) for s in (-5, 30, 119, 120, 185, 600, 5400, 90000, 200000, 9 * 86400, 800 * 86400)]
    ['<invalid>', '30s', '119s', '2m', '3m5s', '10m', '90m', '25h', '2d7h', '9d', '2y70d']
    """
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 60 * 2:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 60 * 3:
        return f"{minutes}m"
    hours = whole // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    return _days(hours)


def _days(hours: int) -> str:
    days = hours // 24
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    years = days // 365
    if years < 8:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"


def instant(text: str | None) -> datetime | None:
    """Read an RFC 3339 time; ``None`` for nothing or what is not a time."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def age(text: str | None, now: datetime) -> str:
    """Print how long ago an RFC 3339 time was, ``<unknown>`` when there is none. ``now`` carries a time zone."""
    moment = instant(text)
    return UNKNOWN if moment is None else duration((now - moment).total_seconds())


def pairs(labels: Mapping[str, str] | None) -> str:
    """Print labels as ``a=1,b=2``, ``<none>`` when there are none."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) if labels else NONE


def selector(value: Mapping[str, Any] | None) -> str:
    """Print a label selector as ``--selector`` takes it: ``app=web,tier in (a,b),!old``; ``<none>`` for one that selects nothing."""
    if not value:
        return NONE
    parts = [(key, f"{key}={one}") for key, one in value.get("matchLabels", {}).items()]
    for requirement in value.get("matchExpressions", ()):
        key, values = requirement.get("key", ""), ",".join(sorted(requirement.get("values", ())))
        match requirement.get("operator"):
            case "In":
                parts.append((key, f"{key} in ({values})"))
            case "NotIn":
                parts.append((key, f"{key} notin ({values})"))
            case "Exists":
                parts.append((key, key))
            case "DoesNotExist":
                parts.append((key, "!" + key))
    return ",".join(text for _, text in sorted(parts))
