"""Numbers that are given out once: what address and port pools are made of.

A pool has two parts. What nobody asked for by number comes from the upper part as long as there is room, so that the lower part stays
free for those who do ask. The random choice is a parameter: ``below(n)`` gives a number from 0 to n - 1.

Pure: no clock, no socket, no random of its own. Not here: what the numbers stand for (``addresses.py``, ``ports.py``).

Source: https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/ (KEP-3070) and
https://kubernetes.io/docs/concepts/services-networking/service/#avoid-nodeport-collisions (KEP-3668)
"""

from __future__ import annotations

from collections.abc import Callable

Below = Callable[[int], int]

# Random tries before a search from a random place: enough until a pool is nearly full.
_TRIES = 16


def static_part(size: int, step: int, least: int, most: int) -> int:
    """Say how many numbers at the low end are kept for those who ask by number: size / step, within bounds, none in a tiny pool."""
    return 0 if size <= least else min(max(least, size // step), most)


class Pool:
    """The numbers from 0 to ``size`` - 1, of which the first ``static`` are given last."""

    def __init__(self, size: int, static: int = 0) -> None:
        self.size = size
        self.static = min(static, size)
        self._taken: set[int] = set()

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._taken)

    def __contains__(self, number: int) -> bool:
        return number in self._taken

    @property
    def free(self) -> int:
        return self.size - len(self._taken)

    def take(self, number: int) -> bool:
        """Take one number. False when somebody has it or there is no such number."""
        if number in self._taken or not 0 <= number < self.size:
            return False
        self._taken.add(number)
        return True

    def give(self, below: Below) -> int | None:
        """Take some free number: from the upper part, else from the lower. ``None`` when all are taken."""
        if not self.free:
            return None
        for first, last in ((self.static, self.size), (0, self.static)):
            number = self._search(first, last, below)
            if number is not None:
                self._taken.add(number)
                return number
        return None

    def release(self, number: int) -> None:
        """Give a number back. One that nobody has is no error."""
        self._taken.discard(number)

    def _search(self, first: int, last: int, below: Below) -> int | None:
        count = last - first
        if count <= 0:
            return None
        start = first
        for _ in range(_TRIES):
            start = first + below(count)
            if start not in self._taken:
                return start
        return next((number for part in (range(start, last), range(first, start)) for number in part if number not in self._taken), None)
