"""The agent ``services``: keeps one node's service proxy as the API says.

What belongs here: informers, what is dirty, when the kernel is told. What must not: what it is told, and in which order (desired.py,
ruleset.py), calls of nftables (tables.py).

How it works: a change of a Service, or of a slice of it, marks that Service. A round takes what is marked, joins and decides for
these Services alone, and gives the differences to the kernel. Nothing is touched before Services, slices and the own Node have been
listed once: until then what is missing may only not have been read. Long work goes in steps between which others run. What fails is
tried again by lib.reconcile, beginning with a repair. Everything but the tables is done beside (beside.py).

Sources: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-proxy/
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections import deque
from collections.abc import Iterator, Sequence
from http import HTTPStatus

import msgspec

from podwire.client.errors import ApiError, Unreachable
from podwire.client.informer import Informer
from podwire.daemon.config import AgentConfig
from podwire.daemon.context import Context
from podwire.lib.pace import Pace
from podwire.lib.reconcile import Reconciler
from podwire.linux import sysctl
from podwire.linux.errors import KernelRefused
from podwire.linux.nftables import Nftables
from podwire.nft import DeleteTable, Ruleset, Unreadable
from podwire.nft.difference import difference
from podwire.objects.core import Node, Service
from podwire.objects.discovery import EndpointSlice
from podwire.objects.networking import ServiceCIDR
from podwire.objects.resources import ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES
from podwire.services import desired, dialect, masquerade
from podwire.services.beside import LATE_S, Beside, node_port_ranges, own_addresses
from podwire.services.desired import ServiceProgram
from podwire.services.dialect import Dialect
from podwire.services.facts import NONE, facts
from podwire.services.layout import IPV4, IPV6, Family
from podwire.services.tables import in_bulk
from podwire.views.frontends import join
from podwire.views.topology import Place, place

SLICE_S = 0.01  # how long the loop is held by one piece of work
FORMER = 1000  # slices that are kept until there is time to let go of them

TABLES, STALE = "tables", "what is stale"


class ServiceProxy:
    """One node's proxy. ``namespace`` is the descriptor of the node's network namespace, None for the process's own."""

    def __init__(self, context: Context, namespace: int | None = None) -> None:
        config = context.config
        self._context, self._namespace = context, namespace
        self.families = families(config, namespace)
        self.tables: list[Dialect] = []
        self.beside = Beside(context, self.families, namespace, self._repair)
        self.place = Place(context.node, config.zone)
        self._services = context.informer(SERVICES)
        self._slices = context.informer(ENDPOINT_SLICES, indexes={"service": _service_of})
        self._nodes = context.informer(NODES, fields=f"metadata.name={context.node}")
        self._dirty: dict[str, EndpointSlice | None] = {}  # with the slice that changed, where that is all
        # Let go of when the kernel has acknowledged: that takes long, as nobody has read it lately. The last ones alone: while a kernel
        # refuses, or slices change that no Service has, there would be ever more.
        self._former: deque[EndpointSlice | None] = deque(maxlen=FORMER)
        self._rounds: deque[tuple[float, list[int]]] = deque()
        self._started = self._make_anew = False
        self._node_port_ranges: tuple[str, ...] = ()
        self._ranges: Informer[ServiceCIDR] | None = None  # where the configuration has none
        self._node_told = asyncio.Event()
        self._said: dict[str, str] = {}
        pace = Pace(config.proxy_min_sync_s, clock=context.clock)
        self._reconciler = Reconciler(
            self._operate,
            pace=pace,
            clock=context.clock,
            random=random.random,
            on_failure=self._failed,
            keep_done=False,
            first_retry_s=0.02,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        self._services.subscribe(self._service_changed)
        self._slices.subscribe(self._slice_changed)
        self._nodes.subscribe(self._node_changed)
        try:
            for informer in (self._services, self._slices, self._nodes):
                await informer.synced.wait()
            await self._told()
            self._make_tables()
            config = self._context.config
            for field in config.ignored:
                self._context.log.warning("service proxy: %s changes nothing here", field)
            self.beside.set_connection_tracking()
            masquerade_pods(config, self.families, self._namespace)
            self._reconciler.mark(TABLES)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._reconciler.run(), name="tables")
                tasks.create_task(self.beside.run(), name="beside the tables")
        finally:
            for tables in self.tables:
                tables.close()

    async def _told(self) -> None:
        """Wait for what the configuration leaves to the API: the ranges of Services, and which addresses ``primary`` are."""
        if not self._context.config.service_ranges:
            await self._follow_ranges()
        config = self._context.config
        while config.node_port_addresses and not node_port_ranges(config, self.beside.node):
            self._context.log.warning("service proxy: waiting for an address of Node %s, as node ports are there alone", self._context.node)
            self._node_told.clear()
            await self._node_told.wait()

    async def _follow_ranges(self) -> None:
        """Follow the API's ServiceCIDRs. An older API has none, or another does not show them to this node: then nothing is known."""
        try:
            await self._context.client.list(SERVICE_CIDRS)
        except ApiError as error:
            if error.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                self._context.log.warning("service proxy: without Service ranges, as the API tells of none: %s", error)
                return
        except Unreachable:
            pass  # for a moment, and the informer asks again
        self._ranges = self._context.informer(SERVICE_CIDRS, needed=False)
        self._ranges.subscribe(self._ranges_changed)
        await self._ranges.synced.wait()

    def _make_tables(self) -> None:
        """Begin with tables of the configuration as it is. Those that are in the way of packets stay there until others replace them."""
        for tables in self.tables:
            tables.distrust()
            tables.close()
        if self._ranges is not None:
            found = dict.fromkeys(text for one in self._ranges.table.snapshot() for text in one.spec.cidrs)
            self._context.config = msgspec.structs.replace(self._context.config, service_ranges=tuple(found))
        config, node = self._context.config, self._context.node
        self._node_port_ranges = node_port_ranges(config, self.beside.node)
        self.tables = [dialect.tables(config, family, node, self._namespace, self._node_port_ranges) for family in self.families]
        self._rounds.clear()
        self._started = False

    # What changed ------------------------------------------------------------------------------------------------------------

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        changed = new or old
        if changed is not None:
            self.beside.wanted("service")
            self._mark(changed.key)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self.beside.wanted("endpoint")
        self.beside.triggered(old, new)
        self._former.append(old)
        if old is not None and new is not None and old.service_key == new.service_key:
            self._mark(new.service_key, new)
            return
        for piece in (old, new):
            if piece is not None:
                self._mark(piece.service_key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:  # noqa: ARG002  (the signature of subscribers)
        if new is None:
            return
        self.beside.node = new
        self._node_told.set()
        found = msgspec.structs.replace(place(new), addresses=own_addresses(self._context.config, new))
        before, self.place = self.place, found
        if (before.node, before.zone, before.addresses) != (found.node, found.zone, found.addresses):
            for service in self._services.table.snapshot():
                self._mark(service.key)
        ranges = node_port_ranges(self._context.config, new)
        if self.tables and ranges and ranges != self._node_port_ranges:  # a Node without addresses says nothing of where it is
            self._begin_anew()

    def _ranges_changed(self, old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        if self.tables and (old is None or new is None or old.spec != new.spec):
            self._begin_anew()

    def _begin_anew(self) -> None:
        """What is constant in the tables is to be otherwise."""
        self._make_anew = True
        self._reconciler.mark(TABLES)

    def _mark(self, key: str, piece: EndpointSlice | None = None) -> None:
        """Mark a Service, of which this slice alone changed, or more than that. A slice that names no Service is nobody's."""
        if not key:
            return
        self._dirty[key] = piece if key not in self._dirty else None
        if self._started:
            self._reconciler.mark(TABLES)

    # What is done about it -----------------------------------------------------------------------------------------------------

    async def _operate(self, what: str) -> float | None:
        if what == STALE:
            return self._expire()
        if self._make_anew:
            self._make_tables()
            masquerade_pods(self._context.config, self.families, self._namespace)
            self._make_anew = False
        if not self._started:
            await self._start()
        while self._dirty or not all(tables.sound for tables in self.tables):
            self._update()
            if self._dirty:
                await asyncio.sleep(0)
        return None

    def decide(self, key: str) -> list[ServiceProgram | None]:
        """Give what this node does for one Service now, by family: nothing, where what the API says of it is not to be understood."""
        try:
            return self._decided(key)
        except ValueError as error:
            self._say_left_out(key, str(error))
            self.beside.note(key, NONE)
            return [None] * len(self.families)

    def _decided(self, key: str) -> list[ServiceProgram | None]:
        service, slices = self._services.table.get(key), self._slices.table.by("service", key)
        if service is not None and (found := self._plain(key, service, slices)) is not None:
            self.beside.note(key, NONE)
            return found
        view = join(service, slices)
        programs = [None if view is None else desired.program(view, self.place, family.number) for family in self.families]
        self.beside.note(key, facts(view, programs, self._context.node, [family.number for family in self.families]))
        return programs

    def _plain(self, key: str, service: Service, slices: tuple[EndpointSlice, ...]) -> list[ServiceProgram | None] | None:
        """Decide in one step where that can be done, and nothing is to be done beside the tables."""
        for place_, family in enumerate(self.families):
            found = desired.plain(key, service, slices, family.number)
            if found is not None:
                programs: list[ServiceProgram | None] = [None] * len(self.families)
                programs[place_] = found
                return programs if found.ports[0].protocol != "UDP" else None
        return None

    async def _start(self) -> None:
        wanted: list[dict[str, ServiceProgram]] = [{} for _ in self.families]
        self._dirty.clear()
        self.beside.starting(self.tables)

        def decide_all() -> Iterator[None]:
            for count, key in enumerate(list(self._services.table.snapshot().keys()), 1):
                programs = self.decide(key)
                for by_key, program in zip(wanted, programs, strict=True):
                    if program is not None:
                        by_key[key] = program
                if not count % 100:
                    yield

        took: list[float] = []
        with in_bulk():
            reading = asyncio.gather(*(asyncio.to_thread(tables.read) for tables in self.tables))
            await self._in_steps(decide_all())
            for tables, by_key in zip(self.tables, wanted, strict=True):
                await self._in_steps(tables.expect(by_key))
            await reading
            for tables, by_key in zip(self.tables, wanted, strict=True):
                began = self._context.clock()
                await self._in_steps(tables.start(by_key))
                took.append(self._context.clock() - began)
                self._say_refused(tables)
        self._started = True
        self.beside.started(self.tables)
        programmed = dict.fromkeys(key for by_key in wanted for key in by_key)
        self._done(list(programmed), took, full=True)
        self._context.log.info("service proxy: %d Services programmed", len(programmed))
        self._context.ready("services")

    async def _in_steps(self, steps: Iterator[None]) -> None:
        began = self._context.clock()
        for _ in steps:
            if self._context.clock() - began > SLICE_S:
                await asyncio.sleep(0)
                began = self._context.clock()

    def _update(self) -> None:
        """Take marked Services for as long as a slice lasts, and tell the kernel."""
        taken: list[str] = []
        changes: list[dict[str, ServiceProgram | None]] = [{} for _ in self.families]
        until = self._context.clock() + SLICE_S
        took: list[float] = []
        try:
            while self._dirty and self._context.clock() < until:
                key = next(iter(self._dirty))
                piece = self._dirty.pop(key)
                taken.append(key)
                if piece is not None and self._take_in(key, piece):
                    continue
                programs = self.decide(key)
                for by_key, program in zip(changes, programs, strict=True):
                    by_key[key] = program
            for tables, by_key, label in zip(self.tables, changes, self.beside.labels, strict=True):
                began, partial = self._context.clock(), tables.sound
                try:
                    tables.update(by_key)
                except KernelRefused:
                    self.beside.refused(label, partial=partial)
                    raise
                took.append(self._context.clock() - began)
                self._say_refused(tables)
        except BaseException:
            self._dirty.update(dict.fromkeys(taken))
            raise
        self._done(taken, took)

    def _take_in(self, key: str, piece: EndpointSlice) -> bool:
        """Take in a slice as it is, if it is a Service's only one in its family and changed in one endpoint. False: nothing is done."""
        if [one for one in self._slices.table.by("service", key) if one.address_type == piece.address_type] != [piece]:
            return False
        for tables, label in zip(self.tables, self.beside.labels, strict=True):
            if label == piece.address_type:
                return tables.put_slice(key, piece)
        return False

    def _done(self, keys: list[str], took: list[float], *, full: bool = False) -> None:
        """The kernel has acknowledged: what packets under way may still need goes a little later."""
        self._former.clear()
        self.beside.programmed(keys, took, full=full, waiting=bool(self._dirty))
        if any(tables.has_stale for tables in self.tables):
            self._rounds.append((self._context.clock() + LATE_S, [tables.round for tables in self.tables]))
            self._reconciler.mark_after(STALE, LATE_S)

    def _expire(self) -> float | None:
        now = self._context.clock()
        due: list[int] = []
        while self._rounds and self._rounds[0][0] <= now:
            due = self._rounds.popleft()[1]
        for tables, round_, label in zip(self.tables, due, self.beside.labels, strict=False):
            try:
                tables.expire(round_)
            except KernelRefused:
                self.beside.metrics.add("sync_proxy_rules_nftables_cleanup_failures_total", 1, label)
                self._reconciler.mark(TABLES)  # which begins with a repair
                raise
        return self._rounds[0][0] - now if self._rounds else None

    def _repair(self, words: str) -> None:  # noqa: ARG002  (told to people already)
        """Somebody changed the tables: those of Services are distrusted, and the next round puts them right."""
        masquerade_pods(self._context.config, self.families, self._namespace)
        self._reconciler.mark(TABLES)

    def _failed(self, what: str, error: Exception, attempts: int) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._said.get(what) != text or attempts == 1:
            self._context.log.error("service proxy: %s: %s; trying again", what, text)
        self._said[what] = text

    def _say_refused(self, tables: Dialect) -> None:
        for key, reason in tables.refused.items():
            self._say_left_out(key, reason)

    def _say_left_out(self, key: str, reason: str) -> None:
        if self._said.get(key) != reason:
            self._said[key] = reason
            self._context.log.warning("Service %s is left out: %s", key, reason)


def families(config: AgentConfig, namespace: int | None = None) -> tuple[Family, ...]:
    """Give the families of the cluster's Service ranges, the primary first.

    Where the configuration has none, ranges of either may be made at any time: then both that the kernel has, as with kube-proxy.
    """
    versions = [ipaddress.ip_network(each).version for each in config.service_ranges or config.pod_ranges]
    if not config.service_ranges:
        versions += [4, 6] if sysctl.read("net.ipv6.conf.all.forwarding", namespace) is not None else [4]
    return tuple(IPV4 if version == 4 else IPV6 for version in dict.fromkeys(versions))


def masquerade_pods(config: AgentConfig, families: Sequence[Family], namespace: int | None = None) -> None:
    """Make what Pods send to the outside carry the node's address. Raises KernelRefused."""
    with Nftables(namespace) as kernel:
        for family in families:
            name, wanted = (family.name, masquerade.TABLE), masquerade.wanted(family, config)
            try:
                kernel.apply_batches(difference(kernel.dump([name]), wanted))
            except Unreadable:  # somebody put in what is not known here
                kernel.apply([DeleteTable(name), *(change for batch in difference(Ruleset(), wanted) for change in batch)])


def _service_of(piece: EndpointSlice) -> tuple[str, ...]:
    return (piece.service_key,)


async def run(context: Context) -> None:
    """Run until cancelled."""
    await ServiceProxy(context).run()
