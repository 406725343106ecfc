from __future__ import annotations

import pytest

from podwire.lib.pace import Pace


def test_rounds_are_neither_too_close_nor_too_far_apart() -> None:
    now = 0.0
    pace = Pace(1.0, 30.0, clock=lambda: now)
    assert pace.delay() is None
    pace.request()
    assert pace.delay() == 0
    pace.begin()
    assert not pace.requested
    assert pace.delay() == 30
    now = 0.25
    pace.request()
    assert pace.delay() == 0.75
    now = 2.0
    assert pace.delay() == 0
    pace.begin()
    now = 32.0
    assert pace.delay() == 0


def test_without_a_maximum_nothing_is_due_unasked() -> None:
    pace = Pace(1.0)
    pace.request()
    pace.begin()
    assert pace.delay() is None


def test_a_pace_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="minimum"):
        Pace(2.0, 1.0)
