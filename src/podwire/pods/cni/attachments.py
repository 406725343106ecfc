"""What a network has attached, on disk, as records that are whole in one step.

A lease is a line of ``DATA/NETWORK/leases/RANGE/given``. What has no lease of ours (another plugin gave the address, or made the interface)
is a symbolic link that leads to what it says, ``DATA/NETWORK/attachments/PORT``. Both say whose it is and how it is attached; for a runtime
may call DEL without the result of ADD, after the machine was restarted, or never, and what is to be undone must be known without it.

Beside the records is the network's lock, which is held from an allocation until the link is there; so under it a lease whose link is
not there is one that nobody uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from podwire.pods.cni.configuration import Ipam, IPInterface
from podwire.pods.cni.ipam import Leases
from podwire.pods.cni.results import Ip
from podwire.pods.wiring import port_of

_NOTHING = "-"


@dataclass(frozen=True)
class Attachment:
    """``container`` and ``interface`` are the runtime's words; ``published``: it may have elements in the tables."""

    container: str
    interface: str
    mode: str
    bridge: str
    published: bool
    addresses: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        return owner_of(self.container, self.interface)

    @property
    def port(self) -> str:
        return port_of(self.owner)

    @property
    def text(self) -> str:
        """What a lease says: everything but the addresses. None of the words has a space in it."""
        return f"{self.owner} {self.mode} {self.bridge or _NOTHING} {'published' if self.published else _NOTHING}"


def owner_of(container: str, interface: str) -> str:
    """Who an attachment's port is named after."""
    return f"{container} {interface}"


def _read(text: str, addresses: Sequence[str]) -> Attachment | None:
    words = text.split(" ")
    if len(words) < 5:
        return None
    container, interface, mode, bridge, published = words[:5]
    told = tuple(addresses) or tuple(filter(None, "".join(words[5:]).split(",")))
    return Attachment(container, interface, mode, "" if bridge == _NOTHING else bridge, published != _NOTHING, told)


class Ledger:
    """The records of one network. Its methods want the lock to be held."""

    def __init__(self, folder: str, ipam: Ipam | None) -> None:
        self._folder = f"{folder}/attachments"
        self._lock = f"{folder}/lock"
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._leases = Leases(f"{folder}/leases", ipam)

    def there(self) -> bool:
        """Whether the folder is still there: somebody may have begun anew."""
        return os.path.isdir(self._folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time, over all processes; the kernel lets go of it with its holder."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def allocate(self, attachment: Attachment, wanted: Sequence[IPInterface]) -> tuple[Ip, ...]:
        """Give it addresses of ours; it is recorded with them. Raises RangeExhausted, AddressTaken."""
        return self._leases.allocate(attachment.text, wanted)

    def record(self, attachment: Attachment) -> None:
        """Record one that has no lease of ours, in place of what an attempt left that was cut off."""
        new = f"{self._folder}/.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        os.symlink(f"{attachment.text} {','.join(attachment.addresses)}", new)
        os.replace(new, f"{self._folder}/{attachment.port}")

    def forget(self, attachment: Attachment) -> None:
        """Its addresses are free. What is not there is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._folder}/{attachment.port}")
        self._leases.release(attachment.text, attachment.addresses)

    def find(self, container: str, interface: str) -> list[Attachment]:
        """What is recorded of one: nothing, one thing, or with it what attempts left that were cut off."""
        start = owner_of(container, interface) + " "
        found = [_read(text, addresses) for text, addresses in self._leases.owners().items() if text.startswith(start)]
        found.append(self._apart(port_of(owner_of(container, interface))))
        return [one for one in found if one is not None]

    def all(self) -> list[Attachment]:
        """Everything that is recorded."""
        found = [_read(text, addresses) for text, addresses in self._leases.owners().items()]
        found += [self._apart(name) for name in os.listdir(self._folder)]
        return [one for one in found if one is not None]

    def full(self) -> str:
        """The first list of ranges that has no address left, in words; "" if there is none."""
        return self._leases.full()

    def _apart(self, name: str) -> Attachment | None:
        try:
            return _read(os.readlink(f"{self._folder}/{name}"), ())
        except OSError:
            return None


def merged(attachments: Sequence[Attachment]) -> Attachment | None:
    """One attachment of all that is recorded of it."""
    if not attachments:
        return None
    addresses = tuple(address for one in attachments for address in one.addresses)
    return replace(attachments[0], addresses=addresses, published=any(one.published for one in attachments))
