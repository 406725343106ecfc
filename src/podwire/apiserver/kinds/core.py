"""Rows of the core group, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

from podwire.apiserver.kind import STATUS, Kind, Subresource
from podwire.apiserver.validation import dns_1035_label, dns_label

_DEFINITION = "io.k8s.api.core.v1."

NAMESPACE = Kind(
    "",
    "v1",
    "namespaces",
    "Namespace",
    False,
    _DEFINITION + "Namespace",
    short_names=("ns",),
    subresources=(Subresource("finalize", verbs=("update",)), STATUS),
    name_errors=dns_label,
    generations=False,
)
NODE = Kind("", "v1", "nodes", "Node", False, _DEFINITION + "Node", short_names=("no",), subresources=(STATUS,), generations=False)
POD = Kind(
    "",
    "v1",
    "pods",
    "Pod",
    True,
    _DEFINITION + "Pod",
    short_names=("po",),
    categories=("all",),
    graceful=True,
    subresources=(
        STATUS,
        Subresource("binding", "Binding", "", "v1", ("create",)),
        Subresource("eviction", "Eviction", "policy", "v1", ("create",)),
    ),
)
SERVICE = Kind(
    "",
    "v1",
    "services",
    "Service",
    True,
    _DEFINITION + "Service",
    short_names=("svc",),
    categories=("all",),
    subresources=(STATUS,),
    name_errors=dns_1035_label,
    generations=False,
)
ENDPOINTS = Kind(
    "", "v1", "endpoints", "Endpoints", True, _DEFINITION + "Endpoints", singular="endpoints", short_names=("ep",), generations=False
)
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap", True, _DEFINITION + "ConfigMap", short_names=("cm",), generations=False)
SECRET = Kind("", "v1", "secrets", "Secret", True, _DEFINITION + "Secret", generations=False)
SERVICE_ACCOUNT = Kind(
    "",
    "v1",
    "serviceaccounts",
    "ServiceAccount",
    True,
    _DEFINITION + "ServiceAccount",
    short_names=("sa",),
    generations=False,
    subresources=(Subresource("token", "TokenRequest", "authentication.k8s.io", "v1", ("create",)),),
)
EVENT = Kind("", "v1", "events", "Event", True, _DEFINITION + "Event", short_names=("ev",), generations=False, create_on_update=True)

KINDS = (NAMESPACE, NODE, POD, SERVICE, ENDPOINTS, CONFIG_MAP, SECRET, SERVICE_ACCOUNT, EVENT)
