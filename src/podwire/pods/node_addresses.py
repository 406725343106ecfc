"""A Pod's addresses: one of each of the node's ranges, all of them or none.

Here: the families together. Not here: how one range is given out (``addresses``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from podwire.pods.addresses import Addresses, IPAddress, IPNetwork


class NodeAddresses:
    """The addresses of a node's ranges, the primary family's first. Records are in ``folder/addresses``, of the second family in
    ``folder/addresses-ipv6`` (or ``-ipv4``)."""

    def __init__(self, folder: Path, ranges: Sequence[IPNetwork]) -> None:
        names = ["addresses", *(f"addresses-ipv{network.version}" for network in ranges[1:])]
        self._ranges = [Addresses(folder / name, network) for name, network in zip(names, ranges, strict=True)]

    def allocate(self, owner: str) -> tuple[IPAddress, ...]:
        """Give one address of each range. Raises RangeExhausted; then none is given."""
        given: list[IPAddress] = []
        try:
            given += [one.allocate(owner) for one in self._ranges]
        except BaseException:
            self.release_owner(owner)
            raise
        return tuple(given)

    def release(self, address: IPAddress) -> None:
        """Take an address back. One that nobody has is none."""
        for one in self._ranges:
            if one.network.version == address.version:
                one.release(address)

    def release_owner(self, owner: str) -> None:
        """Take back every address of an owner."""
        for one in self._ranges:
            one.release_owner(owner)

    def owners(self) -> set[str]:
        """Give everybody who has an address."""
        return {owner for one in self._ranges for owner in one.owners().values()}
