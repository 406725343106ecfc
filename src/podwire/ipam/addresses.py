"""Pools of addresses of one range, of either family: Service addresses, external addresses.

The first address of a range and, in IPv4, the last are never given. Pure: the random choice is a parameter.
Not here: who asks for an address and why, addresses of Pods (``ranges.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

from podwire.ipam.pool import Below, Pool, static_part

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

TAKEN = "provided IP is already allocated"
FULL = "range is full"


class Unavailable(Exception):
    """An address or port that cannot be had. The text says why."""


def service_static_part(network: IPNetwork) -> int:
    """Say how many Service addresses are kept for those who ask by address: a sixteenth of the range, 16 to 256."""
    return static_part(network.num_addresses, step=16, least=16, most=256)


class AddressPool:
    """The addresses of a range. ``reserved`` ones are never given and cannot be asked for."""

    def __init__(self, network: IPNetwork, *, static: int = 0, reserved: Iterable[IPAddress] = ()) -> None:
        self.network = network
        self._first = int(network.network_address) + 1
        last = int(network.broadcast_address) - (1 if network.version == 4 else 0)
        self._pool = Pool(max(0, last - self._first + 1), static)
        self._reserved = frozenset(reserved)
        for address in self._reserved:
            self._pool.take(int(address) - self._first)

    @property
    def family(self) -> str:
        """``IPv4`` or ``IPv6``."""
        return f"IPv{self.network.version}"

    @property
    def free(self) -> int:
        return self._pool.free

    def may_give(self, address: IPAddress) -> bool:
        """Say whether an address is one of those that the pool gives, taken or not."""
        inside = address.version == self.network.version and 0 <= int(address) - self._first < self._pool.size
        return inside and address not in self._reserved

    def take(self, address: IPAddress) -> None:
        """Take one address. Raises Unavailable when it is outside of the range, not for use, or taken."""
        if address.version != self.network.version or address not in self.network:
            raise Unavailable(f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {self.network}")
        number = int(address) - self._first
        if address in self._reserved or not 0 <= number < self._pool.size:
            raise Unavailable(f"the provided IP ({address}) is reserved in {self.network}")
        if not self._pool.take(number):
            raise Unavailable(TAKEN)

    def mark(self, address: IPAddress) -> None:
        """Note that somebody has an address. One that is taken, or that the pool does not give, is no error."""
        if self.may_give(address):
            self._pool.take(int(address) - self._first)

    def give(self, below: Below) -> IPAddress:
        """Take some free address. Raises Unavailable when there is none."""
        number = self._pool.give(below)
        if number is None:
            raise Unavailable(FULL)
        return ip_address(self.network.network_address + 1 + number)

    def release(self, address: IPAddress) -> None:
        """Give an address back. One that nobody has, or that is none of this range, is no error."""
        if address.version == self.network.version and address not in self._reserved:
            self._pool.release(int(address) - self._first)
