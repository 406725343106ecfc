"""The supervisor's and door's loop: wait for descriptors and for moments, call back. One thread, no asyncio.

It stays this small because the supervisor forks its children from inside it: an event loop or a thread of a library would
not survive that whole.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Timer:
    """A moment to come; ``cancel`` makes nothing of it."""

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback:
            callback()


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = True

    def on_readable(self, descriptor: int, callback: Callback) -> None:
        """Call back whenever there is something to read (for a pidfd: when the process has ended)."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def forget(self, descriptor: int) -> None:
        """Watch the descriptor no longer. Call it before closing; forgetting twice does no harm."""
        try:
            self._selector.unregister(descriptor)
        except (KeyError, ValueError):
            return

    def after(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Serve until ``stop``. What a callback raises ends the loop."""
        while self._running:
            for key, _ in self._selector.select(self._patience()):
                # An earlier callback of this round may have dropped it.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2].fire()

    def _patience(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
