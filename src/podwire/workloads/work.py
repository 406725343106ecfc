"""The frame of every controller here: informers mark keys, a reconciler works on them.

What belongs here: how failures of a controller are logged and how fast it works. What must not: what any controller does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from podwire.client.errors import ApiError, Unreachable
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.lib.pace import Pace
from podwire.lib.reconcile import Reconciler

T = TypeVar("T")

ROUND_S = 0.01  # changes of so long are worked on together


class Refused(Exception):
    """The API refused a part of the work; status and Events of the object say it too. To be tried again."""


def reconciler(
    context: Context,
    name: str,
    operate: Callable[[str], Awaitable[float | None]],
    *,
    concurrency: int = 8,
    round_s: float = ROUND_S,
    longest_retry_s: float = 30.0,
) -> Reconciler:
    """Make the reconciler of a controller; ``start`` lets it begin."""
    log = context.log.getChild(name)

    def failed(key: str, error: Exception, attempts: int) -> None:
        # A conflict is how the API says "read again"; an absent server is logged by the informers.
        if isinstance(error, Unreachable) or (isinstance(error, ApiError) and (error.conflict or error.not_found) and attempts < 5):
            log.debug("%s: %s", key, error)
        elif isinstance(error, (ApiError, Refused)):
            log.warning("%s: %s (attempt %d)", key, error, attempts)
        else:
            log.error("%s: %s (attempt %d)", key, error, attempts, exc_info=error)

    return Reconciler(
        operate,
        pace=Pace(round_s, clock=context.clock),
        concurrency=concurrency,
        clock=context.clock,
        random=random.random,
        on_failure=failed,
        keep_done=False,
        longest_retry_s=longest_retry_s,
    )


async def start(context: Context, work: Reconciler, name: str, informers: Sequence[Informer[Any]]) -> None:
    """Wait until all that the controller reads has been listed, then let it work."""
    for informer in informers:
        await informer.synced.wait()
    context.start(work.run(), name)


async def together(actions: Iterable[Callable[[], Awaitable[T]]], *, limit: int = 64, first: int = 4) -> list[T | Exception]:
    """Do independent requests at the same time: four, then sixteen, up to ``limit``, so that what is refused is asked once.

    Returns results and errors in order, as far as it came: after a step with an error, no further step is taken.
    """
    left = list(actions)
    done: list[T | Exception] = []
    size = first
    while left:
        step, left = left[:size], left[size:]
        results = await asyncio.gather(*(action() for action in step), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
            done.append(result)
        if any(isinstance(result, Exception) for result in results):
            break
        size = min(limit, size * 4)
    return done
