"""From decoded objects to an acknowledged kernel, without an API server and without an event loop.

What belongs here: the agent's steps in a row (join, decide, program), for one who holds the objects himself: benchmarks, tests, a
program that plays a node. What must not: anything that the agent does otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from podwire.objects.core import Service
from podwire.objects.discovery import EndpointSlice
from podwire.services import desired
from podwire.services.desired import ServiceProgram
from podwire.services.tables import Tables, in_bulk
from podwire.views.frontends import join
from podwire.views.topology import Place


class Direct:
    """A node's service proxy of one family, driven by hand. Every method returns when the kernel has acknowledged."""

    def __init__(self, tables: Tables, place: Place) -> None:
        self.tables, self.place = tables, place
        self._services: dict[str, Service] = {}
        self._slices: dict[str, tuple[EndpointSlice, ...]] = {}  # by the Service that they name
        self._former: object = None  # let go of when the kernel has acknowledged: that takes long, as nobody has read it lately

    def load(self, services: Iterable[Service], slices: Iterable[EndpointSlice]) -> None:
        """Take all objects there are and make the kernel hold them; tables that are there are adopted. Raises KernelRefused."""
        with in_bulk(), ThreadPoolExecutor(1) as pool:
            reading = pool.submit(self.tables.read)
            self._services = {service.key: service for service in services}
            for piece in slices:
                key, alone = piece.service_key, (piece,)
                if self._slices.setdefault(key, alone) is not alone:
                    self._keep(key, piece)
            wanted = {key: program for key in self._services if (program := self._program(key)) is not None}
            for _ in self.tables.expect(wanted):
                pass
            reading.result()
            for _ in self.tables.start(wanted):
                pass

    def put_service(self, service: Service) -> None:
        """A Service came or changed. Raises KernelRefused."""
        self._services[service.key] = service
        self._update(service.key)

    def put_slice(self, piece: EndpointSlice) -> None:
        """A slice came or changed. Raises KernelRefused."""
        key = piece.service_key
        if len(self._keep(key, piece)) == 1 and self.tables.put_slice(key, piece):
            self.tables.update({})
        else:
            self._update(key)

    def delete_service(self, key: str) -> None:
        """A Service is gone. Raises KernelRefused."""
        self._services.pop(key, None)
        self._update(key)

    def expire(self) -> None:
        """Delete what was kept for packets under way: no sooner than 10 ms after the last change. Raises KernelRefused."""
        self.tables.expire(self.tables.round)
        self._former = None

    def _keep(self, key: str, piece: EndpointSlice) -> tuple[EndpointSlice, ...]:
        """Keep a slice of a Service in place of the former one of its name. Gives all that are kept of it now."""
        held = self._former = self._slices.get(key, ())
        name = piece.metadata.name
        if not held or (len(held) == 1 and held[0].metadata.name == name):  # as most have one
            kept: tuple[EndpointSlice, ...] = (piece,)
        else:
            kept = (*[one for one in held if one.metadata.name != name], piece)
        self._slices[key] = kept
        return kept

    def _program(self, key: str) -> ServiceProgram | None:
        service, slices, family = self._services.get(key), self._slices.get(key, ()), self.tables.family.number
        if service is None:
            return None
        found = desired.plain(key, service, slices, family)
        if found is None and (view := join(service, slices)) is not None:
            found = desired.program(view, self.place, family)
        return found

    def _update(self, key: str) -> None:
        self.tables.update({key: self._program(key)})
