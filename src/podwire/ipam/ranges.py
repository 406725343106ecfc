"""Arithmetic of ranges: parts of a range, addresses of a node's Pods, ranges that collide.

Pure functions of ranges. Not here: what is taken (``pool.py`` and its users).

Source: https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips (a /24 of Pods for each node)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from podwire.ipam.addresses import IPAddress, IPNetwork


@dataclass(frozen=True)
class Overlap:
    """Two ranges, each with its name, that share addresses."""

    first: str
    first_range: IPNetwork
    second: str
    second_range: IPNetwork

    def __str__(self) -> str:
        return f"{self.first} {self.first_range} overlaps {self.second} {self.second_range}"


def overlaps(ranges: Mapping[str, IPNetwork]) -> list[Overlap]:
    """Find every pair of named ranges that share addresses, in the order of the mapping.

    >>> from ipaddress import ip_network
    >>> [str(one) for one in overlaps({"pods": ip_network("10.4.0.0/14"), "nodes": ip_network("10.7.0.0/20")})]
    ['pods 10.4.0.0/14 overlaps nodes 10.7.0.0/20']
    """
    names = list(ranges)
    return [
        Overlap(first, ranges[first], second, ranges[second])
        for place, first in enumerate(names)
        for second in names[place + 1 :]
        if ranges[first].version == ranges[second].version and _share(ranges[first], ranges[second])
    ]


def _share(first: IPNetwork, second: IPNetwork) -> bool:
    return int(first.network_address) <= int(second.broadcast_address) and int(second.network_address) <= int(first.broadcast_address)


def part_count(network: IPNetwork, prefix_length: int) -> int:
    """Say how many parts of a prefix length a range has. None when the parts would be larger than it."""
    return 1 << (prefix_length - network.prefixlen) if prefix_length >= network.prefixlen else 0


def part(network: IPNetwork, prefix_length: int, index: int) -> IPNetwork:
    """Give one part of a range, the first being 0. Raises IndexError when there is no such part."""
    if not 0 <= index < part_count(network, prefix_length):
        raise IndexError(f"{network} has no part number {index} of /{prefix_length}")
    size = 1 << (network.max_prefixlen - prefix_length)
    return ip_network((int(network.network_address) + index * size, prefix_length))


def free_part(network: IPNetwork, prefix_length: int, taken: Collection[IPNetwork]) -> IPNetwork | None:
    """Give the first part of a range that overlaps none of those taken, ``None`` when there is none."""
    shift = network.max_prefixlen - prefix_length
    base = int(network.network_address)
    used: set[int] = set()
    for one in taken:
        if one.version == network.version and _share(one, network):
            first, last = max(int(one.network_address), base), min(int(one.broadcast_address), int(network.broadcast_address))
            used.update(range((first - base) >> shift, ((last - base) >> shift) + 1))
    free = next((index for index in range(part_count(network, prefix_length)) if index not in used), None)
    return None if free is None else part(network, prefix_length, free)


def gateway(network: IPNetwork) -> IPAddress:
    """Give the address of a node's Pod range that its bridge has: the first after the network's."""
    return ip_address(network.network_address + 1)


def _bounds(network: IPNetwork) -> tuple[int, int]:
    """The first and the last address that a Pod may have: after the gateway, and in IPv4 before the broadcast address."""
    return int(network.network_address) + 2, int(network.broadcast_address) - (1 if network.version == 4 else 0)


def pod_addresses(network: IPNetwork) -> Iterator[IPAddress]:
    """Give the addresses that Pods of a node may have, in order: without the network's, the gateway's and the broadcast address."""
    first, last = _bounds(network)
    base = network.network_address
    return (ip_address(base + offset) for offset in range(2, last - first + 3))


def next_pod_address(network: IPNetwork, taken: Collection[IPAddress], last_given: IPAddress | None = None) -> IPAddress | None:
    """Give the free address that follows the one given last, ``None`` when all are taken: an address rests before it is used again."""
    first, last = _bounds(network)
    count = last - first + 1
    start = int(last_given) + 1 - first if last_given is not None and last_given in network else 0
    for step in range(max(0, count)):
        candidate = ip_address(network.network_address + 2 + (start + step) % count)
        if candidate not in taken:
            return candidate
    return None
