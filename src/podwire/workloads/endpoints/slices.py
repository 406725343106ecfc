"""The endpoints of a Service, dealt out to slices of at most a hundred, so that a change touches few.

Pure. An endpoint stays in the slice that it is in; a new one goes where there is room, first to slices that change anyway; a
slice that is left empty goes, except that a Service without endpoints keeps one, which says so. Equal input gives equal slices,
so nothing is written that did not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from podwire.objects import codec
from podwire.objects.core import Service
from podwire.objects.discovery import SERVICE_NAME, Endpoint, EndpointSlice
from podwire.objects.resources import ENDPOINT_SLICES, SERVICES
from podwire.workloads.endpoints.desired import HEADLESS, TRIGGER, Group, Member
from podwire.workloads.kinds import Tree, owned_by

LARGEST = 100
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"


@dataclass(frozen=True)
class Plan:
    """``create`` and ``update`` are whole slices (a new one has no name yet)."""

    create: tuple[EndpointSlice, ...] = ()
    update: tuple[EndpointSlice, ...] = ()
    delete: tuple[EndpointSlice, ...] = ()


@dataclass(frozen=True)
class Source:
    """What slices are made from: a Service, or an Endpoints object. ``owner``: its reference."""

    name: str
    namespace: str
    labels: dict[str, str]
    owner: Tree


def decide(service: Service, wanted: Iterable[Member], have: Iterable[EndpointSlice], trigger: str) -> Plan:
    """``have`` are the slices that this controller made for the Service; ``trigger`` goes into an annotation of what is written."""
    by_group: dict[Group, list[Endpoint]] = {(family, ()): [] for family in service.spec.ip_families or ("IPv4",)}
    for member in wanted:
        by_group.setdefault(member.group, []).append(member.endpoint)
    for family in service.spec.ip_families or ("IPv4",):
        if any(group[0] == family and endpoints for group, endpoints in by_group.items()) and not by_group[family, ()]:
            del by_group[family, ()]  # no placeholder where there are endpoints
    source = Source(service.name, service.namespace, _labels(service), owned_by(SERVICES, service.metadata))
    return deal_out(source, by_group, have, trigger)


def deal_out(source: Source, by_group: Mapping[Group, Sequence[Endpoint]], have: Iterable[EndpointSlice], trigger: str) -> Plan:
    """Deal endpoints out to slices; a group without endpoints keeps or gets one empty slice."""
    slices: dict[Group, list[EndpointSlice]] = {}
    for one in sorted(have, key=lambda value: value.name):
        slices.setdefault((one.address_type, one.ports), []).append(one)
    create: list[EndpointSlice] = []
    update: list[EndpointSlice] = []
    delete = [one for group, ones in slices.items() if group not in by_group for one in ones]
    labels = source.labels
    for group, endpoints in by_group.items():
        made, changed, gone = _deal(endpoints, slices.get(group, []), keep_one=not endpoints)
        create += [_new(source, group, content, trigger) for content in made]
        update += [_renewed(one, content, labels, trigger) for one, content in changed]
        delete += gone
        touched = {one.name for one, _ in changed} | {one.name for one in gone}
        update += [
            _renewed(one, one.endpoints, labels, "")
            for one in slices.get(group, [])
            if one.name not in touched and one.metadata.labels != labels
        ]
    return Plan(tuple(create), tuple(update), tuple(delete))


def _identity(endpoint: Endpoint) -> tuple[str, tuple[str, ...]]:
    return (endpoint.target_ref.uid if endpoint.target_ref else "", endpoint.addresses)


def _deal(
    endpoints: Sequence[Endpoint], slices: Sequence[EndpointSlice], *, keep_one: bool
) -> tuple[list[list[Endpoint]], list[tuple[EndpointSlice, list[Endpoint]]], list[EndpointSlice]]:
    """Give the contents of new slices, the slices that change with their contents, and the slices that go."""
    left = {_identity(endpoint): endpoint for endpoint in endpoints}
    kept: list[tuple[EndpointSlice, list[Endpoint]]] = []
    for one in slices:
        content = [found for endpoint in one.endpoints if (found := left.pop(_identity(endpoint), None)) is not None]
        kept.append((one, content))
    rest = list(left.values())
    for one, content in sorted(kept, key=lambda pair: tuple(pair[1]) == pair[0].endpoints):
        if content or not one.endpoints:  # one that has lost all may go instead
            room = max(0, LARGEST - len(content))
            content += rest[:room]
            rest = rest[room:]
    for _, content in kept:
        room = max(0, LARGEST - len(content))
        content += rest[:room]
        rest = rest[room:]
    made = [rest[start : start + LARGEST] for start in range(0, len(rest), LARGEST)]
    spared = kept[0][0].name if keep_one and kept else ""
    gone = [one for one, content in kept if not content and one.name != spared]
    changed = [(one, content) for one, content in kept if (content or one.name == spared) and tuple(content) != one.endpoints]
    if keep_one and not kept:
        made = [[]]
    return made, changed, gone


def _labels(service: Service) -> dict[str, str]:
    labels = dict(service.metadata.labels) | {SERVICE_NAME: service.name, MANAGED_BY: MANAGER}
    if service.spec.cluster_ip in ("", "None"):
        labels[HEADLESS] = ""
    return labels


def _new(source: Source, group: Group, endpoints: Sequence[Endpoint], trigger: str) -> EndpointSlice:
    meta = {
        "generateName": f"{source.name}-",
        "namespace": source.namespace,
        "labels": source.labels,
        "annotations": {TRIGGER: trigger} if trigger else {},
        "ownerReferences": [source.owner],
    }
    bare = codec.convert(EndpointSlice, {"metadata": meta, "addressType": group[0]})
    return msgspec.structs.replace(bare, ports=group[1], endpoints=tuple(endpoints))


def _renewed(one: EndpointSlice, endpoints: Sequence[Endpoint], labels: dict[str, str], trigger: str) -> EndpointSlice:
    annotations = one.metadata.annotations | ({TRIGGER: trigger} if trigger else {})
    meta = msgspec.structs.replace(one.metadata, labels=labels, annotations=annotations)
    return msgspec.structs.replace(one, metadata=meta, endpoints=tuple(endpoints))


def document(one: EndpointSlice, name: str = "") -> Tree:
    """Give the slice as the tree to send: with the lists that the API requires, also when they are empty."""
    tree = codec.tree(one)
    meta = {key: value for key, value in tree["metadata"].items() if key != "generation"}
    head = {"apiVersion": ENDPOINT_SLICES.api_version, "kind": ENDPOINT_SLICES.kind, "addressType": one.address_type}
    return tree | head | {"metadata": meta | ({"name": name} if name else {}), "endpoints": tree.get("endpoints", []), "ports": _ports(one)}


def _ports(one: EndpointSlice) -> list[Tree]:
    # Name and protocol are always written: an absent protocol would be the server's to fill in, and the slice would differ from ours.
    return [
        {"name": port.name, "port": port.port, "protocol": port.protocol}
        | ({"appProtocol": port.app_protocol} if port.app_protocol else {})
        for port in one.ports
    ]
