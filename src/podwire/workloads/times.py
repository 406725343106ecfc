"""Times as the API writes them: RFC 3339 in UTC, whole seconds (or microseconds where a field has them)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NEVER = datetime.min.replace(tzinfo=UTC)


def stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse(text: str | None) -> datetime | None:
    """Give the time, None for an absent one. Raises ValueError for what is not a time."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def seconds_left(since: str | None, duration_s: float, now: datetime) -> float:
    """Give how much of a duration that began at ``since`` is left, at least 0; an absent beginning counts as now."""
    began = parse(since) or now
    return max(0.0, (began + timedelta(seconds=duration_s) - now).total_seconds())
