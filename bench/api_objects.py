"""The objects that the benchmarks of the API write: a Pod as people write it (3 KB stored or more), a ConfigMap and a Service of 2.5 KB."""

from __future__ import annotations

from typing import Any

import orjson

NAMESPACE = "bench"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"

Tree = dict[str, Any]


_SECURITY = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_PROBE = {"httpGet": {"path": "/healthz", "port": "http"}, "initialDelaySeconds": 5}
_CONTAINERS = [
    {
        "name": "frontend",
        "image": "registry.example/shop/frontend:1.27.3",
        "args": ["--listen", ":8080", "--log-format=json"],
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9080}],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "database", "key": "url"}}},
            {"name": "CART_SERVICE_ADDR", "value": "cartservice.shop.svc.cluster.local:7070"},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
        "readinessProbe": _PROBE,
        "livenessProbe": _PROBE,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/shop", "readOnly": True}],
        "securityContext": _SECURITY,
    },
    {
        "name": "sidecar",
        "image": "registry.example/mesh/proxy:2.1.0",
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": _SECURITY,
    },
]


def pod(name: str) -> bytes:
    """Two containers with probes, variables and volumes, as a ReplicaSet makes them. All but the name is equal, as in its Pods."""
    tree: Tree = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "frontend", "pod-template-hash": "6d4cf56db6", "tier": "front", "app.kubernetes.io/part-of": "shop"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9080", "shop.example/revision": "4f2a9c1d7be0"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "frontend-6d4cf56db6",
                    "uid": "0b8d1a52-93c6-4f0a-8f6e-5d4f1f7f7f11",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "containers": _CONTAINERS,
            "volumes": [{"name": "config", "configMap": {"name": "frontend"}}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "terminationGracePeriodSeconds": 30,
        },
    }
    return orjson.dumps(tree)


def config_map(name: str, stamp: str = "") -> bytes:
    """Ten short files; with what is added when it is stored, 2.5 KB. ``stamp`` is a value of its own, to be found again."""
    lines = "server.address=0.0.0.0:8080\nserver.threads=16\nserver.timeout=30s\nlog.level=info\nlog.format=json\ncache.size=64MiB\n"
    data = {f"application-{number}.properties": lines + f"shard={number}\n" * 10 for number in range(9)}
    return orjson.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "shop"}}, "data": {"stamp": stamp, **data}}
    )


def service(name: str) -> bytes:
    """A Service with the annotations that people put on theirs, filled up to 2.5 KB stored."""
    notes = {f"shop.example/note-{number}": "who looks after it, and where to read more about it: " + "x" * 180 for number in range(5)}
    ports = [{"name": f"p{port}", "port": port} for port in (80, 443)]
    return orjson.dumps(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "annotations": notes},
            "spec": {"selector": {"app": name}, "ports": ports},
        }
    )
