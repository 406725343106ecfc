"""Who is served next when more is asked than can be done at once: users take turns.

A request is *present* from its head to its answer, and takes a *seat* while it is worked on. As long as there are seats nobody waits. When
there are none, each user has a queue, and each seat that becomes free goes to the next user, so that who asks for much waits for himself
alone. Who has too many requests present is asked to come again (429). What keeps the cluster alive (``is_exempt``) takes neither turn nor
seat. Each step costs the same, however many wait.

A body is read before a seat is taken: who sends slowly keeps nobody from his. A request that waits for a program of a user gives up its
seat meanwhile (``away``).

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextvars import ContextVar

from podwire.apiserver import status
from podwire.apiserver.authentication import User
from podwire.apiserver.requests import Target

SEATS = 128  # requests worked on at once; most of them wait for the disk, together
PRESENT = 400  # requests that one user may have
LONG_BODIES = 32  # long bodies that one user may have
LONG_FROM = 256 * 1024  # bytes of a long body

_NODES = "system:nodes"


def is_exempt(user: User, target: Target) -> bool:
    """Say whether a request takes no turn: nodes say that they live, and how they and their Pods are."""
    return _NODES in user.groups and (target.subresource == "status" or target.plural == "leases")


class _Flow:
    """The requests of one user."""

    __slots__ = ("bodies", "name", "present", "queue")

    def __init__(self, name: str) -> None:
        self.name = name
        self.present = 0
        self.bodies: asyncio.Semaphore | None = None
        self.queue: deque[Visit] = deque()


class Visit:
    """One request that is present."""

    __slots__ = ("flow", "has_long_body", "seated", "waiter")

    def __init__(self, flow: _Flow) -> None:
        self.flow = flow
        self.has_long_body = False
        self.seated = False
        self.waiter: asyncio.Future[None] | None = None


class Turns:
    """The seats and the queues. ``arrive``, ``seat`` and ``leave``, in this order; ``leave`` in any case."""

    def __init__(self, seats: int = SEATS, present: int = PRESENT) -> None:
        self._seats = seats
        self._limit = present
        self._flows: dict[str, _Flow] = {}
        self._waiting: deque[_Flow] = deque()  # users with a queue, by turns
        self.present = 0
        self.rejected = 0

    def arrive(self, user: str) -> Visit:
        """Note a request. Raises Failure (429) when its user has too many."""
        flow = self._flows.get(user)
        if flow is None:
            flow = self._flows[user] = _Flow(user)
        if flow.present >= self._limit:
            self.rejected += 1
            raise status.too_many_requests()
        flow.present += 1
        self.present += 1
        return Visit(flow)

    async def take_long_body(self, visit: Visit) -> None:
        """Wait until the user may send another long body."""
        bodies = visit.flow.bodies
        if bodies is None:
            bodies = visit.flow.bodies = asyncio.Semaphore(LONG_BODIES)
        await bodies.acquire()
        visit.has_long_body = True

    async def seat(self, visit: Visit) -> None:
        """Wait for a seat, if there is none."""
        _WORKED_ON.set((self, visit))
        if self._seats:
            self._seats -= 1
            visit.seated = True
            return
        visit.waiter = asyncio.get_running_loop().create_future()
        if not visit.flow.queue:
            self._waiting.append(visit.flow)
        visit.flow.queue.append(visit)
        await visit.waiter

    def leave(self, visit: Visit) -> None:
        """End a request; its seat, if it has one, goes to whose turn it is."""
        flow = visit.flow
        flow.present -= 1
        self.present -= 1
        if visit.has_long_body and flow.bodies is not None:
            flow.bodies.release()
        if not flow.present:
            self._flows.pop(flow.name, None)
        self.rise(visit)

    def rise(self, visit: Visit) -> None:
        """Give up a seat, if the request has one."""
        if visit.seated:
            visit.seated = False
            self._seats += 1
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting and self._seats:
            flow = self._waiting.popleft()
            visit = flow.queue.popleft()
            if flow.queue:
                self._waiting.append(flow)
            if visit.waiter is not None and not visit.waiter.done():  # its client may have gone
                self._seats -= 1
                visit.seated = True
                visit.waiter.set_result(None)


_WORKED_ON: ContextVar[tuple[Turns, Visit] | None] = ContextVar("worked_on", default=None)


@contextlib.asynccontextmanager
async def away() -> AsyncIterator[None]:
    """Give up the seat of the request that is worked on as long as somebody else is waited for; then wait for one again."""
    turns, visit = _WORKED_ON.get() or (None, None)
    if turns is None or visit is None or not visit.seated:
        yield
        return
    turns.rise(visit)
    try:
        yield
    except asyncio.CancelledError:
        raise  # its client has gone: it needs no seat any more
    except BaseException:
        await turns.seat(visit)
        raise
    await turns.seat(visit)
