"""The agent of the VPC network: lives in the namespace ``vpc``, follows instances, forwarding rules and target pools, and nothing else.

On each change it computes the whole program (ruleset.py), compares with what the kernel acknowledged last, and sends the
difference. At the start it compares with what the kernel holds: a restart finds everything there and changes nothing. The generation
of the ruleset tells whether somebody else changed a table meanwhile, the kernel tells when a link came or went; then what is there is
read again and repaired.
"""

from __future__ import annotations

import asyncio
import random
from ipaddress import IPv4Network
from typing import Final

from podwire import nft
from podwire.daemon.context import Context
from podwire.lib.pace import Pace
from podwire.lib.reconcile import Reconciler
from podwire.linux.network import LinkChanges, Network
from podwire.linux.nftables import Nftables
from podwire.nft.difference import batches, difference
from podwire.objects import resources
from podwire.objects.meta import Object
from podwire.vpc import ruleset
from podwire.vpc.desired import Fabric, desired
from podwire.vpc.ruleset import Program
from podwire.wire.rtnetlink import Route, Rule, delete, replace

_KEY: Final = "fabric"
_AUDIT_S: Final = 10.0
_IN_FLIGHT_S: Final = 0.02  # a packet is long through its look-ups by then
_LAST_PACE_S: Final = 0.01


async def run(context: Context) -> None:
    """The agent ``vpc``."""
    config = context.config
    kernel = Kernel(namespace=None)
    informers = (
        context.informer(resources.INSTANCES),
        context.informer(resources.FORWARDING_RULES),
        context.informer(resources.TARGET_POOLS),
    )
    external = tuple(network for network in map(_ipv4, config.external_ranges) if network is not None)

    async def operate(_key: str) -> float:
        instances, rules, pools = (informer.table.snapshot() for informer in informers)
        fabric: Fabric = desired(instances, rules, pools)  # type: ignore[arg-type]
        wanted = ruleset.program(fabric, external, config.nat_address)
        after = await asyncio.to_thread(kernel.bring_to, wanted)
        if after:
            await asyncio.sleep(_IN_FLIGHT_S)
            await asyncio.to_thread(kernel.finish, after)
        context.ready("vpc")
        return _AUDIT_S

    reconciler = Reconciler(
        operate,
        pace=Pace(_LAST_PACE_S, clock=context.clock),
        clock=context.clock,
        random=random.random,
        on_failure=lambda _key, error, _attempts: context.log.warning("vpc: %s", error),
    )

    def changed(_old: Object | None, _new: Object | None) -> None:
        reconciler.mark(_KEY)

    links = LinkChanges()

    def links_changed() -> None:
        """A node's wire was pulled or put back: its routes went with it."""
        links.drain()
        kernel.distrust()
        reconciler.mark(_KEY)

    for informer in informers:
        await informer.synced.wait()
    for informer in informers:
        informer.subscribe(changed)
    asyncio.get_running_loop().add_reader(links, links_changed)
    reconciler.mark(_KEY)
    try:
        await reconciler.run()
    finally:
        asyncio.get_running_loop().remove_reader(links)
        links.close()
        kernel.close()


def _ipv4(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text)
    except ValueError:
        return None


class Kernel:
    """The namespace as far as it is ours: what was acknowledged last, and the two doors. Blocking; one thread at a time."""

    def __init__(self, namespace: int | None = None) -> None:
        self._nftables, self._network = Nftables(namespace), Network(namespace)
        self._have: Program | None = None
        self._unfinished: Program | None = None
        self._generation = -1
        self._distrusted = False

    def distrust(self) -> None:
        """What is there may have changed: the next ``bring_to`` reads it. May be called from any thread."""
        self._distrusted = True

    def close(self) -> None:
        """Close the doors. What is programmed stays."""
        self._nftables.close()
        self._network.close()

    def bring_to(self, want: Program) -> list[nft.Change]:
        """Program the kernel. Gives the changes that packets in flight may not meet yet: ``finish`` makes them.

        Raises:
            KernelRefused: then nothing is assumed of what is there, and the next call reads it again.
        """
        have, self._have, self._unfinished = self._have, None, None
        distrusted, self._distrusted = self._distrusted, False
        if have is None or distrusted or self._nftables.generation() != self._generation:
            have = self._read()
        # Routes before what sends packets to them; removals the other way round.
        self._network.apply([replace(route) for key, route in _routes(want).items() if key not in _routes(have)])
        self._network.apply([replace(rule) for rule in want.rules - have.rules])
        changes = difference(nft.Ruleset((have.table,) if have.table.chains else ()), nft.Ruleset((want.table,)))
        now, after = ruleset.later(changes)
        self._nftables.apply_batches(now)
        self._network.apply([delete(rule, missing_ok=True) for rule in have.rules - want.rules])
        self._network.apply([delete(route, missing_ok=True) for key, route in _routes(have).items() if key not in _routes(want)])
        if after:
            self._unfinished = want
        else:
            self._acknowledge(want)
        return after

    def finish(self, after: list[nft.Change]) -> None:
        """Make the changes that had to wait. Raises as ``bring_to``."""
        self._nftables.apply_batches(batches(after))
        if self._unfinished is not None:
            self._acknowledge(self._unfinished)

    def _acknowledge(self, want: Program) -> None:
        self._have, self._unfinished, self._generation = want, None, self._nftables.generation()

    def _read(self) -> Program:
        found = self._nftables.dump([ruleset.TABLE]).tables
        routes = ruleset.ours(self._network.routes())
        rules = (Rule(rule.mark, rule.table, rule.priority) for rule in self._network.rules() if rule.priority == ruleset.RULE_PRIORITY)
        return Program(found[0] if found else nft.Table(*ruleset.TABLE), frozenset(routes.values()), frozenset(rules))


def _routes(program: Program) -> dict[tuple[object, ...], Route]:
    return {ruleset.identity(route): route for route in program.routes}
