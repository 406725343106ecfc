"""The ranges of one family that Services get their addresses from: those of the ServiceCIDR objects.

Ranges may overlap and may be those of several objects. An address that is taken is taken in all of them, whether some range holds it or
not; it is given out of any range that is ready, that is, one of whose objects is. A range that goes takes no address away from anybody.

Pure: the random choice is a parameter. Not here: the objects and what becomes of them (``range_objects.py``), who needs an address
(``allocation_services.py``).

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#ip-address-objects and
https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/
"""

from __future__ import annotations

from collections.abc import Iterable

from podwire.ipam.addresses import FULL, TAKEN, AddressPool, IPAddress, IPNetwork, Unavailable, service_static_part
from podwire.ipam.pool import Below

ELSEWHERE = "the provided network does not match the current range"
_LONGEST_IPV6 = 64  # bits: a larger range of this family is given nothing of


class ServiceRanges:
    """The ranges, and what of them is taken."""

    def __init__(self) -> None:
        self._taken: set[IPAddress] = set()
        self._pools: dict[IPNetwork, AddressPool] = {}
        self._owners: dict[IPNetwork, dict[str, bool]] = {}  # by the object's name: whether it is ready

    @property
    def free(self) -> int:
        """How many addresses can be given. What two ranges share is counted twice."""
        return sum(pool.free for pool in self._ready())

    def put(self, name: str, networks: Iterable[IPNetwork], *, ready: bool) -> None:
        """Take the ranges of an object as they are now."""
        wanted = {network for network in networks if network.version == 4 or network.prefixlen >= _LONGEST_IPV6}
        for network in [one for one, owners in self._owners.items() if name in owners and one not in wanted]:
            self._leave(network, name)
        for network in wanted:
            if network not in self._pools:
                self._pools[network] = _pool(network, self._taken)
            self._owners.setdefault(network, {})[name] = ready

    def remove(self, name: str) -> None:
        """Forget the ranges of an object. One that is not known is no error."""
        self.put(name, (), ready=False)

    def _leave(self, network: IPNetwork, name: str) -> None:
        del self._owners[network][name]
        if not self._owners[network]:
            del self._owners[network], self._pools[network]

    def _ready(self) -> list[AddressPool]:
        return [pool for network, pool in self._pools.items() if any(self._owners[network].values())]

    def take(self, address: IPAddress) -> None:
        """Take one address. Raises Unavailable when no range that is ready gives it, or it is taken."""
        if not any(pool.may_give(address) for pool in self._ready()):
            raise Unavailable(ELSEWHERE)
        self.keep(address)

    def keep(self, address: IPAddress) -> None:
        """Take one address, whatever ranges there are. Raises Unavailable when it is taken."""
        if address in self._taken:
            raise Unavailable(TAKEN)
        self._mark(address)

    def give(self, below: Below) -> IPAddress:
        """Take some free address, out of the oldest range that has one. Raises Unavailable."""
        for pool in self._ready():
            if pool.free:
                address = pool.give(below)
                self._mark(address)
                return address
        raise Unavailable(FULL)

    def release(self, address: IPAddress) -> None:
        """Give an address back. One that nobody has is no error."""
        self._taken.discard(address)
        for pool in self._pools.values():
            pool.release(address)

    def _mark(self, address: IPAddress) -> None:
        self._taken.add(address)
        for pool in self._pools.values():
            pool.mark(address)


def _pool(network: IPNetwork, taken: Iterable[IPAddress]) -> AddressPool:
    pool = AddressPool(network, static=service_static_part(network))
    for address in taken:
        pool.mark(address)
    return pool
