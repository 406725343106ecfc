from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import cron

NEW_YORK = ZoneInfo("America/New_York")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("schedule", "moment", "following"),
    [
        ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
        ("* * * * *", "2026-01-01T00:00:59.9Z", "2026-01-01T00:01:00Z"),
        ("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("30 4 * jan-mar mon-fri", "2026-03-31T05:00:00Z", "2027-01-01T04:30:00Z"),
        ("0 0 13 * 5", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z"),  # the 13th or a Friday
        ("0 0 */2 * 5", "2026-02-01T00:00:00Z", "2026-02-13T00:00:00Z"),  # a star: both
        ("5-10/5,50 1,2 ? ? ?", "2026-02-01T01:10:00Z", "2026-02-01T01:50:00Z"),
        ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("@every 1h30m", "2026-01-01T00:00:07Z", "2026-01-01T01:30:07Z"),
        ("0 12 1 1 *", "2026-12-31T23:00:00Z", "2027-01-01T12:00:00Z"),
    ],
)
def test_the_next_time(schedule: str, moment: str, following: str) -> None:
    assert cron.parse(schedule).after(at(moment)) == at(following)


def test_a_day_that_never_comes() -> None:
    assert cron.parse("0 0 30 2 *").after(at("2026-01-01T00:00:00Z")) is None


def test_wall_time_that_is_leapt_over_or_comes_twice() -> None:
    early = cron.parse("30 2 * * *")
    assert early.after(at("2026-03-08T00:00:00-05:00"), NEW_YORK) == at("2026-03-09T02:30:00-04:00")
    twice = cron.parse("30 1 * * *")
    first = twice.after(at("2026-11-01T00:00:00-04:00"), NEW_YORK)
    assert first == at("2026-11-01T01:30:00-04:00")
    assert twice.after(first, NEW_YORK) == at("2026-11-01T01:30:00-05:00")
    assert cron.parse("0 9 * * *").after(at("2026-07-01T00:00:00Z"), NEW_YORK) == at("2026-07-01T13:00:00Z")


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("", "empty spec string"),
        ("* *", "expected exactly 5 fields, found 2: [* *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("9-3 * * * *", "beginning of range (9) beyond end of range (3): 9-3"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@often", "unrecognized descriptor: @often"),
        ("@every soon", 'failed to parse duration @every soon: time: invalid duration "soon"'),
    ],
)
def test_what_is_wrong_is_said(schedule: str, words: str) -> None:
    with pytest.raises(cron.BadSchedule) as error:
        cron.parse(schedule)
    assert str(error.value) == words


FIELDS = st.tuples(
    st.sampled_from(["*", "*/7", "3", "10-20", "59"]),
    st.sampled_from(["*", "*/5", "0", "2", "22-23"]),
    st.sampled_from(["*", "1", "15,31", "*/10"]),
    st.sampled_from(["*", "2", "jun-aug", "11"]),
    st.sampled_from(["*", "0", "mon-wed"]),
)


def _slow(schedule: cron.Schedule, moment: datetime, zone: ZoneInfo, limit: datetime) -> datetime | None:
    found = moment.astimezone(UTC).replace(second=0, microsecond=0)
    while found < limit:
        found += timedelta(minutes=1)
        local = found.astimezone(zone)
        month, week = local.day in schedule.days, local.isoweekday() % 7 in schedule.weekdays
        day = (month and week) if schedule.any_day else (month or week)
        if local.month in schedule.months and day and local.hour in schedule.hours and local.minute in schedule.minutes:
            return found
    return None


@given(
    FIELDS,
    st.integers(0, 5 * 366 * 24 * 3600),
    st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
)
def test_it_is_the_first_minute_that_fits(fields: tuple[str, ...], seconds: int, zone: str) -> None:
    schedule, where, begin = cron.parse(" ".join(fields)), ZoneInfo(zone), datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    limit = begin + timedelta(days=3)
    expected = _slow(schedule, begin, where, limit)
    found = schedule.after(begin, where)
    if expected is not None:
        assert found == expected
    else:
        assert found is None or found > limit
