"""Schedules of CronJobs: reading them, and when the next run is.

What belongs here: the five fields and the words with @, as a CronJob takes them. What must not: what runs.

A schedule is walked in whole minutes of real time, which are looked at in the time zone's wall time. So an hour that the clocks leap
over has no runs, and one that comes twice has them twice. If day of month and day of week are both restricted, a day that fits either
one fits.

Pure. Errors are in the words that users of Kubernetes know.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = ((0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, _MONTHS), (0, 6, _DAYS))
_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MINUTE, _FARTHEST = timedelta(minutes=1), timedelta(days=5 * 366)  # a 29th of February is never farther, a 30th never comes
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_duration_parts = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


class BadSchedule(ValueError):
    """What is wrong with a schedule."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Either the sets of the five fields, or ``every`` so often from whenever the last run was."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = True  # day of month or day of week is unrestricted
    every: timedelta | None = None

    def after(self, moment: datetime, zone: tzinfo = UTC) -> datetime | None:
        """Give the first run later than ``moment`` (aware), in UTC; None if there is none within five years."""
        if self.every is not None:
            return moment.astimezone(UTC).replace(microsecond=0) + self.every
        at = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        limit = at + _FARTHEST
        while at <= limit:
            local = at.astimezone(zone)
            if local.month not in self.months:
                at = _later(at, local.replace(day=1, hour=0, minute=0) + timedelta(days=32), zone, first=True)
            elif not self._fits(local):
                at = _later(at, local.replace(hour=0, minute=0) + timedelta(days=1), zone)
            elif local.hour not in self.hours:
                at += timedelta(minutes=60 - local.minute)
            elif local.minute not in self.minutes:
                at += _MINUTE
            else:
                return at
        return None

    def _fits(self, local: datetime) -> bool:
        month, week = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (month and week) if self.any_day else (month or week)


def _later(at: datetime, wall: datetime, zone: tzinfo, *, first: bool = False) -> datetime:
    """Give the moment that the wall clock shows so, but surely a later one than ``at``. ``first``: of that month."""
    moment = (wall.replace(day=1) if first else wall).replace(tzinfo=zone, fold=0).astimezone(UTC)
    return max(moment, at + _MINUTE)


def parse(text: str) -> Schedule:
    """Read a schedule. Raises BadSchedule."""
    if not text:
        raise BadSchedule("empty spec string")
    if text.startswith("@every "):
        return Schedule(every=_every(text.removeprefix("@every ")))
    if text.startswith("@"):
        if text not in _WORDS:
            raise BadSchedule(f"unrecognized descriptor: {text}")
        text = _WORDS[text]
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise BadSchedule(f"expected exactly {len(_FIELDS)} fields, found {len(parts)}: [{' '.join(parts)}]")
    minutes, hours, days, months, weekdays = (_field(part, *bounds) for part, bounds in zip(parts, _FIELDS, strict=True))
    return Schedule(minutes, hours, days, months, weekdays, any_day=_is_star(parts[2]) or _is_star(parts[4]))


def _is_star(field: str) -> bool:
    return any(part.split("/")[0] in ("*", "?") for part in field.split(","))


def _field(text: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    return frozenset(number for part in text.split(",") if part for number in _range(part, low, high, names))


def _range(text: str, low: int, high: int, names: dict[str, int]) -> range:
    span, *steps = text.split("/")
    ends = span.split("-")
    if ends[0] in ("*", "?"):
        start, end = low, high
    else:
        if len(ends) > 2:
            raise BadSchedule(f"too many hyphens: {text}")
        start = _number(ends[0], names)
        end = _number(ends[1], names) if len(ends) == 2 else (high if steps else start)
    if len(steps) > 1:
        raise BadSchedule(f"too many slashes: {text}")
    step = _number(steps[0], {}) if steps else 1
    if start < low:
        raise BadSchedule(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise BadSchedule(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise BadSchedule(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise BadSchedule(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step)


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if re.fullmatch(r"-[0-9]+", text):
        raise BadSchedule(f"negative number ({int(text)}) not allowed: {text}")
    if not re.fullmatch(r"\+?[0-9]{1,9}", text):
        raise BadSchedule(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _every(text: str) -> timedelta:
    parts = _duration_parts.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadSchedule(f'failed to parse duration @every {text}: time: invalid duration "{text}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return timedelta(seconds=max(1, int(min(seconds, 1e9))))
