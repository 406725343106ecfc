"""What the VPC network should do, from the cloud's resources.

Here: instances with their routes, and groups of instances behind addresses, as frozen values; pure. Not here: tables of the
kernel (ruleset.py), who wrote the resources.

An instance is known in marks, rules and routing tables by the number of its own address, so these never change and nothing has to be
remembered over a restart.

Source: https://cloud.google.com/load-balancing/docs/network/networklb-target-pools
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from podwire.objects.compute import ForwardingRule, Instance, TargetPool

PROTOCOLS: Final = frozenset({"TCP", "UDP", "SCTP"})


@dataclass(frozen=True, order=True)
class Host:
    """An instance: its address in the VPC network, that of the second family if it has one, and the ranges that are routed to it."""

    name: str
    address: IPv4Address
    ranges: tuple[IPv4Network | IPv6Network, ...] = ()
    ipv6: IPv6Address | None = None

    @property
    def mark(self) -> int:
        """The number that stands for the instance in marks and as its routing table."""
        return int(self.address)


@dataclass(frozen=True, order=True)
class Group:
    """Instances that share connections. ``by_client``: by the client's address alone, not by ports."""

    hosts: tuple[Host, ...] = ()
    by_client: bool = False

    @property
    def number(self) -> int:
        """A number made of what the group is, so that equal groups share a table and a changed one gets another."""
        text = f"{self.by_client}|" + "|".join(f"{host.name}={host.address}" for host in self.hosts)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") or 1


@dataclass(frozen=True, order=True)
class Forwarding:
    """What arrives at an address, protocol and port goes to a group. ``port`` None: all ports."""

    address: IPv4Address
    protocol: str
    port: int | None
    group: Group
    note: str = ""


@dataclass(frozen=True)
class Fabric:
    """All of it, in a fixed order."""

    hosts: tuple[Host, ...] = ()
    forwardings: tuple[Forwarding, ...] = ()


def desired(instances: Iterable[Instance], rules: Iterable[ForwardingRule], pools: Iterable[TargetPool]) -> Fabric:
    """Give what the network should do. What does not read (no address yet, a range that is none) is left out until it does.

    A rule for an address, protocol and port that another one has is passed over: the first by name keeps it.
    """
    hosts = {host.name: host for host in map(_host, instances) if host is not None}
    groups = {pool.name: _group(pool, hosts) for pool in pools}
    found: dict[tuple[IPv4Address, str, int | None], Forwarding] = {}
    for rule in sorted(rules, key=lambda rule: rule.name):
        address = _address(rule.spec.ip_address)
        if address is None or rule.spec.ip_protocol not in PROTOCOLS:
            continue
        group = groups.get(rule.spec.target, Group())
        for port in rule.spec.ports or (None,):
            one = Forwarding(address, rule.spec.ip_protocol.lower(), port, group, rule.name)
            found.setdefault((address, one.protocol, port), one)
    ordered = sorted(found.values(), key=lambda one: (one.address, one.protocol, one.port or 0))
    return Fabric(tuple(sorted(hosts.values())), tuple(ordered))


def _host(instance: Instance) -> Host | None:
    for interface in instance.spec.network_interfaces:
        address = _address(interface.network_ip)
        if address is not None:
            ipv6 = _ipv6(interface.ipv6_address)
            ranges = [one for one in map(_network, interface.alias_ip_ranges) if one is not None and (one.version == 4 or ipv6)]
            return Host(instance.name, address, tuple(sorted(ranges, key=lambda one: (one.version, one.network_address.packed))), ipv6)
    return None


def _group(pool: TargetPool, hosts: dict[str, Host]) -> Group:
    members = tuple(hosts[name] for name in sorted(set(pool.spec.instances)) if name in hosts)
    return Group(members, pool.spec.session_affinity in ("CLIENT_IP", "CLIENT_IP_PROTO"))


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None


def _ipv6(text: str) -> IPv6Address | None:
    try:
        return IPv6Address(text)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None
