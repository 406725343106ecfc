"""How late the event loop is.

A callback that holds the loop makes everything else wait. The watchdog asks to be called every ``INTERVAL_S`` and measures by
how much the call comes late; what is longer than ``LIMIT_S`` is logged, at most once in ten seconds, and the worst is a figure
of the metrics page.
"""

from __future__ import annotations

import asyncio
import logging

INTERVAL_S = 0.1
LIMIT_S = 0.1
_QUIET_S = 10.0


class Watchdog:
    """``worst_s`` and ``late`` (how often the limit was passed) since the start; ``last_s`` is the last measurement. All in seconds."""

    def __init__(self, log: logging.Logger) -> None:
        self.worst_s = self.last_s = 0.0
        self.late = 0
        self._log = log
        self._said_at = float("-inf")

    async def run(self) -> None:
        """Measure until cancelled. By the loop's own timers: a task that wakes for each would cost an idle node ten times as much."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(INTERVAL_S, self._called, loop, loop.time())
        try:
            await loop.create_future()
        finally:
            self._timer.cancel()

    def _called(self, loop: asyncio.AbstractEventLoop, asked: float) -> None:
        now = loop.time()
        self.last_s = max(0.0, now - asked - INTERVAL_S)
        self.worst_s = max(self.worst_s, self.last_s)
        if self.last_s > LIMIT_S:
            self.late += 1
            if now - self._said_at > _QUIET_S:
                self._said_at = now
                self._log.warning("the event loop was held for %.0f ms", self.last_s * 1000)
        self._timer = loop.call_later(INTERVAL_S, self._called, loop, now)
