"""Which Pod has which address of the node's range: host-local allocation, with one record on disk for each address.

A record is a file named after its address that holds its owner. It is made by linking a file that is already whole, which
the file system refuses if the name exists: no address is given twice, whoever is killed at whatever moment, and no record is
half-written. Addresses are given in turn, so that one that was just freed rests until the range has been gone through once:
what still remembers its former owner finds nobody, rather than somebody else.

Several processes may allocate from one folder: a lock on it is held meanwhile, and the kernel drops it with its holder.

Not here: which addresses a Pod asks for, and putting them on a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_LAST = ".last"
_LOCK = ".lock"


class RangeExhausted(Exception):
    """Every address of the range is in use. The text names the range."""


class Addresses:
    """The addresses of one range, recorded in one folder.

    The network's own address, the first one (the bridge has it) and, for IPv4, the last one (broadcast) are never given.
    """

    def __init__(self, folder: Path, network: IPNetwork) -> None:
        self.network = network
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def gateway(self) -> IPAddress:
        """The range's first address, which the bridge has."""
        return self.network[1]

    def allocate(self, owner: str) -> IPAddress:
        """Give an address to ``owner``, who must not be empty. Asking again gives a further one.

        Raises:
            RangeExhausted.
        """
        with self._locked():
            taken = set(self._names())
            address = self._next(taken)
            if address is None:
                raise RangeExhausted(f"no address left in {self.network}: all {len(taken)} are in use")
            self._record(address, owner)
            (self._folder / _LAST).write_text(str(address))
        return address

    def release(self, address: IPAddress) -> None:
        """Take an address back. One that nobody has is none."""
        (self._folder / str(address)).unlink(missing_ok=True)

    def release_owner(self, owner: str) -> list[IPAddress]:
        """Take back every address of an owner, and give them."""
        found = sorted((address for address, holder in self.owners().items() if holder == owner), key=int)
        for address in found:
            self.release(address)
        return found

    def owners(self) -> dict[IPAddress, str]:
        """Who has which address."""
        found: dict[IPAddress, str] = {}
        for name in self._names():
            with contextlib.suppress(FileNotFoundError):  # released meanwhile
                found[ip_address(name)] = (self._folder / name).read_text()
        return found

    def _names(self) -> Iterator[str]:
        return (entry.name for entry in os.scandir(self._folder) if not entry.name.startswith("."))

    def _next(self, taken: set[str]) -> IPAddress | None:
        first = int(self.network.network_address) + 2
        end = int(self.network.broadcast_address) + (0 if self.network.version == 4 else 1)
        if len(taken) >= end - first:
            return None
        kind = type(self.network.network_address)
        start = self._last() + 1
        if not first <= start < end:
            start = first
        number = start
        while str(kind(number)) in taken:
            number = number + 1 if number + 1 < end else first
            if number == start:
                return None
        return kind(number)

    def _last(self) -> int:
        try:
            return int(ip_address((self._folder / _LAST).read_text()))
        except (FileNotFoundError, ValueError):
            return 0  # the first allocation of all, or one whose note was cut off: begin at the front

    def _record(self, address: IPAddress, owner: str) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=".new-") as file:
            file.write(owner)
            file.flush()
            os.link(file.name, self._folder / str(address))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self._folder / _LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
