"""All rows that Services should have, written some Services at a time.

What belongs here: what is written together and in which order, and of what several Services want, who has it. What must not: the rows of a
Service (elements.py, plain.py), what a kernel holds (ruleset.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice

from podwire.nft.rows import Column, as_columns
from podwire.services import elements, plain
from podwire.services.desired import ServiceProgram
from podwire.services.elements import Elements, forms, target_name
from podwire.services.layout import Family
from podwire.services.notes import Shared
from podwire.services.numbers import Numbers

CHUNK = 64  # Services whose rows are written in one step

_NONE: Set[bytes] = frozenset()


class Writing:
    """Writes what there is in ``services`` and ``lost`` (what a Service claims and another has), which are another's.

    ``shared`` are those who want the rows that several may want, by set.
    """

    def __init__(
        self,
        services: Mapping[str, ServiceProgram],
        lost: Mapping[str, Set[bytes]],
        shared: Mapping[str, Shared],
        node: str,
        numbers: Numbers,
        family: Family,
    ) -> None:
        self._services, self._lost, self._shared = services, lost, shared
        self._node, self._numbers, self._family, self._forms = node, numbers, family, forms(family)
        self.ahead: list[tuple[Sequence[ServiceProgram], plain.Written]] = []

    def elements(self, service: ServiceProgram, lost: Set[bytes]) -> Elements:
        """Write the rows of one Service."""
        if not lost and service.plain:
            return plain.elements(service, self._node, self._forms, self._numbers)
        return elements.elements(service, self._node, self._family, self._numbers, lost)

    def every(self) -> Iterator[Mapping[str, Sequence[Column]]]:
        """Write all rows, in the order in which Services came, which is that in memory. What several want is written once, at the end."""
        own: plain.Own = []
        for _, written in self.plain_ones():
            own += written.own
            yield written.columns
        yield from self.rest(own)

    def plain_ones(self) -> Iterator[tuple[Sequence[ServiceProgram], plain.Written]]:
        """Write the rows of plain Services that nothing is in the way of."""
        ordered, lost = iter(() if self._contested else self._services.values()), self._lost
        while some := list(islice(ordered, CHUNK)):
            alike = [service for service in some if service.plain and service.key not in lost]
            yield alike, plain.write(alike, self._node, self._forms, self._numbers)

    def rest(self, own: plain.Own) -> Iterator[Mapping[str, Sequence[Column]]]:
        """Write the rows of the others, and those that several Services may want: ``own`` are those of the plain ones."""
        shared: dict[str, plain.Own] = {"own_endpoints": own, "cluster_ips": []}
        contested, lost = self._contested, self._lost
        others = [one for one in self._services.values() if contested or not one.plain or one.key in lost]
        for start in range(0, len(others), CHUNK):
            yield self._others(others[start : start + CHUNK], shared)
        for field, owned in shared.items():
            rows = [row for key, its in sorted(owned) for row in self._owned(field, key, its)]
            yield {field: as_columns(self._forms[field], rows)}

    def write_ahead(self) -> Iterator[None]:
        """Write into ``ahead`` what ``plain_ones`` gives, in steps."""
        self.ahead = []
        for some in self.plain_ones():
            self.ahead.append(some)
            yield

    def seated_as_read(self, services: Sequence[ServiceProgram]) -> plain.Written:
        """Write plain Services whose endpoints sit as a kernel was found to hold them."""
        self._numbers.seat_as_read(target_name(service.key, port) for service in services for port in service.ports)
        return plain.write(services, self._node, self._forms, self._numbers)

    @property
    def _contested(self) -> bool:
        return bool(self._shared["cluster_ips"].contested)

    def _others(self, services: Iterable[ServiceProgram], shared: Mapping[str, plain.Own]) -> dict[str, list[Column]]:
        rows: dict[str, list[bytes]] = defaultdict(list)
        for service in services:
            for field, its in self.elements(service, self._lost.get(service.key, _NONE)).items():
                if field in shared:
                    shared[field].append((service.key, its))
                else:
                    rows[field] += its
        return {field: as_columns(self._forms[field], its) for field, its in rows.items()}

    def _owned(self, field: str, owner: str, rows: Sequence[bytes]) -> list[bytes]:
        """Of the rows of a Service that others may want, too, give those that it has. Who is first by name comes first."""
        shared, key = self._shared[field], self._forms[field].key
        for row in rows:
            shared.claim(key(row), owner, row)
        return [row for row in rows if shared.owner(key(row)) == owner]
