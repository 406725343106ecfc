"""Rows of the core group, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

from collections.abc import Callable

from podwire.apiserver.kind import SCALE, STATUS, Kind, Subresource, Tree
from podwire.apiserver.kinds import core_cells as cells
from podwire.apiserver.kinds import core_rules as rules
from podwire.apiserver.kinds import pod_cells, service_addresses, service_cells, service_defaults, workload_cells
from podwire.apiserver.kinds.pod_defaults import default_pod, prepare_new_pod
from podwire.apiserver.kinds.pod_validation import validate_pod
from podwire.apiserver.kinds.service_validation import validate_service, validate_service_status
from podwire.apiserver.kinds.workload_defaults import default_replication_controller
from podwire.apiserver.kinds.workload_validation import validate_replication_controller
from podwire.apiserver.validation import dns_1035_label, dns_label

_DEFINITION = "io.k8s.api.core.v1."


def _text(*keys: str) -> Callable[[Tree], str]:
    """Give the text of a field by its path, ``""`` where there is none: what a field selector compares with."""

    def read(tree: Tree) -> str:
        value: object = tree
        for key in keys:
            if type(value) is not dict:
                return ""
            value = value.get(key)
        if type(value) is str:
            return value
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    return read


def _false_or(read: Callable[[Tree], str]) -> Callable[[Tree], str]:
    return lambda tree: read(tree) or "false"


PROXY_VERBS = ("create", "delete", "get", "patch", "update")

NAMESPACE = Kind(
    "",
    "v1",
    "namespaces",
    "Namespace",
    False,
    _DEFINITION + "Namespace",
    short_names=("ns",),
    subresources=(Subresource("finalize", verbs=("update",)), STATUS),
    columns=cells.NAMESPACE_COLUMNS,
    row=cells.namespace_row,
    selectable_fields={"status.phase": _text("status", "phase")},
    name_errors=dns_label,
    default=rules.default_namespace,
    prepare_create=rules.prepare_new_namespace,
    prepare_update=rules.prepare_changed_namespace,
    generations=False,
)
NODE = Kind(
    "",
    "v1",
    "nodes",
    "Node",
    False,
    _DEFINITION + "Node",
    short_names=("no",),
    subresources=(STATUS, Subresource("proxy", "NodeProxyOptions", "", "v1", PROXY_VERBS, streamed=True)),
    columns=cells.NODE_COLUMNS,
    row=cells.node_row,
    selectable_fields={"spec.unschedulable": _false_or(_text("spec", "unschedulable"))},
    default=rules.default_node,
    validate=rules.validate_node,
    generations=False,
    created_with_status=True,
)
POD = Kind(
    "",
    "v1",
    "pods",
    "Pod",
    True,
    _DEFINITION + "Pod",
    short_names=("po",),
    categories=("all",),
    subresources=(
        STATUS,
        Subresource("ephemeralcontainers"),
        Subresource("resize"),
        Subresource("log", verbs=("get",), streamed=True),
        Subresource("exec", "PodExecOptions", "", "v1", ("create", "get"), streamed=True),
        Subresource("attach", "PodAttachOptions", "", "v1", ("create", "get"), streamed=True),
        Subresource("portforward", "PodPortForwardOptions", "", "v1", ("create", "get"), streamed=True),
        Subresource("proxy", "PodProxyOptions", "", "v1", PROXY_VERBS, streamed=True),
        Subresource("binding", "Binding", "", "v1", ("create",)),
        Subresource("eviction", "Eviction", "policy", "v1", ("create",)),
    ),
    columns=pod_cells.COLUMNS,
    row=pod_cells.row,
    selectable_fields={
        "spec.nodeName": _text("spec", "nodeName"),
        "spec.restartPolicy": _text("spec", "restartPolicy"),
        "spec.schedulerName": _text("spec", "schedulerName"),
        "spec.serviceAccountName": _text("spec", "serviceAccountName"),
        "spec.hostNetwork": _false_or(_text("spec", "hostNetwork")),
        "status.phase": _text("status", "phase"),
        "status.podIP": _text("status", "podIP"),
        "status.nominatedNodeName": _text("status", "nominatedNodeName"),
    },
    default=default_pod,
    prepare_create=prepare_new_pod,
    validate=validate_pod,
    graceful=True,
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
    subresources=(STATUS, Subresource("proxy", "ServiceProxyOptions", "", "v1", PROXY_VERBS, streamed=True)),
    columns=service_cells.SERVICE_COLUMNS,
    row=service_cells.service_row,
    selectable_fields={"spec.clusterIP": _text("spec", "clusterIP"), "spec.type": _text("spec", "type")},
    name_errors=dns_1035_label,
    default=service_defaults.default_service,
    prepare_create=service_defaults.prepare_new_service,
    prepare_update=service_defaults.prepare_changed_service,
    validate=validate_service,
    validate_status=validate_service_status,
    companions=service_addresses.of_service,
    generations=False,
)
ENDPOINTS = Kind(
    "",
    "v1",
    "endpoints",
    "Endpoints",
    True,
    _DEFINITION + "Endpoints",
    singular="endpoints",
    short_names=("ep",),
    columns=service_cells.ENDPOINTS_COLUMNS,
    row=service_cells.endpoints_row,
    default=rules.default_endpoints,
    validate=rules.validate_endpoints,
    generations=False,
    create_on_update=True,
    deprecation="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
)
CONFIG_MAP = Kind(
    "",
    "v1",
    "configmaps",
    "ConfigMap",
    True,
    _DEFINITION + "ConfigMap",
    short_names=("cm",),
    columns=cells.CONFIG_MAP_COLUMNS,
    row=cells.config_map_row,
    validate=rules.validate_config_map,
    generations=False,
)
SECRET = Kind(
    "",
    "v1",
    "secrets",
    "Secret",
    True,
    _DEFINITION + "Secret",
    columns=cells.SECRET_COLUMNS,
    row=cells.secret_row,
    selectable_fields={"type": _text("type")},
    default=rules.default_secret,
    validate=rules.validate_secret,
    generations=False,
)
SERVICE_ACCOUNT = Kind(
    "",
    "v1",
    "serviceaccounts",
    "ServiceAccount",
    True,
    _DEFINITION + "ServiceAccount",
    short_names=("sa",),
    subresources=(Subresource("token", "TokenRequest", "authentication.k8s.io", "v1", ("create",)),),
    columns=cells.SERVICE_ACCOUNT_COLUMNS,
    row=cells.service_account_row,
    generations=False,
)
EVENT = Kind(
    "",
    "v1",
    "events",
    "Event",
    True,
    _DEFINITION + "Event",
    short_names=("ev",),
    columns=cells.EVENT_COLUMNS,
    row=cells.event_row,
    selectable_fields={
        **{
            f"involvedObject.{key}": _text("involvedObject", key)
            for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        },
        "reason": _text("reason"),
        "reportingComponent": _text("reportingComponent"),
        "source": lambda tree: tree.get("source", {}).get("component") or tree.get("reportingComponent", ""),
        "type": _text("type"),
    },
    default=rules.default_event,
    validate=rules.validate_event,
    generations=False,
    create_on_update=True,
)

REPLICATION_CONTROLLER = Kind(
    "",
    "v1",
    "replicationcontrollers",
    "ReplicationController",
    True,
    _DEFINITION + "ReplicationController",
    short_names=("rc",),
    categories=("all",),
    subresources=(SCALE, STATUS),
    columns=workload_cells.REPLICA_COLUMNS,
    row=workload_cells.replication_controller_row,
    default=default_replication_controller,
    validate=validate_replication_controller,
)

KINDS = (NAMESPACE, NODE, POD, SERVICE, ENDPOINTS, CONFIG_MAP, SECRET, SERVICE_ACCOUNT, EVENT, REPLICATION_CONTROLLER)
