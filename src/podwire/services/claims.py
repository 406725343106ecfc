"""Who claims which address, protocol and port, and who of them has it.

What belongs here: the claims of all Services together. What must not: rows, numbers, what becomes of one who loses an address (ruleset.py).

A claim has a rank (``elements.addresses``), and the lowest rank has what several claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from podwire.services.desired import ServiceProgram

Rank = tuple[bool, str, str]


class Claims:
    """Claims by key (``elements.addresses``). ``services`` are those that claim, by key, as they were before what is told here."""

    def __init__(self, services: Mapping[str, ServiceProgram]) -> None:
        self._services = services
        # The ranks of those who claim a key, lowest first; of one whose cluster address it is, and nobody else's, the name, as mostly.
        self._held: dict[bytes, tuple[Rank, ...] | str] = {}

    def free(self, keys: Iterable[bytes]) -> bool:
        """Say whether nobody claims any of these."""
        return self._held.keys().isdisjoint(keys)

    def hold(self, claims: Mapping[bytes, Rank]) -> None:
        """Claim what nobody claims."""
        self._held.update({key: (rank,) for key, rank in claims.items()})

    def hold_own(self, claims: Mapping[bytes, str]) -> None:
        """Claim for Services what nobody claims, and what is of their cluster addresses."""
        self._held.update(claims)

    def lost(self, claims: Mapping[bytes, Rank], service: str) -> Set[bytes]:
        """Give what of a Service's claims, old or new, another has. An earlier one of its own, whatever its rank, is none."""
        if self.free(claims):
            return frozenset()
        return {key for key, rank in claims.items() if any(other < rank and other[2] != service for other in self._ranks(key)[:2])}

    @property
    def contested(self) -> bool:
        """Whether several claim one key."""
        return any(not isinstance(ranks, str) and len(ranks) > 1 for ranks in self._held.values())

    def exchange(self, claimed: Mapping[bytes, Rank], claims: Mapping[bytes, Rank]) -> set[str]:
        """Replace a Service's claims. Gives the other Services that won or lost an address by it."""
        others: set[str] = set()
        if not claimed and self.free(claims):
            self.hold(claims)
            return others
        for key in claimed.keys() | claims.keys():
            gone, came = claimed.get(key), claims.get(key)
            if gone == came:
                continue
            before = self._ranks(key)
            after = tuple(sorted([*(rank for rank in before if rank != gone), *([] if came is None else [came])]))
            if after:
                self._held[key] = after
            else:
                self._held.pop(key, None)
            if before[:1] != after[:1]:
                others |= {rank[2] for rank in before[:1] + after[:1] if rank not in (gone, came)}
        return others

    def _ranks(self, key: bytes) -> tuple[Rank, ...]:
        found = self._held.get(key, ())
        return ((False, self._services[found].created, found),) if isinstance(found, str) else found
