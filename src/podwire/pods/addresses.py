"""Which Pod has which address of the node's range: host-local allocation, recorded on disk (``address_log``).

Addresses are given in turn, so that one that was just freed rests until the range has been gone through once: what still remembers its
former owner finds nobody, rather than somebody else. Several processes may allocate from one folder.

Not here: which addresses a Pod asks for, and putting them on a link.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from podwire.pods.address_log import AddressLog

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


class RangeExhausted(Exception):
    """Every address of the range is in use. The text names the range."""


class AddressTaken(Exception):
    """The address that was asked for is another's, or is none that may be given. The text names it."""


class Addresses:
    """The addresses of one range, recorded in one folder.

    Given are those from ``first`` to ``last``; without them, all. The network's own address, the ``gateway`` (without one, the first
    address: the bridge has it) and, for IPv4, the last one (broadcast) are never given. Raises ValueError for ends that are not within.
    """

    def __init__(
        self,
        folder: Path,
        network: IPNetwork,
        *,
        first: IPAddress | None = None,
        last: IPAddress | None = None,
        gateway: IPAddress | None = None,
    ) -> None:
        self.network = network
        self.gateway: IPAddress = gateway or network[1]
        lowest, highest = int(network.network_address) + 1, int(network.broadcast_address) - (1 if network.version == 4 else 0)
        self._first = lowest if first is None else int(first)
        self._last_given = highest if last is None else int(last)
        if not lowest <= self._first <= self._last_given <= highest:
            raise ValueError(f"{first or ''}-{last or ''} is no part of {network}")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log = AddressLog(str(folder))

    def allocate(self, owner: str, wanted: IPAddress | None = None) -> IPAddress:
        """Give an address, or the ``wanted`` one, to ``owner``, who must not be empty. Asking again gives a further one.

        Raises:
            RangeExhausted.
            AddressTaken: the wanted one cannot be had.
        """
        log = self.log
        with log.locked():
            if wanted is not None:
                return self._give(wanted, owner)
            for address in self._in_turn(int(ip_address(log.last)) if log.last else 0):
                if (text := str(address)) not in log.owners:
                    log.give(text, owner, in_turn=True)
                    return address
        raise RangeExhausted(f"no address left in {self._words()}: all {sum(1 for _ in self._in_turn())} are in use")

    def has_room(self) -> bool:
        """Whether there is an address to give."""
        with self.log.locked():
            return any(str(address) not in self.log.owners for address in self._in_turn())

    def holds(self, address: IPAddress) -> bool:
        """Whether the address is one that may be given."""
        return address in self.network and self._first <= int(address) <= self._last_given and address != self.gateway

    def _give(self, wanted: IPAddress, owner: str) -> IPAddress:
        if not self.holds(wanted):
            raise AddressTaken(f"{wanted} is none of the addresses that may be given of {self._words()}")
        text = str(wanted)
        if self.log.owners.get(text, owner) != owner:
            raise AddressTaken(f"{wanted} is in use")
        if text not in self.log.owners:
            self.log.give(text, owner, in_turn=False)
        return wanted

    def _words(self) -> str:
        kind = type(self.network.network_address)
        whole = int(self.network.network_address) + 1, int(self.network.broadcast_address) - (1 if self.network.version == 4 else 0)
        return (
            str(self.network)
            if (self._first, self._last_given) == whole
            else f"{kind(self._first)}-{kind(self._last_given)} of {self.network}"
        )

    def release(self, address: IPAddress) -> None:
        """Take an address back. One that nobody has is none."""
        with self.log.locked():
            self.log.take_back(str(address))

    def release_owner(self, owner: str) -> list[IPAddress]:
        """Take back every address of an owner, and give them."""
        with self.log.locked():
            found = [address for address, holder in self.log.owners.items() if holder == owner]
            for address in found:
                self.log.take_back(address)
        return sorted(map(ip_address, found), key=int)

    def owners(self) -> dict[IPAddress, str]:
        """Who has which address."""
        with self.log.locked():
            return {ip_address(address): owner for address, owner in self.log.owners.items()}

    def _in_turn(self, last: int = 0) -> Iterator[IPAddress]:
        """What may be given, from the one after the last that was given on, round the range."""
        kind, first, end = type(self.network.network_address), self._first, self._last_given + 1
        following = last + 1
        start = following if first <= following < end else first
        for number in itertools.chain(range(start, end), range(first, start)):
            if number != int(self.gateway):
                yield kind(number)
