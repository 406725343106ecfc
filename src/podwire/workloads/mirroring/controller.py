"""Watches Endpoints, Services and its own EndpointSlices; writes the slices."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from podwire.client.errors import ApiError
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.core import Endpoints, Service
from podwire.objects.discovery import EndpointSlice
from podwire.objects.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from podwire.workloads import names, work
from podwire.workloads.endpoints import slices
from podwire.workloads.expectations import Expectations
from podwire.workloads.mirroring import desired


class Mirroring:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._endpoints = context.informer(ENDPOINTS)
        self._services = context.informer(SERVICES)
        self._slices = context.informer(ENDPOINT_SLICES, indexes={"service": lambda value: [value.service_key]})
        self._expectations = Expectations()
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
        if value is not None and value.metadata.labels.get(slices.MANAGED_BY) == desired.MANAGER:
            if new is not None and old is None:
                self._expectations.seen(new.key)
            self._work.mark(value.service_key)

    async def _operate(self, key: str) -> float | None:
        endpoints, service = self._endpoints.table.get(key), self._services.table.get(key)
        have = [one for one in self._slices.table.by("service", key) if one.metadata.labels.get(slices.MANAGED_BY) == desired.MANAGER]
        if endpoints is None or not desired.is_mirrored(endpoints, service):
            self._expectations.forget(key)
            await self._delete(have)
            return None
        if waiting := self._expectations.waiting(key, self._context.clock()):
            return waiting
        plan = desired.decide(endpoints, have)
        for one in plan.create:
            name = f"{endpoints.name[: 253 - 1 - names.SUFFIX]}-{names.suffix(secrets.randbelow)}"
            mark = f"{endpoints.namespace}/{name}"
            self._expectations.expect(key, mark, self._context.clock())
            try:
                await self._client.create(ENDPOINT_SLICES, slices.document(one, name))
            except BaseException:
                self._expectations.seen(mark)
                raise
            if mark in self._slices.table:
                self._expectations.seen(mark)
        for one in plan.update:
            await self._client.update(ENDPOINT_SLICES, slices.document(one))
        await self._delete(plan.delete)
        return None

    async def _delete(self, gone: Iterable[EndpointSlice]) -> None:
        for one in gone:
            try:
                await self._client.delete(ENDPOINT_SLICES, one.name, one.namespace, uid=one.metadata.uid)
            except ApiError as error:
                if not error.not_found:
                    raise
