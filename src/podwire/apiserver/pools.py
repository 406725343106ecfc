"""The pools that the API gives out of, and a grant: what one write takes and gives back.

Here: taking on a grant, so that it can be undone. Not here: who needs what (``allocation.py``, ``allocation_services.py``),
arithmetic (``podwire.ipam``). The random choice is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from random import Random

from podwire.apiserver.service_ranges import ServiceRanges
from podwire.apiserver.validation import FieldError
from podwire.ipam.addresses import FULL, AddressPool, IPAddress, IPNetwork, Unavailable
from podwire.ipam.ports import PortPool

DEFAULT_RANGE = "kubernetes"  # the ServiceCIDR of the configured ranges, there from the start


@dataclass(frozen=True)
class Ranges:
    """What may be given out. The first Service range is that of the primary family; a second one, of the other family, makes dual-stack.

    ``external_reserved`` are addresses of the external ranges that have another use (Cloud NAT's).
    """

    services: tuple[IPNetwork, ...] = (ip_network("10.8.0.0/20"),)
    node_ports: tuple[int, int] = (30000, 32767)
    external: tuple[IPNetwork, ...] = (ip_network("203.0.113.0/24"),)
    external_reserved: tuple[IPAddress, ...] = (ip_address("203.0.113.1"),)


@dataclass
class Grant:
    """What one write has taken and what it gives back. ``errors`` not empty: the write is to be refused, and abandoned."""

    errors: list[FieldError] = field(default_factory=list)
    taken: list[Callable[[], None]] = field(default_factory=list)
    returned: list[Callable[[], None]] = field(default_factory=list)

    def commit(self) -> None:
        """The object is stored: what it no longer needs is free."""
        for give_back in self.returned:
            give_back()
        self.taken, self.returned = [], []

    def abandon(self) -> None:
        """The object is not stored: what was taken for it is free."""
        for give_back in self.taken:
            give_back()
        self.taken, self.returned = [], []


class Pools:
    """The pools, and taking from them on a grant."""

    def __init__(self, ranges: Ranges, random: Random) -> None:
        self._below = random.randrange
        self.services = {f"IPv{network.version}": ServiceRanges() for network in ranges.services}
        for network in ranges.services:
            self.services[f"IPv{network.version}"].put(DEFAULT_RANGE, [network], ready=True)
        self.external = [
            AddressPool(network, reserved=[one for one in ranges.external_reserved if one in network]) for network in ranges.external
        ]
        self.node_ports = PortPool(*ranges.node_ports)

    @property
    def families(self) -> tuple[str, ...]:
        """The families of Service addresses, the primary first."""
        return tuple(self.services)

    def service_address(self, family: str, wanted: str, grant: Grant) -> str:
        """Take a Service address, any when ``wanted`` is empty. Raises Unavailable."""
        ranges = self.services[family]
        if wanted:
            address = ip_address(wanted)
            ranges.take(address)
        else:
            address = ranges.give(self._below)
        grant.taken.append(partial(ranges.release, address))
        return str(address)

    def keep_service_address(self, address: IPAddress, grant: Grant) -> None:
        """Take an address out of reach of Services, whether a range holds it or not. Raises Unavailable."""
        ranges = self.services.get(f"IPv{address.version}")
        if ranges is not None:
            ranges.keep(address)
            grant.taken.append(partial(ranges.release, address))

    def put_service_range(self, name: str, networks: Sequence[IPNetwork], *, ready: bool) -> None:
        """Take the ranges of a ServiceCIDR object as they are now, none when it is gone. Only families of the cluster count."""
        for family, ranges in self.services.items():
            ranges.put(name, [network for network in networks if f"IPv{network.version}" == family], ready=ready)

    def release_service_address(self, text: str, grant: Grant) -> None:
        address = ip_address(text)
        pool = self.services.get(f"IPv{address.version}")
        if pool is not None:
            grant.returned.append(partial(pool.release, address))

    def node_port(self, wanted: int, grant: Grant) -> int:
        """Take a node port, any when ``wanted`` is 0. Raises Unavailable."""
        if wanted:
            self.node_ports.take(wanted)
        else:
            wanted = self.node_ports.give(self._below)
        grant.taken.append(partial(self.node_ports.release, wanted))
        return wanted

    def release_node_port(self, port: int, grant: Grant) -> None:
        grant.returned.append(partial(self.node_ports.release, port))

    def external_address(self, wanted: str, grant: Grant) -> str:
        """Take an external address, any when ``wanted`` is empty. Raises Unavailable."""
        if wanted:
            pool = next((one for one in self.external if ip_address(wanted) in one.network), None)
            if pool is None:
                shown = ", ".join(str(one.network) for one in self.external)
                raise Unavailable(f"the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {shown}")
            return self._address(pool, wanted, grant)
        for pool in self.external:
            if pool.free:
                return self._address(pool, "", grant)
        raise Unavailable(FULL)

    def release_external_address(self, text: str, grant: Grant) -> None:
        address = ip_address(text)
        for pool in self.external:
            if address in pool.network:
                grant.returned.append(partial(pool.release, address))

    def _address(self, pool: AddressPool, wanted: str, grant: Grant) -> str:
        if wanted:
            address = ip_address(wanted)
            pool.take(address)
        else:
            address = pool.give(self._below)
        grant.taken.append(partial(pool.release, address))
        return str(address)
