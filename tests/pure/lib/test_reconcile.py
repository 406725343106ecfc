from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import virtual_time
from podwire.lib.pace import Pace
from podwire.lib.reconcile import Phase, Reconciler


async def through(reconciler: Reconciler, seconds: float) -> None:
    task = asyncio.create_task(reconciler.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def reconciler(operate: Callable[[str], Awaitable[float | None]], **options: Any) -> Reconciler:
    return Reconciler(operate, clock=virtual_time.clock, **options)


def test_a_failure_is_retried_later_and_later_until_it_succeeds() -> None:
    times: list[float] = []

    async def operate(key: str) -> None:
        times.append(virtual_time.clock())
        if len(times) < 5:
            raise OSError("no")

    async def scenario() -> None:
        told: list[int] = []
        work = reconciler(operate, first_retry_s=1.0, longest_retry_s=3.0, on_failure=lambda _key, _error, attempts: told.append(attempts))
        work.mark("a")
        await through(work, 2.5)
        status = work.status("a")
        assert status is not None
        assert (status.phase, status.reason, status.attempts) == (Phase.FAILED, "OSError: no", 2)
        await through(work, 100)
        assert work.status("a").phase is Phase.DONE
        assert work.failures() == {}
        assert told == [1, 2, 3, 4]

    virtual_time.run(scenario())
    assert [round(after - before) for before, after in itertools.pairwise(times)] == [1, 2, 3, 3]


def test_a_mark_does_not_shorten_the_back_off() -> None:
    times: list[float] = []

    async def operate(key: str) -> None:
        times.append(virtual_time.clock())
        raise OSError("no")

    async def scenario() -> None:
        work = reconciler(operate, first_retry_s=10)
        work.mark("a")
        task = asyncio.create_task(work.run())
        for _ in range(9):
            await asyncio.sleep(1)
            work.mark("a")
        task.cancel()

    virtual_time.run(scenario())
    assert len(times) == 1


def test_a_key_marked_while_it_is_worked_on_is_worked_on_once_more_and_never_twice_at_once() -> None:
    log: list[str] = []

    async def scenario() -> None:
        async def operate(key: str) -> None:
            log.append("begin")
            work.mark("a") if len(log) == 1 else None
            await asyncio.sleep(1)
            log.append("end")

        work = reconciler(operate, concurrency=4)
        work.mark("a")
        work.mark("a")
        await through(work, 10)
        assert work.idle

    virtual_time.run(scenario())
    assert log == ["begin", "end", "begin", "end"]


def test_concurrency_is_a_limit_and_what_runs_ends_with_the_reconciler() -> None:
    virtual_time.run(_concurrency(3))


async def _concurrency(limit: int) -> None:
    running: set[str] = set()
    most = 0

    async def operate(key: str) -> None:
        nonlocal most
        running.add(key)
        most = max(most, len(running))
        try:
            await asyncio.sleep(1)
        finally:
            running.discard(key)

    work = reconciler(operate, concurrency=limit)
    for number in range(10):
        work.mark(str(number))
    await through(work, 3.5)
    assert most == limit
    assert sum(status.phase is Phase.DONE for status in work.statuses().values()) == 9
    assert not running, "what runs is ended with the reconciler"


def test_pruning_waits_until_every_source_is_synced() -> None:
    log: list[str] = []

    async def operate(key: str) -> None:
        log.append(key)

    async def prune() -> None:
        log.append("prune")

    async def scenario() -> None:
        work = reconciler(operate, prune=prune, sources=("services", "slices"))
        work.mark("a")
        work.request_prune()
        work.synced("services")
        work.synced("services")
        await through(work, 60)
        assert log == ["a"]
        work.synced("slices")
        await through(work, 60)
        assert log == ["a", "prune"]

    virtual_time.run(scenario())


def test_an_operation_may_ask_to_look_again() -> None:
    times: list[float] = []

    async def operate(key: str) -> float | None:
        times.append(round(virtual_time.clock()))
        return 5.0 if len(times) < 3 else None

    async def scenario() -> None:
        work = reconciler(operate)
        work.mark_after("a", 2)
        work.mark_after("a", 1)
        work.mark_after("b", 3)
        work.forget("b")
        await through(work, 100)

    virtual_time.run(scenario())
    assert times == [1, 6, 11]


def test_rounds_keep_the_pace() -> None:
    times: list[float] = []

    async def operate(key: str) -> None:
        times.append(virtual_time.clock())

    async def scenario() -> None:
        work = reconciler(operate, pace=Pace(1.0, clock=virtual_time.clock), concurrency=10)
        task = asyncio.create_task(work.run())
        for number in range(40):
            work.mark(str(number % 2))
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        task.cancel()

    virtual_time.run(scenario())
    assert sorted({round(time, 1) for time in times}) == [0, 1, 2, 3, 4]


def test_done_keys_need_not_be_kept() -> None:
    async def operate(key: str) -> None:
        pass

    async def scenario() -> None:
        work = reconciler(operate, keep_done=False)
        for number in range(100):
            work.mark(str(number))
        await through(work, 1)
        assert work.statuses() == {}

    virtual_time.run(scenario())
