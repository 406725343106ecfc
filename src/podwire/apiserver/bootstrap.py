"""What a cluster's API holds before anybody has written: the system's namespaces and priority classes, roles and bindings, the range
of Services and the Service ``kubernetes``, the kinds that GKE defines.

Made when it is missing, at the start and every few seconds, through the same rules as any other write: what somebody deleted comes back.
Roles and bindings are looked at once, at the start, as upstream.
The Service's endpoints are brought up to date at each start, since the control plane's address is a matter of configuration; that is the
API server's own affair, as upstream.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterable
from ipaddress import ip_network

from podwire.apiserver import keys, status
from podwire.apiserver.answers import Tree, decode
from podwire.apiserver.api import Api, fresh_uid, put
from podwire.apiserver.auth import bootstrap_policy
from podwire.apiserver.auth.bootstrap_roles import GROUP
from podwire.apiserver.config import ApiServerConfig
from podwire.apiserver.extension import gke
from podwire.apiserver.kind import Kind
from podwire.store import Unwritable

_LOG = logging.getLogger("podwire.apiserver")

AGAIN_S = 10.0
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


async def ensure(api: Api, config: ApiServerConfig) -> None:
    """Make what is missing. Raises Failure, Unwritable."""
    await _ensure_together(api, [*_namespaces(), *_priority_classes(), *copy.deepcopy(gke.DEFINITIONS), _service_range(api, config)])
    for tree in _kubernetes_service(config):
        await _ensure(api, tree, follow=tree["kind"] != "Service")


async def ensure_policy(api: Api) -> None:
    """Bring the roles and bindings of every cluster up to date. Raises Failure, Unwritable."""
    kinds = [kind for kind in api.registry.kinds(GROUP, "v1") if kind.listed]
    there = [decode(record.value) for kind in kinds for record in api.store.latest_range(keys.prefix(kind))]
    await _write_together(api, bootstrap_policy.wanted(there))


def _namespaces() -> list[Tree]:
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]


def _priority_classes() -> list[Tree]:
    told = "Used for system critical pods that must not be moved from their current node."
    classes = (
        ("system-node-critical", 2_000_001_000, told),
        (
            "system-cluster-critical",
            2_000_000_000,
            told.replace("not be moved from their current node", "run in the cluster, but can be moved"),
        ),
    )
    return [
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value, "description": text}
        for name, value, text in classes
    ]


async def keep(api: Api, config: ApiServerConfig) -> None:
    """Make what is missing, for ever."""
    while True:
        await asyncio.sleep(AGAIN_S)
        try:
            await ensure(api, config)
        except (status.Failure, Unwritable) as error:
            _LOG.error("what every cluster holds could not be made: %s", error)


def _service_range(api: Api, config: ApiServerConfig) -> Tree:
    """The range of which Services get their addresses. Its finalizer keeps it while there is an address of it."""
    ready = {"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready"}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
        "spec": {"cidrs": list(config.service_ranges)},
        "status": {"conditions": [{**ready, "lastTransitionTime": api.timestamp()}]},
    }


def _kubernetes_service(config: ApiServerConfig) -> list[Tree]:
    metadata = {"name": "kubernetes", "namespace": "default"}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    address, port = config.control_address, config.control_port
    mirrored = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "labels": labels},
            "spec": {
                "clusterIP": str(ip_network(config.service_ranges[0])[1]),
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {**metadata, "labels": mirrored},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        },
    ]


async def _ensure_together(api: Api, trees: Iterable[Tree]) -> None:
    """Store the objects that are missing, of kinds that need no addresses, in one transaction. Raises Failure, Unwritable."""
    await _write_together(api, [tree for tree in trees if api.store.latest(_place(api, tree)[1]) is None])


async def _write_together(api: Api, trees: Iterable[Tree]) -> None:
    transaction = api.store.transaction()
    for tree in trees:
        kind, key = _place(api, tree)
        record = api.store.latest(key)
        old = decode(record.value) if record is not None and tree["metadata"].get("uid") else None
        _prepare(api, kind, tree, old)
        if errors := kind.check(tree, old):
            raise status.invalid(kind, tree["metadata"]["name"], errors)
        put(transaction, kind, tree)
    if transaction.changes:
        await api.store.commit(transaction)


def _place(api: Api, tree: Tree) -> tuple[Kind, str]:
    kind = api.registry.find_kind(tree["apiVersion"], tree["kind"])
    if kind is None:
        raise status.internal(f"kind {tree['kind']} is not registered")
    return kind, keys.key(kind, tree["metadata"].get("namespace", ""), tree["metadata"]["name"])


def _prepare(api: Api, kind: Kind, tree: Tree, old: Tree | None) -> None:
    """Make a stored object of what is written here."""
    metadata = tree["metadata"]
    metadata["uid"] = old["metadata"]["uid"] if old is not None else fresh_uid()
    metadata["creationTimestamp"] = old["metadata"]["creationTimestamp"] if old is not None else api.timestamp()
    if old is not None:
        kind.for_update(tree, old)
        return
    state = tree.get("status")
    kind.for_create(tree)
    if state is not None:
        tree["status"] = state


async def _ensure(api: Api, tree: Tree, *, follow: bool = False) -> None:
    """Store an object when it is missing or, with ``follow``, when what it says has changed."""
    kind, key = _place(api, tree)
    record = api.store.latest(key)
    old = decode(record.value) if record is not None else None
    if old is not None and not (follow and _says(tree) != _says(old)):
        return
    await _store(api, kind, tree, old)


def _says(tree: Tree) -> Tree:
    return {key: tree.get(key) for key in ("subsets", "endpoints", "ports")}


async def _store(api: Api, kind: Kind, tree: Tree, old: Tree | None) -> None:
    _prepare(api, kind, tree, old)
    grant = api.allocator.begin(kind, tree, old)
    errors = [*grant.errors, *kind.check(tree, old)]
    if errors:
        grant.abandon()
        raise status.invalid(kind, tree["metadata"]["name"], errors)
    transaction = api.store.transaction()
    put(transaction, kind, tree)
    transaction.on_success.append(grant.commit)
    transaction.on_failure.append(grant.abandon)
    await api.store.commit(transaction)
