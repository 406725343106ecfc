"""What the API fills into a Service, and what falls away when a Service changes its type.

Here: changes in place to plain trees. Not here: addresses and ports (``allocation_services.py``), what is refused
(``service_validation.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/
"""

from __future__ import annotations

from podwire.apiserver.allocation_services import has_cluster_ip, has_health_check_port, may_have_node_ports
from podwire.apiserver.kind import Tree

AFFINITY_SECONDS = 10800


def default_service(tree: Tree) -> None:
    """Fill a Service."""
    spec = tree.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if spec["sessionAffinity"] == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", AFFINITY_SECONDS)
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    for port in spec.get("ports", ()):
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
        if port.get("nodePort") == 0:
            del port["nodePort"]
    if is_external(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if has_cluster_ip(spec) and not spec.get("internalTrafficPolicy"):
        spec["internalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    for ingress in tree.get("status", {}).get("loadBalancer", {}).get("ingress", ()):
        if ingress.get("ip"):
            ingress.setdefault("ipMode", "VIP")


def is_external(spec: Tree) -> bool:
    """Whether clients from outside of the cluster may come in by this Service."""
    return spec.get("type") in ("LoadBalancer", "NodePort") or (spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs")))


def prepare_new_service(tree: Tree) -> None:
    """A new Service has no status yet."""
    tree["status"] = {"loadBalancer": {}}


def prepare_changed_service(tree: Tree, old: Tree) -> None:
    """Drop what belonged to the former type and was sent along unchanged, so that a change of type is a change of one word."""
    spec, before = tree["spec"], old.get("spec", {})
    if has_cluster_ip(before) and not has_cluster_ip(spec):
        _drop_same(spec, before, "clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")
    if may_have_node_ports(before) and not may_have_node_ports(spec) and _ports_of_nodes(spec) == _ports_of_nodes(before):
        for port in spec.get("ports", ()):
            port.pop("nodePort", None)
    if has_health_check_port(before) and not has_health_check_port(spec):
        _drop_same(spec, before, "healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and spec.get("type") != "LoadBalancer":
        _drop_same(spec, before, "allocateLoadBalancerNodePorts", "loadBalancerClass")
        tree["status"] = {"loadBalancer": {}}
    if before.get("type") == "ExternalName" and spec.get("type") != "ExternalName":
        _drop_same(spec, before, "externalName")
    if is_external(before) and not is_external(spec):
        _drop_same(spec, before, "externalTrafficPolicy")


def _drop_same(spec: Tree, before: Tree, *keys: str) -> None:
    for key in keys:
        if key in spec and spec[key] == before.get(key):
            del spec[key]


def _ports_of_nodes(spec: Tree) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports", ()) if port.get("nodePort")}
