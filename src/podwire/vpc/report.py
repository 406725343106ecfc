"""What a person at the machine wants to know of a cluster, and which addresses are to be published there: pure.

The lab keeps the report and shows it (``podwire status``); docs/architecture.md, "the control socket", says its fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from podwire.objects.apps import Deployment
from podwire.objects.compute import ForwardingRule
from podwire.objects.core import Node, Service
from podwire.views.topology import ZONE

SYSTEM: Final = "kube-system"
PRESSURES: Final = frozenset({"MemoryPressure", "DiskPressure", "PIDPressure"})

Report = dict[str, Any]


def published(rule: ForwardingRule) -> frozenset[str]:
    """Give the names ``ADDRESS:PORT`` under which a forwarding rule is published: those of an external one for TCP with ports."""
    spec = rule.spec
    if spec.load_balancing_scheme != "EXTERNAL" or spec.ip_protocol != "TCP" or not spec.ip_address:
        return frozenset()
    return frozenset(f"{spec.ip_address}:{port}" for port in spec.ports)


def parts(name: str) -> tuple[str, int]:
    """Give the address and port of such a name."""
    address, _, port = name.rpartition(":")
    return address, int(port)


def report(nodes: Iterable[Node], services: Iterable[Service], deployments: Iterable[Deployment], ports: Mapping[str, int]) -> Report:
    """Give the report. ``ports``: for each published ``ADDRESS:PORT`` the port on 127.0.0.1."""
    return {
        "nodes": [_node(node) for node in sorted(nodes, key=lambda node: node.name)],
        "deployments": [_deployment(one) for one in sorted(deployments, key=lambda one: one.key) if one.namespace == SYSTEM],
        "loadBalancers": [
            _load_balancer(service, ingress.ip, ports)
            for service in sorted(services, key=lambda service: service.key)
            if service.spec.type == "LoadBalancer"
            for ingress in service.status.load_balancer.ingress
            if ingress.ip
        ],
    }


def _node(node: Node) -> Report:
    ready = next((condition for condition in node.status.conditions if condition.type == "Ready"), None)
    why = "" if node.ready else (ready.message or ready.reason) if ready else "it has not reported yet"
    return {
        "name": node.name,
        "zone": node.metadata.labels.get(ZONE, ""),
        "address": next(iter(node.internal_ips), ""),
        "ready": node.ready,
        "reason": why,
        "unschedulable": node.spec.unschedulable,
        "pressure": [one.type for one in node.status.conditions if one.type in PRESSURES and one.status == "True"],
    }


def _deployment(one: Deployment) -> Report:
    wanted = 1 if one.spec.replicas is None else one.spec.replicas
    return {"namespace": one.namespace, "name": one.name, "ready": one.status.ready_replicas, "wanted": wanted}


def _load_balancer(service: Service, address: str, ports: Mapping[str, int]) -> Report:
    numbers = [port.port for port in service.spec.ports]
    urls = [f"http://127.0.0.1:{ports[name]}" for name in (f"{address}:{number}" for number in numbers) if name in ports]
    return {"service": service.key, "address": address, "ports": numbers, "urls": list(dict.fromkeys(urls))}
