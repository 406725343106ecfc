"""Watches Endpoints, Services and its own EndpointSlices; writes the slices."""

from __future__ import annotations

from typing import Any

from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.core import Endpoints, Service
from podwire.objects.discovery import EndpointSlice
from podwire.objects.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from podwire.workloads import work
from podwire.workloads.endpoints.writing import SliceWriting
from podwire.workloads.mirroring import desired


class Mirroring:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._endpoints = context.informer(ENDPOINTS)
        self._services = context.informer(SERVICES)
        self._slices = context.informer(ENDPOINT_SLICES, indexes={"service": lambda value: [value.service_key]})
        self._writing = SliceWriting(context, self._slices, desired.MANAGER)
        self._work = work.reconciler(context, "mirroring", self._operate)
        self._endpoints.subscribe(self._changed)
        self._services.subscribe(self._changed)
        self._slices.subscribe(self._slice_changed)

    async def start(self) -> None:
        informers: list[Informer[Any]] = [self._endpoints, self._services, self._slices]
        await work.start(self._context, self._work, "mirroring", informers)

    def _changed(self, old: Endpoints | Service | None, new: Endpoints | Service | None) -> None:
        value = new or old
        if value is not None:
            self._work.mark(value.key)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        value = new or old
        if value is not None and self._writing.owns(value):
            self._writing.seen(old, new)
            self._work.mark(value.service_key)

    async def _operate(self, key: str) -> float | None:
        endpoints, service = self._endpoints.table.get(key), self._services.table.get(key)
        if endpoints is None or not desired.is_mirrored(endpoints, service):
            await self._writing.clear(key)
            return None
        if waiting := self._writing.waiting(key):
            return waiting
        await self._writing.carry_out(key, desired.decide(endpoints, self._writing.of(key)))
        return None
