"""What a plan for the slices of one Service says, done: slices made, changed and deleted at the API.

Two controllers write slices, each its own: that of Services with a selector, and that which mirrors Endpoints. Both must not decide anew
before their table has shown what they made (see expectations).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from podwire.client.errors import ApiError
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.discovery import EndpointSlice
from podwire.objects.resources import ENDPOINT_SLICES
from podwire.workloads import names
from podwire.workloads.endpoints import slices
from podwire.workloads.expectations import Expectations


class SliceWriting:
    """Writes the slices of one controller. ``informer``: of all EndpointSlices, with the index ``service``."""

    def __init__(self, context: Context, informer: Informer[EndpointSlice], controller: str) -> None:
        self._clock, self._client = context.clock, context.client
        self._slices, self._controller = informer, controller
        self._expectations = Expectations()

    def seen(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Tell what the table shows: a new slice is no longer waited for."""
        if new is not None and old is None:
            self._expectations.seen(new.key)

    def owns(self, one: EndpointSlice) -> bool:
        """Whether a slice is this controller's."""
        return one.metadata.labels.get(slices.MANAGED_BY) == self._controller

    def of(self, service: str) -> list[EndpointSlice]:
        """Give this controller's slices of a Service (``namespace/name``)."""
        return [one for one in self._slices.table.by("service", service) if self.owns(one)]

    def waiting(self, service: str) -> float:
        """Give the seconds until it may be decided again; 0.0 is now."""
        return self._expectations.waiting(service, self._clock())

    async def carry_out(self, service: str, plan: slices.Plan) -> None:
        """Do what the plan says. Raises ApiError; what was done stays done."""
        namespace, _, stem = service.partition("/")
        for one in plan.create:
            name = f"{stem[: 253 - 1 - names.SUFFIX]}-{names.suffix(secrets.randbelow)}"
            mark = f"{namespace}/{name}"
            self._expectations.expect(service, mark, self._clock())
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

    async def clear(self, service: str) -> None:
        """Delete all of this controller's slices of a Service. Raises ApiError."""
        self._expectations.forget(service)
        await self._delete(self.of(service))

    async def _delete(self, gone: Iterable[EndpointSlice]) -> None:
        for one in gone:
            try:
                await self._client.delete(ENDPOINT_SLICES, one.name, one.namespace, uid=one.metadata.uid)
            except ApiError as error:
                if not error.not_found:
                    raise
