"""The one place of retry: bring every marked key to the state that is wanted, and try again what failed.

What belongs here: which key is worked on when, back-off, and the state of each key as data. What must not: what the work is.
The work is one coroutine function, ``operate(key)``, which reads what is wanted now and makes it so. Its contract: it is
idempotent; to find that nothing is to do is success; it raises to be tried again; it may return a number of seconds after which
it wants to look again.

How it works: ``mark`` makes a key Pending. A key is worked on by one task at a time; marked meanwhile, it is worked on once
more. A failure waits ``first_retry_s``, then twice as long each time up to ``longest_retry_s``, less a random part, so that
many failures do not come back together; a mark does not shorten that wait (an operation that fails on each change must not
spin), success ends it. ``prune``, which compares all that is wanted with all that is there, first runs when every source has
said that it is synced: before that, what is missing may just not have been read yet.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from podwire.lib.pace import Pace


class Phase(enum.Enum):
    PENDING = "Pending"
    DONE = "Done"
    FAILED = "Failed"


@dataclass(frozen=True)
class Status:
    """The state of one key. ``attempts`` counts failures in a row; ``retry_at`` is on the reconciler's clock."""

    phase: Phase
    reason: str = ""
    attempts: int = 0
    retry_at: float = 0.0


_PENDING, _DONE = Status(Phase.PENDING), Status(Phase.DONE)
PRUNE = "(prune)"


class Reconciler:
    """Works on marked keys until cancelled. All methods belong to the event loop's thread.

    operate: see the head of this file. on_failure(key, error, attempts) is told each failure, to log it. random gives a number from 0 to 1.
    concurrency: how many keys are worked on at the same time. keep_done: whether keys that are done keep a status (without, the table of
    statuses holds only what is pending or failed, and memory does not grow with the keys ever seen).
    """

    def __init__(
        self,
        operate: Callable[[str], Awaitable[float | None]],
        *,
        pace: Pace | None = None,
        prune: Callable[[], Awaitable[None]] | None = None,
        sources: Iterable[str] = (),
        concurrency: int = 1,
        first_retry_s: float = 0.05,
        longest_retry_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = lambda: 0.0,
        on_failure: Callable[[str, Exception, int], None] | None = None,
        keep_done: bool = True,
    ) -> None:
        self._operate, self._prune, self._on_failure = operate, prune, on_failure
        self._pace = pace or Pace(0.0, clock=clock)
        self._unsynced = set(sources)
        self._concurrency = concurrency
        self._first_retry_s, self._longest_retry_s = first_retry_s, longest_retry_s
        self._clock, self._random, self._keep_done = clock, random, keep_done
        self._status: dict[str, Status] = {}
        self._attempts: dict[str, int] = {}
        self._ready: OrderedDict[str, None] = OrderedDict()  # marked, for the next round, in the order of marking
        self._round: OrderedDict[str, None] = OrderedDict()  # what is left of this round
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()  # marked while running
        self._due: dict[str, float] = {}
        self._later: list[tuple[float, str]] = []  # a heap; an entry that is not in _due is void
        self._wake = asyncio.Event()
        if prune is not None and not self._unsynced:
            self.mark(PRUNE)

    # What the owner calls ----------------------------------------------------------------------------------------------

    def mark(self, key: str) -> None:
        """Say that what is wanted for the key may have changed."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._attempts or key not in self._due:
            self._enqueue(key)

    def mark_after(self, key: str, delay_s: float) -> None:
        """Mark the key when the delay has passed; an earlier appointment of the key stands."""
        due = self._clock() + delay_s
        if key not in self._due or due < self._due[key]:
            self._due[key] = due
            heapq.heappush(self._later, (due, key))
            self._wake.set()

    def synced(self, source: str) -> None:
        """Say that a source has delivered all that it has. The last one lets ``prune`` run. Raises KeyError for an unknown source."""
        if source not in self._unsynced:
            return
        self._unsynced.discard(source)
        if not self._unsynced and self._prune is not None:
            self.mark(PRUNE)

    def request_prune(self) -> None:
        """Ask for a prune (to repair drift). It waits until all sources are synced."""
        if self._prune is not None and not self._unsynced:
            self.mark(PRUNE)

    def status(self, key: str) -> Status | None:
        return self._status.get(key)

    def statuses(self) -> dict[str, Status]:
        return dict(self._status)

    def failures(self) -> dict[str, Status]:
        return {key: status for key, status in self._status.items() if status.phase is Phase.FAILED}

    def forget(self, key: str) -> None:
        """Drop a key that is gone for good. Work on it that runs goes on."""
        for table in (self._status, self._attempts, self._ready, self._round, self._due):
            table.pop(key, None)
        self._again.discard(key)

    @property
    def idle(self) -> bool:
        """Nothing is marked, nothing runs. Failed keys may wait for their next attempt."""
        return not self._ready and not self._round and not self._running

    async def run(self) -> None:
        """Work until cancelled; then end the work that runs."""
        try:
            while True:
                self._wake.clear()
                wait_s = self._start_what_is_due()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            running = list(self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    # How it works --------------------------------------------------------------------------------------------------------

    def _enqueue(self, key: str) -> None:
        if key not in self._round:
            self._ready[key] = None
        self._status[key] = _PENDING
        self._due.pop(key, None)
        self._pace.request()
        self._wake.set()

    def _start_what_is_due(self) -> float | None:
        """Start tasks; give the seconds until there may be more to start, None for: when something wakes us."""
        self._collect_due()
        waits = [self._later[0][0] - self._clock()] if self._later else []
        if self._ready and not self._round:
            delay = self._pace.delay() or 0.0
            if delay > 0:
                waits.append(delay)
            else:
                self._pace.begin()
                self._round, self._ready = self._ready, self._round
        loop = asyncio.get_running_loop()
        while self._round and len(self._running) < self._concurrency:
            key, _ = self._round.popitem(last=False)
            self._running[key] = loop.create_task(self._work(key))
        if self._ready and not self._round and not waits:
            waits.append(0.0)
        return max(0.0, min(waits)) if waits else None

    def _collect_due(self) -> None:
        now = self._clock()
        while self._later and (self._later[0][0] <= now or self._due.get(self._later[0][1]) != self._later[0][0]):
            due, key = heapq.heappop(self._later)
            if self._due.get(key) != due:
                continue
            if key in self._running:
                del self._due[key]
                self._again.add(key)
            else:
                self._enqueue(key)

    async def _work(self, key: str) -> None:
        again_s: float | None = None
        failure: Exception | None = None
        try:
            if key == PRUNE and self._prune is not None:
                await self._prune()
            else:
                again_s = await self._operate(key)
        except Exception as error:
            failure = error
        finally:
            del self._running[key]
            self._wake.set()
        marked = key in self._again
        self._again.discard(key)
        if failure is not None:
            self._failed(key, failure)
            return
        self._attempts.pop(key, None)
        if marked:
            self._enqueue(key)
            return
        if self._keep_done:
            self._status[key] = _DONE
        else:
            self._status.pop(key, None)
        if again_s is not None:
            self.mark_after(key, again_s)

    def _failed(self, key: str, error: Exception) -> None:
        attempts = self._attempts.get(key, 0) + 1
        self._attempts[key] = attempts
        wait_s = min(self._longest_retry_s, self._first_retry_s * 2.0 ** min(attempts - 1, 60)) * (1.0 - 0.5 * self._random())
        self.mark_after(key, wait_s)
        self._status[key] = Status(Phase.FAILED, f"{type(error).__name__}: {error}", attempts, self._due[key])
        if self._on_failure is not None:
            self._on_failure(key, error, attempts)
