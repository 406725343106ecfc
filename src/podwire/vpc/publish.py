"""The agent ``publish``: makes load balancers reachable for a person at the machine.

For each external TCP address and port it asks the lab for a listening socket on the machine's 127.0.0.1 and relays what arrives
there, as a client on the internet. It lives with the controllers, from where the API can be reached; the sockets with which it
connects are of the place ``internet``, from where the API cannot. Beside that it tells the lab what ``podwire status`` shows, whenever
that changes. Without a lab (no control socket) it has nothing to do.
"""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Final

from podwire.daemon.context import Context
from podwire.lib.pace import Pace
from podwire.lib.reconcile import Reconciler
from podwire.linux.namespaces import socket_inside
from podwire.objects import resources
from podwire.objects.compute import ForwardingRule
from podwire.objects.meta import Object
from podwire.vpc.control import Control
from podwire.vpc.relay import Relay
from podwire.vpc.report import SYSTEM, Report, parts, published, report

_REPORT: Final = "report"
_PUBLISHED: Final = "published"
_PACE_S: Final = 0.02


async def run(context: Context) -> None:
    """The agent ``publish``."""
    if not context.config.control_socket:
        context.ready("publish")
        await asyncio.Event().wait()
    await Publisher(context).run()


class Publisher:
    """Keeps a relay for each published ``ADDRESS:PORT``, and the lab's report up to date."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._rules = context.informer(resources.FORWARDING_RULES, indexes={_PUBLISHED: published})
        self._nodes = context.informer(resources.NODES)
        self._services = context.informer(resources.SERVICES)
        self._deployments = context.informer(resources.DEPLOYMENTS, namespace=SYSTEM)
        self._control = Control(context.config.control_socket, self._lost)
        self._opening = asyncio.Lock()
        self._internet = -1  # a descriptor of that place's network namespace
        self._relays: dict[str, tuple[Relay, int]] = {}  # and the port on 127.0.0.1
        self._told: Report | None = None
        self._reconciler = Reconciler(
            self._operate,
            pace=Pace(_PACE_S, clock=context.clock),
            concurrency=4,
            clock=context.clock,
            random=random.random,
            on_failure=lambda key, error, _attempts: context.log.warning("publish: %s: %s", key, error),
            keep_done=False,
        )

    async def run(self) -> None:
        for informer in (self._rules, self._nodes, self._services, self._deployments):
            await informer.synced.wait()
        self._rules.subscribe(self._rule_changed)
        for informer in (self._nodes, self._services, self._deployments):
            informer.subscribe(self._anything_changed)
        self._reconciler.mark(_REPORT)
        try:
            await self._reconciler.run()
        finally:
            self._control.close()
            for relay, _ in self._relays.values():
                await relay.close()

    def _rule_changed(self, old: ForwardingRule | None, new: ForwardingRule | None) -> None:
        for rule in (old, new):
            for name in published(rule) if rule is not None else ():
                self._reconciler.mark(name)

    def _anything_changed(self, _old: Object | None, _new: Object | None) -> None:
        self._reconciler.mark(_REPORT)

    def _lost(self) -> None:
        """The lab's side has gone; when it is back it knows nothing."""
        self._told = None
        self._reconciler.mark(_REPORT)

    async def _operate(self, key: str) -> None:
        if key == _REPORT:
            await self._report()
        elif self._rules.table.snapshot().by(_PUBLISHED, key):
            await self._open(key)
        else:
            await self._close(key)

    async def _report(self) -> None:
        ports = {name: port for name, (_, port) in self._relays.items()}
        tables = (self._nodes.table.snapshot(), self._services.table.snapshot(), self._deployments.table.snapshot())
        fresh = report(*tables, ports)
        if fresh != self._told:
            await self._control.ask({"request": "report", **fresh})
            self._told = fresh
        self._context.ready("publish")

    async def _open(self, name: str) -> None:
        if name in self._relays:
            return
        address, port = parts(name)
        async with self._opening:
            if self._internet < 0:
                _, [self._internet] = await self._control.ask({"request": "open", "where": "internet"})
        answer, descriptors = await self._control.ask({"request": "listen", "name": name, "port": port, "protocol": "tcp"})
        if not descriptors:
            raise ConnectionError(f"no listening socket came for {name}")
        relay = Relay(socket.socket(fileno=descriptors[0]), address, port, self._outgoing)
        await relay.start()
        self._relays[name] = (relay, int(answer["port"]))
        self._context.log.info("%s is published at 127.0.0.1:%d", name, answer["port"])
        self._reconciler.mark(_REPORT)

    def _outgoing(self) -> socket.socket:
        return socket_inside(self._internet, socket.AF_INET, socket.SOCK_STREAM)

    async def _close(self, name: str) -> None:
        found = self._relays.get(name)
        if found is None:
            return
        await found[0].close()
        await self._control.ask({"request": "unlisten", "name": name})
        del self._relays[name]
        self._reconciler.mark(_REPORT)
