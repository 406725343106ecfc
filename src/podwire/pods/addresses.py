"""Which Pod has which address of the node's range: host-local allocation, with one record on disk for each address.

A record is a symbolic link that is named after its address and leads to the name of its owner: the file system makes it whole in one step,
and refuses one that exists. So no address is given twice, whoever is killed at whatever moment, and no record is half-written. Addresses
are given in turn, so that one that was just freed rests until the range has been gone through once: what still remembers its former owner
finds nobody, rather than somebody else.

Several processes may allocate from one folder: a lock on it is held meanwhile, and the kernel drops it with its holder.

Not here: which addresses a Pod asks for, and putting them on a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_LAST = ".last"
_LOCK = ".lock"


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
        self._folder = folder
        lowest, highest = int(network.network_address) + 1, int(network.broadcast_address) - (1 if network.version == 4 else 0)
        self._first = lowest if first is None else int(first)
        self._last_given = highest if last is None else int(last)
        if not lowest <= self._first <= self._last_given <= highest:
            raise ValueError(f"{first or ''}-{last or ''} is no part of {network}")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def allocate(self, owner: str, wanted: IPAddress | None = None) -> IPAddress:
        """Give an address, or the ``wanted`` one, to ``owner``, who must not be empty. Asking again gives a further one.

        Raises:
            RangeExhausted.
            AddressTaken: the wanted one cannot be had.
        """
        with self._locked():
            if wanted is not None:
                return self._give(wanted, owner)
            for address in self._in_turn():
                with contextlib.suppress(FileExistsError):
                    self._record(address, owner)
                    self._note(address)
                    return address
        raise RangeExhausted(f"no address left in {self._words()}: all {sum(1 for _ in self._in_turn())} are in use")

    def has_room(self) -> bool:
        """Whether there is an address to give."""
        taken = set(self._names())
        return any(str(address) not in taken for address in self._in_turn())

    def holds(self, address: IPAddress) -> bool:
        """Whether the address is one that may be given."""
        return address in self.network and self._first <= int(address) <= self._last_given and address != self.gateway

    def _give(self, wanted: IPAddress, owner: str) -> IPAddress:
        if not self.holds(wanted):
            raise AddressTaken(f"{wanted} is none of the addresses that may be given of {self._words()}")
        try:
            self._record(wanted, owner)
        except FileExistsError:
            if self.owners().get(wanted) != owner:
                raise AddressTaken(f"{wanted} is in use") from None
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
                found[ip_address(name)] = os.readlink(self._folder / name)
        return found

    def _names(self) -> Iterator[str]:
        return (entry.name for entry in os.scandir(self._folder) if not entry.name.startswith("."))

    def _in_turn(self) -> Iterator[IPAddress]:
        """What may be given, from the one after the last that was given on, round the range."""
        kind, first, end = type(self.network.network_address), self._first, self._last_given + 1
        following = self._last() + 1
        start = following if first <= following < end else first
        for number in itertools.chain(range(start, end), range(first, start)):
            if number != int(self.gateway):
                yield kind(number)

    def _last(self) -> int:
        try:
            fd = os.open(f"{self._folder}/{_LAST}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return int(ip_address(os.read(fd, 64).decode().strip()))
            finally:
                os.close(fd)
        except (FileNotFoundError, ValueError):
            return 0  # the first allocation of all, or one whose note was cut off: begin at the front

    def _note(self, address: IPAddress) -> None:
        """Written over what was there, in one piece: to truncate a file first makes some file systems write it to the disk at once."""
        fd = os.open(f"{self._folder}/{_LAST}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{address!s:<40}".encode())
        finally:
            os.close(fd)

    def _record(self, address: IPAddress, owner: str) -> None:
        """Raises FileExistsError."""
        os.symlink(owner, f"{self._folder}/{address}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(f"{self._folder}/{_LOCK}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
