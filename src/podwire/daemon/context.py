"""What an agent is given: its node, a client, configuration, informers, Events, a log, clocks.

One context serves all agents of a process, so that two agents that follow the same resource share one informer. A task started
through the context shares the process's fate: when it raises, the process ends with that reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from podwire.client.api import Client
from podwire.client.events import EventRecorder
from podwire.client.informer import Informer
from podwire.daemon.config import AgentConfig
from podwire.objects.meta import Object
from podwire.objects.resources import Resource

T = TypeVar("T", bound=Object)


class Context:
    """``clock`` gives monotonic seconds, ``now`` wall-clock time in UTC. ``parts`` are the names that must say ``ready``."""

    def __init__(
        self,
        client: Client,
        config: AgentConfig,
        *,
        node: str = "",
        parts: Iterable[str] = (),
        tasks: asyncio.TaskGroup | None = None,
        on_ready: Callable[[], None] = lambda: None,
        log: logging.Logger | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.node, self.client, self.config = node, client, config
        self.clock, self.now = clock, now
        self.log = log or logging.getLogger("podwire")
        self._tasks, self._on_ready = tasks, on_ready
        self._unready = set(parts)
        self._informers: dict[Hashable, Informer[Any]] = {}
        self._needed: set[Hashable] = set()  # keys of the informers without which the process is not ready
        self._recorders: dict[str, EventRecorder] = {}
        self._started: set[asyncio.Task[None]] = set()

    def informer(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        indexes: Mapping[str, Callable[[T], Iterable[Hashable]]] | None = None,
        needed: bool = True,
    ) -> Informer[T]:
        """Give the process's informer for this selection, started if it is the first time. Indexes of all callers are kept, by name.

        ``needed``: without its first list the process is not ready. Not so for kinds that users define: one that cannot be listed
        is no defect of the process.
        """
        key = (resource.group, resource.plural, resource.type, namespace, labels, fields)
        if needed:
            self._needed.add(key)
        found = cast("Informer[T] | None", self._informers.get(key))
        if found is not None:
            for name, function in (indexes or {}).items():
                found.table.add_index(name, function)
            return found
        made = Informer(self.client, resource, namespace=namespace, labels=labels, fields=fields, indexes=indexes, log=self.log)
        self._informers[key] = made
        self.start(made.run(), f"informer {resource.plural}")
        return made

    def recorder(self, component: str) -> EventRecorder:
        """Give the Event recorder of a component (``kubelet``, ``deployment-controller``), shared in the process."""
        if component not in self._recorders:
            self._recorders[component] = EventRecorder(self.client, component, self.node, log=self.log)
        return self._recorders[component]

    @property
    def events(self) -> EventRecorder:
        return self.recorder("podwire")

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine beside the agents until it ends; if it raises, the process ends."""
        task = self._tasks.create_task(work, name=name) if self._tasks else asyncio.get_running_loop().create_task(work, name=name)
        self._started.add(task)
        task.add_done_callback(self._started.discard)
        return task

    def cancel_all(self) -> None:
        """End what was started through this context."""
        for task in self._started:
            task.cancel()

    async def close(self) -> None:
        """End what was started through this context and wait for it: for whoever made the context outside of ``run``."""
        self.cancel_all()
        await asyncio.gather(*self._started, return_exceptions=True)
        await self.flush_events()

    def ready(self, part: str) -> None:
        """Say that a part does its work. When the last has said so, the process is ready."""
        if part in self._unready:
            self._unready.discard(part)
            self.log.info("%s is ready", part)
            if not self._unready:
                self._on_ready()

    @property
    def unready(self) -> tuple[str, ...]:
        """The parts that have not said ``ready``, and the resources that are needed and not listed yet."""
        needed = [self._informers[key] for key in self._needed]
        lists = [f"{informer.resource.plural} not listed" for informer in needed if not informer.synced.is_set()]
        return (*sorted(self._unready), *sorted(lists))

    @property
    def informers(self) -> tuple[Informer[Any], ...]:
        return tuple(self._informers.values())

    async def flush_events(self) -> None:
        """Wait until the Events reported so far are sent or dropped."""
        await asyncio.gather(*(recorder.flush() for recorder in self._recorders.values()))
