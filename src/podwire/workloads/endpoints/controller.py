"""Watches Services and Pods, writes EndpointSlices at once and Endpoints at leisure.

Service proxies and DNS read slices, so those follow every change within a round; but a round looks at all Pods of a Service, and so rests
in proportion to them before the next endpoint is added. One that leaves never waits. An Endpoints object is whole at every write, and few
read it: after a write it rests for a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.client.errors import ApiError
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.core import Endpoints, Node, Pod, Service
from podwire.objects.discovery import EndpointSlice
from podwire.objects.meta import selects
from podwire.objects.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from podwire.workloads import work
from podwire.workloads.endpoints import desired, slices
from podwire.workloads.endpoints.writing import SliceWriting
from podwire.workloads.kinds import label_entries, selector_entry
from podwire.workloads.nodes.desired import ZONE

LEGACY_REST_S = 1.0
REST_PER_POD_S, LONGEST_REST_S = 0.0002, 0.2


class EndpointControllers:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._services = context.informer(SERVICES, indexes={"selector": _selector})
        self._pods = context.informer(PODS, indexes={"label": _labels})
        self._nodes = context.informer(NODES)
        self._slices = context.informer(ENDPOINT_SLICES, indexes={"service": lambda value: [value.service_key]})
        self._endpoints = context.informer(ENDPOINTS)
        self._writing = SliceWriting(context, self._slices, slices.MANAGER)
        self._slice_work = work.reconciler(context, "endpointslices", self._slice_round, round_s=0.005)
        self._legacy_work = work.reconciler(context, "endpoints", self._legacy_round, concurrency=4)
        self._services.subscribe(self._service_changed)
        self._pods.subscribe(self._pod_changed)
        self._slices.subscribe(self._slice_changed)
        self._endpoints.subscribe(self._endpoints_changed)
        self._nodes.subscribe(self._node_changed)
        self._legacy_written: dict[str, float] = {}
        self._rested_at: dict[str, float] = {}  # when the slices of a Service are looked at again for one that is added

    async def start(self) -> None:
        informers: list[Informer[Any]] = [self._services, self._pods, self._nodes, self._slices, self._endpoints]
        await work.start(self._context, self._slice_work, "endpointslices", informers)
        await work.start(self._context, self._legacy_work, "endpoints", informers)

    # What marks a Service ------------------------------------------------------------------------------------------------

    def _mark_slices(self, key: str, *, leaves: bool) -> None:
        rest_s = 0.0 if leaves else self._rested_at.get(key, 0.0) - self._context.clock()
        if rest_s > 0:
            self._slice_work.mark_after(key, rest_s)
        else:
            self._slice_work.mark(key)

    def _mark(self, key: str, *, leaves: bool = True) -> None:
        self._mark_slices(key, leaves=leaves)
        rested = self._context.clock() - self._legacy_written.get(key, float("-inf"))
        if rested < LEGACY_REST_S:
            self._legacy_work.mark_after(key, LEGACY_REST_S - rested)
        else:
            self._legacy_work.mark(key)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        value = new or old
        if value is not None:
            self._mark(value.key)
        if new is None and value is not None:
            self._legacy_work.mark(value.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        value = new or old
        if value is None or (old is not None and new is not None and _same(old, new)):
            return
        leaves = old is not None and (old.ready or new is None)
        services = self._services.table.snapshot()
        for labels in {id(pod.metadata.labels): pod.metadata.labels for pod in (old, new) if pod is not None}.values():
            for entry in label_entries(value.namespace, labels):
                for service in services.by("selector", entry):
                    if selects(service.spec.selector, labels):
                        self._mark(service.key, leaves=leaves)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self._writing.seen(old, new)
        value = new or old
        if value is not None and value.service_key and self._writing.owns(value):
            self._mark_slices(value.service_key, leaves=False)

    def _endpoints_changed(self, old: Endpoints | None, new: Endpoints | None) -> None:
        value = new or old
        if value is not None and value.key not in self._services.table:
            self._legacy_work.mark(value.key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is not None and new is not None and old.metadata.labels.get(ZONE) != new.metadata.labels.get(ZONE):
            for service in self._services.table.snapshot():
                self._slice_work.mark(service.key)

    # Slices ----------------------------------------------------------------------------------------------------------------

    def _selected(self, service: Service) -> list[Pod]:
        """Give the Pods that the selector matches, found through the label that the fewest Pods have."""
        pods = self._pods.table.snapshot()
        candidates = min(
            (pods.by("label", (service.namespace, key, value)) for key, value in service.spec.selector.items()), key=len, default=()
        )
        return [pod for pod in candidates if selects(service.spec.selector, pod.metadata.labels)]

    def _zone(self, name: str) -> str:
        node = self._nodes.table.get(name)
        return node.metadata.labels.get(ZONE, "") if node is not None else ""

    async def _slice_round(self, key: str) -> float | None:
        service = self._services.table.get(key)
        if service is None or service.spec.type == "ExternalName" or not service.spec.selector:
            # Slices that somebody else made for a Service without a selector are not ours to touch.
            self._rested_at.pop(key, None)
            await self._writing.clear(key)
            return None
        waiting = self._writing.waiting(key)
        if waiting:
            return waiting
        pods = self._selected(service)
        self._rested_at[key] = self._context.clock() + min(LONGEST_REST_S, REST_PER_POD_S * len(pods))
        members = desired.members(service, pods, self._zone)
        await self._writing.carry_out(key, slices.decide(service, members, self._writing.of(key), desired.trigger(service, pods)))
        return None

    # Endpoints ---------------------------------------------------------------------------------------------------------------

    async def _legacy_round(self, key: str) -> float | None:
        service, have = self._services.table.get(key), self._endpoints.table.get(key)
        if service is None:
            await self._delete_legacy(have)
            return None
        if service.spec.type == "ExternalName" or not service.spec.selector:
            return None
        wanted = desired.legacy(service, desired.members(service, self._selected(service), self._zone))
        if have is not None and not desired.legacy_differs(have, wanted):
            return None
        self._legacy_written[key] = self._context.clock()
        if have is None:
            await self._client.create(ENDPOINTS, wanted)
        else:
            wanted["metadata"]["resourceVersion"] = have.metadata.resource_version
            await self._client.update(ENDPOINTS, wanted)
        return None

    async def _delete_legacy(self, have: Endpoints | None) -> None:
        """An Endpoints object that this controller made goes with its Service."""
        if have is None or "endpoints.kubernetes.io/managed-by" not in have.metadata.labels:
            return
        self._legacy_written.pop(have.key, None)
        try:
            await self._client.delete(ENDPOINTS, have.name, have.namespace, uid=have.metadata.uid)
        except ApiError as error:
            if not error.not_found:
                raise


def _labels(pod: Pod) -> Iterable[tuple[str, str, str]]:
    return [(pod.namespace, key, value) for key, value in pod.metadata.labels.items()]


def _selector(service: Service) -> list[tuple[str, str, str]]:
    return [selector_entry(service.namespace, service.spec.selector)] if service.spec.selector else []


def _same(old: Pod, new: Pod) -> bool:
    """Say whether a change of a Pod cannot change its endpoints."""
    if not (old.status.pod_ip or old.status.pod_ips or new.status.pod_ip or new.status.pod_ips):
        return True
    return (
        old.ready == new.ready
        and old.terminating == new.terminating
        and old.metadata.labels == new.metadata.labels
        and old.status.pod_ips == new.status.pod_ips
        and old.status.pod_ip == new.status.pod_ip
        and old.spec.node_name == new.spec.node_name
        and (old.status.phase in ("Succeeded", "Failed")) == (new.status.phase in ("Succeeded", "Failed"))
    )
