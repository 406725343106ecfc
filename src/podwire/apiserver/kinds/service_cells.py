"""How a Service, its Endpoints and its EndpointSlices are printed.

Source: the printed columns of ``kubectl get services``, ``endpoints`` and ``endpointslices``
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from podwire.apiserver.cells import NONE, UNKNOWN, age, pairs
from podwire.apiserver.kind import AGE, NAME, Column, Tree

SERVICE_COLUMNS = (
    NAME,
    Column("Type", description="How the Service is reached."),
    Column("Cluster-IP", description="The Service's address within the cluster."),
    Column("External-IP", description="The Service's addresses outside of the cluster."),
    Column("Port(s)", description="The ports, with the node ports behind a colon."),
    AGE,
    Column("Selector", priority=1, description="The labels of the Pods behind the Service."),
)
ENDPOINTS_COLUMNS = (NAME, Column("Endpoints", description="Addresses and ports that are ready."), AGE)
SLICE_COLUMNS = (
    NAME,
    Column("AddressType", description="IPv4, IPv6 or FQDN."),
    Column("Ports", description="The ports of the endpoints."),
    Column("Endpoints", description="The addresses of the endpoints."),
    AGE,
)
_SHOWN = 3  # as many of a list as are printed before "+ N more..."


def service_row(tree: Tree, now: datetime) -> list[Any]:
    """Give the cells of a Service."""
    spec, metadata = tree.get("spec", {}), tree["metadata"]
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [
        metadata["name"],
        spec.get("type", ""),
        addresses[0] or NONE,
        _external(tree),
        ",".join(_port(port) for port in spec.get("ports", ())) or NONE,
        age(metadata.get("creationTimestamp"), now),
        pairs(spec.get("selector")),
    ]


def _port(port: Tree) -> str:
    number = f"{port.get('port')}:{port['nodePort']}" if port.get("nodePort") else str(port.get("port"))
    return f"{number}/{port.get('protocol', 'TCP')}"


def _external(tree: Tree) -> str:
    spec = tree.get("spec", {})
    kind, own = spec.get("type", ""), list(spec.get("externalIPs", ()))
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        ingress = tree.get("status", {}).get("loadBalancer", {}).get("ingress", ())
        given = [one.get("ip") or one.get("hostname", "") for one in ingress]
        return ",".join(given + own) or "<pending>"
    return ",".join(own) or (NONE if kind in ("ClusterIP", "NodePort") else UNKNOWN)


def endpoints_row(tree: Tree, now: datetime) -> list[Any]:
    """Give the cells of Endpoints."""
    metadata = tree["metadata"]
    found: list[str] = []
    for subset in tree.get("subsets", ()):
        addresses = subset.get("addresses", ())
        ports = subset.get("ports", ())
        if not ports:
            found += [one.get("ip", "") for one in addresses]
        found += [_joined(one.get("ip", ""), port.get("port")) for port in ports for one in addresses]
    return [metadata["name"], _first(found, NONE), age(metadata.get("creationTimestamp"), now)]


def _joined(ip: str, port: Any) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def slice_row(tree: Tree, now: datetime) -> list[Any]:
    """Give the cells of an EndpointSlice."""
    metadata = tree["metadata"]
    ports = [str(port["port"]) if port.get("port") is not None else port.get("name") or "*" for port in tree.get("ports", ())]
    addresses = [address for endpoint in tree.get("endpoints", ()) for address in endpoint.get("addresses", ())]
    return [
        metadata["name"],
        tree.get("addressType", ""),
        _first(ports, "<unset>"),
        _first(addresses, "<unset>"),
        age(metadata.get("creationTimestamp"), now),
    ]


def _first(values: Sequence[str], empty: str) -> str:
    if not values:
        return empty
    shown = ",".join(values[:_SHOWN])
    return f"{shown} + {len(values) - _SHOWN} more..." if len(values) > _SHOWN else shown
