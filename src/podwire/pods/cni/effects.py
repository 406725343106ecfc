"""What an attachment has beside its wires: host ports, the machine's address for what leaves, rates. Carried out here.

The tables are read, changed as values (``ruleset``) and written as a difference; only a network that asks for any of it loads what
that takes.
"""

from __future__ import annotations

from collections.abc import Set
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.linux.network import Network
from podwire.pods.cni.configuration import Configuration, Rate
from podwire.pods.network import AttachmentBroken
from podwire.pods.wiring import Wires
from podwire.wire.rtnetlink import Route, TokenBucket, replace
from podwire.wire.rtnetlink.route import LOCAL

if TYPE_CHECKING:
    from podwire import nft
    from podwire.linux.nftables import Nftables
    from podwire.pods.cni.ruleset import Publication

_LOOPBACK_METRIC = 1024
_LATENCY_S = 0.025
_LEAST_BURST = 2_000
_MOST_BURST = 0x7FFFFFFF


def publication(asked: Configuration, pod: Wires) -> Publication | None:
    """What the tables should say of the attachment; None: nothing."""
    if not asked.port_mappings and not asked.masquerade:
        return None
    from podwire.pods.cni.ruleset import Publication

    networks = tuple(one.subnet for ranges in asked.ipam.ranges for one in ranges) if asked.ipam else ()
    networks = tuple(network for network in networks if any(address in network for address in pod.addresses))
    bridged = networks if asked.mode == "bridge" else ()
    return Publication(pod.port, pod.addresses, asked.port_mappings, bridged, networks if asked.masquerade else ())


def publish(wanted: Publication, way: str) -> None:
    """Write it; ``way`` is the link that leads to the container. Raises HostPortTaken, KernelRefused."""
    from podwire.linux.nftables import Nftables
    from podwire.pods.cni.ruleset import NAMES, with_publication

    with Nftables() as nftables:
        have = nftables.dump(NAMES)
        _exchange(nftables, have, with_publication(have, wanted))
    if wanted.mappings:
        _answer_loopback(way, {address.version for address in wanted.addresses})


def _answer_loopback(way: str, families: Set[int]) -> None:
    """Let the machine's own loopback addresses be told by what comes back over this link.

    IPv4 has a setting for it. For IPv6 the kernel looks for the route to ::1 among those of the link that the answer came by; the answer it
    sees there has been translated back. What comes from outside with such an address it drops before, in either family.
    """
    if 4 in families:
        Path(f"/proc/sys/net/ipv4/conf/{way}/route_localnet").write_text("1")
    if 6 in families:
        with Network() as network:
            # Of a metric for itself: a route of the same one would take the place of another link's.
            metric = _LOOPBACK_METRIC + network.index(way)
            network.apply([replace(Route(ip_network("::1/128"), link=way, table=LOCAL, type="local", metric=metric))])


def withdraw(owner: str) -> None:
    """Nothing of the attachment is in the tables any more. Raises KernelRefused."""
    from podwire.linux.nftables import Nftables
    from podwire.pods.cni.ruleset import NAMES, without

    with Nftables() as nftables:
        have = nftables.dump(NAMES)
        if have.tables:
            _exchange(nftables, have, without(have, owner))


def _exchange(nftables: Nftables, have: nft.Ruleset, want: nft.Ruleset) -> None:
    from podwire.nft.difference import difference

    nftables.apply_batches(difference(have, want))


def limit(asked: Configuration, namespace: int, interface: str) -> None:
    """Hold the rates that a runtime asks for. Raises KernelRefused."""
    if asked.egress is not None or asked.ingress is not None:
        hold(asked.ingress, asked.egress, namespace, interface)


def hold(ingress: Rate | None, egress: Rate | None, namespace: int, interface: str) -> None:
    """Hold rates: towards the container at the machine's end of its pair, from it at its own. Raises KernelRefused."""
    if egress is not None:
        with Network(namespace) as inside:
            inside.apply([replace(_bucket(interface, egress))])
    if ingress is not None:
        with Network() as outside:
            outside.apply([replace(_bucket(_peer(outside, namespace, interface), ingress))])


def verify(asked: Configuration, wanted: Publication | None, namespace: int, interface: str) -> None:
    """Raises AttachmentBroken for what is no longer there."""
    if wanted is not None:
        from podwire.linux.nftables import Nftables
        from podwire.pods.cni.ruleset import NAMES, with_publication

        with Nftables() as nftables:
            have = nftables.dump(NAMES)
        if {table.id: table for table in with_publication(have, wanted).tables} != {table.id: table for table in have.tables}:
            raise AttachmentBroken("the tables podwire-cni do not hold the container's host ports or masquerade")
    for rate, inner in ((asked.egress, True), (asked.ingress, False)):
        if rate is None:
            continue
        with Network(namespace) if inner else Network() as network:
            name = interface if inner else _peer(network, namespace, interface)
            held = {bucket.link: bucket.rate for bucket in network.queues()}
        if held.get(name) != _bucket(name, rate).rate:
            raise AttachmentBroken(f"{name} does not hold the rate of {rate.rate} bits a second")


def way_to(namespace: int, interface: str) -> str:
    """The link of the machine that leads to a container: its pair's end, or the bridge that this is a port of."""
    with Network() as outside:
        name = _peer(outside, namespace, interface)
        return outside.links()[name].master or name


def _peer(outside: Network, namespace: int, interface: str) -> str:
    with Network(namespace) as inside:
        link = inside.find(interface)
    names = {found.index: name for name, found in outside.links().items()}
    if link is None or link.peer_index not in names:
        raise AttachmentBroken(f"{interface} of the container is no end of a pair whose other end is on the machine")
    return names[link.peer_index]


def _bucket(link: str, rate: Rate) -> TokenBucket:
    """Bits to bytes; what waits longer than 25 ms is dropped, as the plugin bandwidth of the CNI project has it."""
    burst = min(max(rate.burst // 8, _LEAST_BURST), _MOST_BURST)
    a_second = max(rate.rate // 8, 1)
    return TokenBucket(link, a_second, burst, min(burst + int(a_second * _LATENCY_S), _MOST_BURST))
