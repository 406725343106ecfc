"""When the next round of work may run.

A round that follows every change at once does the same work many times while changes pour in; one that waits for quiet may wait
for ever. So: a round runs as soon as something asks for it, but no sooner than ``minimum_s`` after the one before began, and, asked
for or not, no later than ``maximum_s`` after it. What must not be here: waiting. The owner asks ``delay()`` and waits itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable


class Pace:
    """``minimum_s`` and ``maximum_s`` are seconds; ``clock`` gives monotonic seconds. The first round is due when first asked for."""

    def __init__(self, minimum_s: float, maximum_s: float = math.inf, clock: Callable[[], float] = lambda: 0.0) -> None:
        if not 0 <= minimum_s <= maximum_s:
            raise ValueError(f"a pace needs 0 <= minimum ({minimum_s}) <= maximum ({maximum_s})")
        self.minimum_s = minimum_s
        self.maximum_s = maximum_s
        self._clock = clock
        self._began: float | None = None
        self._asked = False

    def request(self) -> None:
        """Ask for a round."""
        self._asked = True

    @property
    def requested(self) -> bool:
        return self._asked

    def delay(self) -> float | None:
        """Give the seconds until the next round is due: 0.0 for now, None for never unless somebody asks."""
        if self._began is None:
            return 0.0 if self._asked else None
        passed = self._clock() - self._began
        gap = self.minimum_s if self._asked else self.maximum_s
        return None if math.isinf(gap) else max(0.0, gap - passed)

    def begin(self) -> None:
        """Say that a round begins now: it answers all requests made so far."""
        self._began = self._clock()
        self._asked = False
