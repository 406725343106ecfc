"""What the service proxy does beside its tables: pages, measurements, stale flows, routes, and a look at what others did.

What belongs here: when each of these is done, from what is known of the Services (facts.py). What must not: the tables (agent.py), the
words of pages (pages.py), which flows are stale (connections.py), what counts as a difference (audit.py).

How it works: the agent tells of every Service's facts as it decides, and of every round that the kernel has acknowledged. Flows are
looked at after that, and once more a moment later: a packet that was under way meanwhile may still have chosen as before. Every 200 ms
the kernel is asked for the number of its ruleset's transactions, which costs microseconds; when there were more than our own, somebody
else changed something, and the tables are read, in a thread, and compared. The agent puts right what differs, and an Event on the Node
says what was found. Somebody who changes tables of his own all the time makes these readings rarer, down to a twentieth of the time.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from podwire.daemon.config import AgentConfig
from podwire.daemon.context import Context
from podwire.lib.reconcile import Reconciler
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.nft import Ruleset, Table, Unreadable
from podwire.nft.difference import difference
from podwire.nft.model import TableName
from podwire.objects.core import Node, ObjectReference
from podwire.objects.discovery import EndpointSlice
from podwire.objects.resources import SERVICES
from podwire.services import audit, cleanup, flows, masquerade, pages, routes, tracking
from podwire.services.connections import Ways
from podwire.services.dialect import Dialect
from podwire.services.facts import NONE, Facts
from podwire.services.layout import Family, narrowed
from podwire.services.metrics import Metrics

LATE_S = 0.01  # how long a packet may be between two look-ups
AUDIT_S = 0.2
TOLD_S = 60.0
AUDIT_SHARE = 20  # of the time, one part in so many for readings that find nothing
UNHEALTHY_S = 60.0  # changes that wait longer than this are late
RETRY_S = 5.0  # for an address that somebody else has
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"

ROUTES, FLOWS, CHECKS, PAGES, AUDIT = "routes", "stale flows", "health checks", "pages", "audit"
OTHER = "the other dialect"


class Beside:
    """One node's. ``repair`` is called with words for what was found changed."""

    def __init__(self, context: Context, families: Sequence[Family], namespace: int | None, repair: Callable[[str], None]) -> None:
        self._context, self._families, self._namespace, self._repair = context, tuple(families), namespace, repair
        self.metrics = Metrics(context.config.proxy_mode)
        self.node: Node | None = None
        self.labels = tuple(f"IPv{family.number}" for family in families)
        self._tables: Sequence[Dialect] = ()
        self._facts: dict[str, Facts] = {}
        self._no_local = [0, 0]
        self._flows: dict[str, int] = {}  # by Service: how often its flows are still to be looked at
        self._triggers: dict[str, list[datetime]] = {}
        self._born = self._updated = context.now()
        self._waiting: float | None = context.clock()
        self._pages: dict[str, list[asyncio.Server]] = {}
        self._checks: dict[int, tuple[str, list[asyncio.Server]]] = {}
        self._seen = (0, 0)  # the kernel's number of transactions, and how many of them were ours
        self._rest_until = 0.0  # after a reading that found nothing others have their time
        self._held: set[TableName] = set()  # the tables that were there, by the last reading
        self._told: dict[str, float] = {}  # what was found changed, and until when it is not told again
        self._kernel: Nftables | None = None
        self._set_aside = False  # what is written in the other dialect
        self._reconciler = Reconciler(
            self._operate, clock=context.clock, random=random.random, on_failure=self._failed, keep_done=False, concurrency=4
        )

    # What the agent tells ----------------------------------------------------------------------------------------------------

    def note(self, key: str, found: Facts) -> None:
        """Take the facts of a Service, as they are about to be programmed."""
        before = self._facts.get(key, NONE)
        if before == found:
            return
        if found == NONE:
            del self._facts[key]
        else:
            self._facts[key] = found
        if found.mismatched != before.mismatched:
            self._say_mismatched(key, found.mismatched)
        for index in (0, 1):
            self._no_local[index] += found.no_local[index] - before.no_local[index]
        if found.ways and found.ways != before.ways:
            self._flows[key] = 2
        if self._tables:
            if before.vips != found.vips:
                self._reconciler.mark(ROUTES)
            if before.check != found.check:
                self._reconciler.mark(CHECKS)

    def wanted(self, kind: str, amount: int = 1) -> None:
        """Changes of ``service`` or ``endpoint`` wait to be programmed."""
        if self._waiting is None:
            self._waiting = self._context.clock()
        now = self._context.now().timestamp()
        for label in self.labels:
            self.metrics.add(f"sync_proxy_rules_{kind}_changes_total", amount, label)
            self.metrics.add(f"sync_proxy_rules_{kind}_changes_pending", amount, label)
            self.metrics.set("sync_proxy_rules_last_queued_timestamp_seconds", now, label)

    def triggered(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An endpoint changed: remember when, to tell how long it took. What was so before this process was born is not its delay."""
        text = new.metadata.annotations.get(TRIGGER, "") if new is not None else ""
        if new is None or not text or (old is not None and old.metadata.annotations.get(TRIGGER) == text):
            return
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return
        if at.tzinfo is not None and at >= self._born:
            self._triggers.setdefault(new.service_key, []).append(at)

    def refused(self, label: str, *, partial: bool) -> None:
        """The kernel refused a round, of one family."""
        if self._context.config.proxy_mode == "nftables":
            self.metrics.add("sync_proxy_rules_nftables_sync_failures_total", 1, label)
            return
        self.metrics.add("sync_proxy_rules_iptables_restore_failures_total", 1, label)
        if partial:
            self.metrics.add("sync_proxy_rules_iptables_partial_restore_failures_total", 1, label)

    def programmed(self, keys: Sequence[str], seconds: Sequence[float], *, full: bool = False, waiting: bool = False) -> None:
        """The kernel has acknowledged these Services. ``seconds`` by family; ``waiting``: other changes are still to be programmed."""
        now = self._context.now()
        for tables, label in zip(self._tables, self.labels, strict=False):
            for table, (total, last) in tables.rule_counts.items():
                self.metrics.set("sync_proxy_rules_iptables_total", total, table, label)
                self.metrics.set("sync_proxy_rules_iptables_last", last, table, label)
        for label, took in zip(self.labels, seconds, strict=True):
            self.metrics.observe("sync_proxy_rules_duration_seconds", took, label)
            self.metrics.observe(f"sync_{'full' if full else 'partial'}_proxy_rules_duration_seconds", took, label)
            self.metrics.set("sync_proxy_rules_last_timestamp_seconds", now.timestamp(), label)
            for policy, count in zip(("internal", "external"), self._no_local, strict=True):
                self.metrics.set("sync_proxy_rules_no_local_endpoints_total", count, label, policy)
            if not waiting:
                for kind in ("service", "endpoint"):
                    self.metrics.set(f"sync_proxy_rules_{kind}_changes_pending", 0, label)
        for key in keys if self._triggers else ():
            for at in self._triggers.pop(key, ()):
                for label in self.labels:
                    self.metrics.observe("network_programming_duration_seconds", max(0.0, (now - at).total_seconds()), label)
        if not waiting:
            self._waiting, self._updated = None, now
        if self._flows:
            self._reconciler.mark(FLOWS)

    def starting(self, tables: Sequence[Dialect]) -> None:
        """The tables are about to be read and written: from here on, what is not ours is somebody else's. Raises KernelRefused."""
        if self._kernel is None:
            self._kernel = Nftables(self._namespace)
        self._seen = self._kernel.generation(), sum(each.commits for each in tables)

    def started(self, tables: Sequence[Dialect]) -> None:
        """The tables are there for the first time."""
        self._tables = tables
        for what in (ROUTES, CHECKS, AUDIT, OTHER):
            self._reconciler.mark(what)

    async def run(self) -> None:
        """Work until cancelled."""
        self._reconciler.mark(PAGES)
        try:
            await self._reconciler.run()
        finally:
            for servers in (*self._pages.values(), *(servers for _, servers in self._checks.values())):
                for server in servers:
                    server.close()
            if self._kernel is not None:
                self._kernel.close()

    # What is done about it -----------------------------------------------------------------------------------------------------

    async def _operate(self, what: str) -> float | None:
        if what == ROUTES:
            self._write_routes()
            return None
        work = {
            FLOWS: self._forget_flows,
            CHECKS: self._listen_for_checks,
            PAGES: self._listen,
            AUDIT: self._audit,
            OTHER: self._remove_other_dialect,
        }
        return await work[what]()

    def _failed(self, what: str, error: Exception, attempts: int) -> None:
        if attempts == 1:
            self._context.log.warning("service proxy: %s: %s: %s; trying again", what, type(error).__name__, error)

    def _write_routes(self) -> None:
        """In the cloud that the lab plays, the addresses of forwarding rules are routes of every node; elsewhere they are its agent's."""
        if not self._context.config.external_ranges:
            return
        with Network(self._namespace) as network:
            network.apply(routes.changes(network.routes(routes.LOCAL), {vip for found in self._facts.values() for vip in found.vips}))

    async def _forget_flows(self) -> float | None:
        due, self._flows = self._flows, {}
        try:
            for index, (family, label) in enumerate(zip(self._families, self.labels, strict=True)):
                wanted: Ways = {}
                for key in due:
                    wanted |= dict(found[index]) if (found := self._facts.get(key, NONE).ways) else {}
                began = self._context.clock()
                deleted = await asyncio.to_thread(flows.forget, family, wanted, self._namespace) if wanted else 0
                self.metrics.observe("conntrack_reconciler_sync_duration_seconds", self._context.clock() - began, label)
                self.metrics.add("conntrack_reconciler_deleted_entries_total", deleted, label)
        except BaseException:
            self._flows = due | self._flows
            raise
        self._flows = {key: left - 1 for key, left in due.items() if left > 1} | self._flows
        return LATE_S if self._flows else None

    # Pages ---------------------------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether no change waits for too long."""
        return self._waiting is None or self._context.clock() - self._waiting < UNHEALTHY_S

    @property
    def _eligible(self) -> bool:
        node = self.node
        return node is None or not pages.going_away(node.metadata.deletion_timestamp, tuple(taint.key for taint in node.spec.taints))

    def health(self, path: str) -> pages.Answer:
        """The pages of port 10256."""
        if path not in ("/healthz", "/livez"):
            return pages.nothing_here("/healthz and /livez")
        now, healthy = self._context.now(), self.healthy
        eligible = self._eligible if path == "/healthz" else None
        answer = pages.state(healthy=healthy, updated=now if self._waiting is None else self._updated, now=now, eligible=eligible)
        self.metrics.add(f"proxy_{path[1:]}_total", 1, str(answer.status))
        return answer

    def measurements(self, path: str) -> pages.Answer:
        """The pages of port 10249."""
        if path == "/metrics":
            return pages.Answer(200, self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
        if path == "/proxyMode":
            return pages.Answer(200, self._context.config.proxy_mode)
        return pages.Answer(200, "ok") if path == "/healthz" else pages.nothing_here("/metrics, /proxyMode and /healthz")

    async def _listen(self) -> float | None:
        config, refused = self._context.config, None
        for name, text, answer in (
            ("health", config.proxy_health_address, self.health),
            ("metrics", config.proxy_metrics_address, self.measurements),
        ):
            if text and name not in self._pages:
                address, _, port = text.rpartition(":")
                try:
                    sockets = pages.listening_at(address.strip("[]"), int(port), self._namespace)
                except OSError as error:  # it is tried again; the other page is there meanwhile
                    refused = refused or error
                else:
                    self._pages[name] = await pages.serve(sockets, answer)
        if refused is not None:
            raise refused
        return None

    async def _listen_for_checks(self) -> float | None:
        wanted = {found.check.port: key for key, found in self._facts.items() if found.check is not None}
        for port, (key, servers) in list(self._checks.items()):
            if wanted.get(port) != key:
                del self._checks[port]
                for server in servers:
                    server.close()
        failed = False
        for port, key in wanted.items():
            if port not in self._checks:
                try:
                    self._checks[port] = (key, await self._listen_for(key, port))
                except OSError as error:
                    failed = True
                    self._say_unheard(key, port, error)
        return RETRY_S if failed else None

    async def _listen_for(self, key: str, port: int) -> list[asyncio.Server]:
        def answer(_: str) -> pages.Answer:
            check = self._facts.get(key, NONE).check
            return pages.service_check(key, check.local_endpoints if check is not None else 0, healthy=self.healthy)

        return await pages.serve(pages.listening_on(self._addresses(), port, self._namespace), answer)

    def _addresses(self) -> list[str]:
        """Where health checks are answered: where node ports are, but for addresses that are of one link alone."""
        ranges = node_port_ranges(self._context.config, self.node)
        within = {family.number: narrowed(family, ranges) for family in self._families}
        found = [pages.EVERY_ADDRESS[number] for number, those in within.items() if those is None]
        networks = [ipaddress.ip_network(text) for those in within.values() for text in those or ()]
        if networks:
            with Network(self._namespace) as network:
                here = [one.address.ip for one in network.addresses() if not one.address.is_link_local]
            found += [str(address) for address in dict.fromkeys(here) if any(address in network for network in networks)]
        return found

    def _say_unheard(self, key: str, port: int, error: OSError) -> None:
        namespace, _, name = key.partition("/")
        text = f'node {self._context.node} failed to start healthcheck "{key}" on port {port}: {error.strerror}'
        self._context.log.warning("%s", text)
        about = service_reference(namespace, name)
        self._context.recorder("podwire-services").event(about, "Warning", "FailedToStartServiceHealthcheck", text)

    def _say_mismatched(self, key: str, fields: Sequence[tuple[str, str]]) -> None:
        for field, value in fields:
            text = f"{value} in {field} has incorrect IP version"
            self._context.log.warning("Service %s: %s", key, text)
            namespace, _, name = key.partition("/")
            about = service_reference(namespace, name)
            self._context.recorder("podwire-services").event(about, "Warning", "KubeProxyIncorrectIPVersion", text)

    def set_connection_tracking(self) -> None:
        """Write what the configuration asks for of connection tracking; what the kernel refuses is told once."""
        refused = tracking.write(tracking.wanted(self._context.config.conntrack, os.cpu_count() or 1), self._namespace)
        if refused:
            words = "; ".join(refused)
            self._context.log.warning("service proxy: settings of connection tracking that are refused here: %s", words)
            if self.node is not None:
                self._context.recorder("podwire-services").event(self.node, "Warning", "ConntrackSettingRefused", words)

    async def _remove_other_dialect(self) -> float | None:
        """An earlier agent spoke otherwise. Its rules go when ours stand, so that there are always some: in two steps, for packets that
        one of its rules has translated and another is still to masquerade."""
        config = self._context.config
        if not self._set_aside:
            for words in await asyncio.to_thread(cleanup.of_other_proxies, self._namespace):
                self._context.log.warning("service proxy: %s", words)
            self._set_aside = await asyncio.to_thread(cleanup.set_aside_other_dialect, config, self._namespace)
            return LATE_S if self._set_aside else None
        for words in await asyncio.to_thread(cleanup.remove_other_dialect, config, self._namespace):
            self._context.log.info("service proxy: removed %s", words)
        self._set_aside = False
        return None

    # What others did --------------------------------------------------------------------------------------------------------------

    async def _audit(self) -> float:
        """Look whether somebody else changed the ruleset; if so, whether he changed ours."""
        assert self._kernel is not None
        state = self._kernel.generation(), sum(tables.commits for tables in self._tables)
        if state[0] - self._seen[0] == state[1] - self._seen[1]:
            self._seen = state
            return AUDIT_S
        began = self._context.clock()
        if began < self._rest_until and self._held <= set(self._kernel.names()):
            return AUDIT_S  # nothing is gone as a whole: what else there may be is read a little later
        names = [(family.name, masquerade.TABLE) for family in self._families]
        at, have, ours = await asyncio.to_thread(_read, names, self._tables, self._namespace)
        own = sum(tables.commits for tables in self._tables)
        if own != state[1] or not all(tables.sound for tables in self._tables):
            return AUDIT_S  # ours have changed meanwhile: what was read is old
        found: list[str] = []
        for tables, there in zip(self._tables, ours, strict=True):
            rows = tables.findings(there)
            if rows:
                tables.distrust()
                found += rows
        for family in self._families:
            wanted = masquerade.wanted(family, self._context.config)
            if difference(Ruleset(tuple(table for table in have.tables if table.id == (family.name, masquerade.TABLE))), wanted):
                found.append(f"table {family.name} {masquerade.TABLE} is not as it was")
        self._seen = at, own
        self._held = {table.id for table in (*have.tables, *ours) if isinstance(table, Table)}
        if found:
            self._say_found(audit.in_words(found))
            return AUDIT_S
        now = self._context.clock()
        self._rest_until = now + AUDIT_SHARE * (now - began)
        return AUDIT_S

    def _say_found(self, words: str) -> None:
        """Tell, and put right. Of somebody who does the same again and again, as a second service proxy does, it is told once a minute."""
        now = self._context.clock()
        if now >= self._told.get(words, 0.0):
            self._told = {words: now + TOLD_S, **{other: until for other, until in self._told.items() if until > now}}
            self._tell_found(words)
        self._repair(words)

    def _tell_found(self, words: str) -> None:
        self._context.log.warning("service proxy: somebody changed the rules on this node: %s; putting them right", words)
        if self.node is not None:
            self._context.recorder("podwire-services").event(
                self.node, "Warning", "ServiceRulesChanged", f"somebody changed the rules of the service proxy: {words}; put right"
            )


def service_reference(namespace: str, name: str) -> ObjectReference:
    """Give the reference to a Service, for an Event."""
    return ObjectReference(api_version=SERVICES.api_version, kind="Service", namespace=namespace, name=name)


def own_addresses(config: AgentConfig, node: Node | None) -> tuple[str, ...]:
    """Give the addresses of this node: what the configuration says is its own of a family, else what its Node says."""
    told = () if node is None else node.internal_ips
    own = config.proxy_node_address
    return (own, *(text for text in told if (":" in text) != (":" in own))) if own else told


def node_port_ranges(config: AgentConfig, node: Node | None) -> tuple[str, ...]:
    """Give the ranges on whose addresses node ports are served; none if they are on all. ``primary`` are the node's own addresses."""
    found: list[str] = []
    for text in config.node_port_addresses:
        texts = own_addresses(config, node) if text == "primary" else (text,)
        found += [str(ipaddress.ip_network(one, strict=False)) for one in texts]
    return tuple(dict.fromkeys(found))


def _read(names: Sequence[tuple[str, str]], tables: Sequence[Dialect], namespace: int | None) -> tuple[int, Ruleset, list[Any]]:
    """Read tables by name, and those of Services, and which transaction was the last before.

    It blocks, and belongs into a thread. Raises KernelRefused.
    """
    with Nftables(namespace) as kernel:
        while True:
            before = kernel.generation()
            try:
                found = kernel.dump(names)
            except Unreadable:  # somebody put in what is not known here
                found = Ruleset()
            ours = [one.dump(kernel) for one in tables]
            if kernel.generation() == before:
                return before, found, ours
