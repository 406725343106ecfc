"""What a cluster holds from its first second: its instances as the cloud sees them, its StorageClass, and cluster DNS.

Pure: trees of objects, applied by the one-shot process ``bootstrap``. Names, labels and ports of kube-dns are GKE's.

Source: https://cloud.google.com/kubernetes-engine/docs/how-to/kube-dns
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podwire.cluster.plan import Plan, PlannedNode

Tree = dict[str, Any]
DNS_REPLICAS = 2
_DNS_LABELS = {"k8s-app": "kube-dns"}
_SHOWN_IN_CLUSTER_INFO = {"kubernetes.io/cluster-service": "true", "kubernetes.io/name": "KubeDNS"}


def trees(plan: Plan, dns_command: Sequence[str]) -> list[Tree]:
    """Give the objects in the order in which they are applied. ``dns_command`` starts cluster DNS as a program of the machine."""
    return [*map(instance, plan.nodes), _storage_class(), *_cluster_dns(plan, dns_command)]


def instance(node: PlannedNode) -> Tree:
    """Give a node as the cloud sees it."""
    return {
        "apiVersion": "compute.podwire.dev/v1",
        "kind": "Instance",
        "metadata": {"name": node.name},
        "spec": {"zone": node.zone, "networkInterfaces": [_interface(node)]},
    }


def _interface(node: PlannedNode) -> Tree:
    interface: Tree = {"networkIP": str(node.address), "aliasIPRanges": [str(network) for network in node.pod_ranges]}
    return interface if node.address_ipv6 is None else interface | {"ipv6Address": str(node.address_ipv6)}


def _storage_class() -> Tree:
    """The class of claims that name none: directories of the machine, under the name that GKE's has."""
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard-rwo", "annotations": annotations},
        "provisioner": "podwire.dev/directory",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }


def _cluster_dns(plan: Plan, command: Sequence[str]) -> list[Tree]:
    def metadata() -> Tree:
        return {"name": "kube-dns", "namespace": "kube-system", "labels": dict(_DNS_LABELS)}

    ports = [
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
    ]
    container = {
        "name": "dns",
        "image": "podwire.dev/machine",
        "command": list(command),
        "ports": ports,
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1, "timeoutSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 60, "timeoutSeconds": 5},
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(_DNS_LABELS)},
    }
    service_ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata()},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata() | {"labels": _DNS_LABELS | _SHOWN_IN_CLUSTER_INFO},
            "spec": {"selector": dict(_DNS_LABELS), "clusterIP": str(plan.dns_address), "ports": service_ports},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata(),
            "spec": {
                "replicas": DNS_REPLICAS,
                "selector": {"matchLabels": dict(_DNS_LABELS)},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "10%", "maxUnavailable": 0}},
                "template": {
                    "metadata": {"labels": dict(_DNS_LABELS)},
                    "spec": {
                        "serviceAccountName": "kube-dns",
                        "dnsPolicy": "Default",
                        "priorityClassName": "system-cluster-critical",
                        "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
                        "topologySpreadConstraints": [spread],
                        "containers": [container],
                    },
                },
            },
        },
    ]
