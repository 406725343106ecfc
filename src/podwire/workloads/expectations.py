"""What a controller has done and not yet seen.

A table lags behind the API by a watch's delay. A controller that counts Pods right after it made some would make them again. So
it writes down what it is about to do, and decides nothing for that key until the table has shown it, or until it has waited too
long (then something was lost, and what the table says is taken for true).

Pure: time is a parameter.
"""

from __future__ import annotations

LIMIT_S = 30.0


class Expectations:
    """For each key of a controller, the marks (any text) that are still to be seen."""

    def __init__(self) -> None:
        self._open: dict[str, dict[str, float]] = {}
        self._owner: dict[str, str] = {}

    def expect(self, key: str, mark: str, now: float) -> None:
        self._open.setdefault(key, {})[mark] = now + LIMIT_S
        self._owner[mark] = key

    def seen(self, mark: str) -> str | None:
        """Take a mark back, because it was seen or will not come. Gives the key that waited for it, if one did."""
        key = self._owner.pop(mark, None)
        if key is None:
            return None
        marks = self._open[key]
        marks.pop(mark, None)
        if not marks:
            del self._open[key]
        return key

    def waiting(self, key: str, now: float) -> float:
        """Give the seconds until the key need no longer wait; 0.0 if there is nothing to wait for."""
        marks = self._open.get(key)
        if not marks:
            return 0.0
        for mark in [mark for mark, until in marks.items() if until <= now]:
            self.seen(mark)
        return max(marks.values(), default=now) - now

    def forget(self, key: str) -> None:
        for mark in self._open.pop(key, ()):
            self._owner.pop(mark, None)
