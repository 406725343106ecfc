"""Events: what happened to an object, for people.

What belongs here: writing them without ever delaying or failing the one who reports, and folding repeats into one. What must
not: the words (they are the caller's), decisions made from Events.

How it works: ``event`` puts a report into a bounded queue and returns. One task sends: the same report about the same object is
one Event whose ``count`` grows. It rests in between, longer where sending takes long: when everything happens at once, what
people are told of it waits for what is done. An object that is reported on too often (25 at once, then one in five minutes,
client-go's figures) loses the surplus, and when the API server cannot be reached, the oldest reports are dropped. Losses are
counted and logged, never raised.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from podwire.client.api import Client
from podwire.client.errors import ApiError, Unreachable
from podwire.objects import codec, resources
from podwire.objects.core import ObjectReference
from podwire.objects.meta import Object

QUEUE = 4096  # reports that wait
REST, LONGEST_REST_S = 6.0, 2.0  # after a report that took a second, six seconds' rest, but not longer than this
REMEMBERED = 4096  # reports whose repeats are folded; objects whose allowance is known
BURST, REFILL_S = 25.0, 300.0
MESSAGE = 1024  # bytes, the API's limit
_RESOURCES = {resource.type: resource for resource in resources.ALL}


def reference(about: Object, field_path: str = "") -> ObjectReference:
    """Give the reference to an object, whose own ``kind`` may be empty (an item of a list has none)."""
    resource = next((_RESOURCES[base] for base in type(about).__mro__ if base in _RESOURCES), None)
    return ObjectReference(
        api_version=about.api_version or (resource.api_version if resource else ""),
        kind=about.kind or (resource.kind if resource else ""),
        namespace=about.metadata.namespace,
        name=about.metadata.name,
        uid=about.metadata.uid,
        resource_version=about.metadata.resource_version,
        field_path=field_path,
    )


@dataclass(frozen=True)
class _Report:
    about: ObjectReference
    type: str
    reason: str
    message: str
    at: str

    @property
    def sameness(self) -> tuple[str, ...]:
        about = self.about
        return (about.kind, about.namespace, about.name, about.uid, about.field_path, self.type, self.reason, self.message)


@dataclass
class _Written:
    name: str
    namespace: str
    count: int


class EventRecorder:
    """Writes the Events of one component. ``host`` is the node, if it is a node's component.

    now gives wall-clock time; clock monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        component: str,
        host: str = "",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        log: logging.Logger | None = None,
    ) -> None:
        self._client, self._component, self._host = client, component, host
        self._now, self._clock = now, clock
        self._log = log or logging.getLogger("podwire.client")
        self._queue: deque[_Report] = deque()
        self._written: OrderedDict[tuple[str, ...], _Written] = OrderedDict()
        self._allowance: OrderedDict[tuple[str, ...], tuple[float, float]] = OrderedDict()
        self._sender: asyncio.Task[None] | None = None
        self._last_name = 0
        self.dropped = 0

    def event(self, about: Object | ObjectReference, type: str, reason: str, message: str, field_path: str = "") -> None:  # noqa: A002
        """Report something. ``type`` is Normal or Warning, ``reason`` a word in camel case. Never blocks, never raises."""
        involved = about if isinstance(about, ObjectReference) else reference(about, field_path)
        report = _Report(involved, type, reason, message[:MESSAGE], f"{self._now():%Y-%m-%dT%H:%M:%SZ}")
        if report.sameness not in self._written and not self._allowed(involved):
            self.dropped += 1
            return
        if len(self._queue) >= QUEUE:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(report)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    async def flush(self) -> None:
        """Wait until what was reported so far has been sent or dropped."""
        while self._sender is not None and not self._sender.done():
            await asyncio.wait([self._sender])

    def _allowed(self, about: ObjectReference) -> bool:
        source = (about.kind, about.namespace, about.name, about.uid)
        now = self._clock()
        left, at = self._allowance.pop(source, (BURST, now))
        left = min(BURST, left + (now - at) / REFILL_S)
        self._allowance[source] = (max(0.0, left - 1.0), now)
        if len(self._allowance) > REMEMBERED:
            self._allowance.popitem(last=False)
        return left >= 1.0

    async def _send_all(self) -> None:
        while self._queue:
            report = self._queue.popleft()
            began = self._clock()
            try:
                await self._send(report)
            except (ApiError, Unreachable, codec.Undecodable) as error:
                self.dropped += 1
                self._log.debug("an Event was lost: %s", error)
            if self._queue:
                await asyncio.sleep(min(LONGEST_REST_S, REST * (self._clock() - began)))

    async def _send(self, report: _Report) -> None:
        former = self._written.pop(report.sameness, None)
        if former is not None:
            former.count += 1
            patch: dict[str, Any] = {"count": former.count, "lastTimestamp": report.at, "message": report.message}
            try:
                await self._client.patch(resources.EVENTS, former.name, former.namespace, patch)
            except ApiError as error:
                if not error.not_found:
                    raise
                former = None  # expired: begin a new one
        if former is None:
            former = await self._create(report)
        self._written[report.sameness] = former
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    async def _create(self, report: _Report) -> _Written:
        about = report.about
        namespace = about.namespace or "default"
        self._last_name = max(self._last_name + 1, int(self._now().timestamp() * 1e9))
        name = f"{about.name}.{self._last_name:x}"
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": codec.tree(about),
            "reason": report.reason,
            "message": report.message,
            "type": report.type,
            "source": {"component": self._component} | ({"host": self._host} if self._host else {}),
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": report.at,
            "lastTimestamp": report.at,
            "count": 1,
        }
        await self._client.create(resources.EVENTS, body, namespace)
        return _Written(name, namespace, 1)
