"""Rows of the group apps, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/
"""

from __future__ import annotations

from podwire.apiserver.kind import SCALE, STATUS, Kind
from podwire.apiserver.kinds import workload_cells as cells
from podwire.apiserver.kinds import workload_defaults as defaults
from podwire.apiserver.kinds.workload_validation import (
    validate_daemon_set,
    validate_deployment,
    validate_replica_set,
    validate_stateful_set,
)

_DEFINITION = "io.k8s.api.apps.v1."

DEPLOYMENT = Kind(
    "apps",
    "v1",
    "deployments",
    "Deployment",
    True,
    _DEFINITION + "Deployment",
    short_names=("deploy",),
    categories=("all",),
    subresources=(SCALE, STATUS),
    columns=cells.DEPLOYMENT_COLUMNS,
    row=cells.deployment_row,
    default=defaults.default_deployment,
    validate=validate_deployment,
)
REPLICA_SET = Kind(
    "apps",
    "v1",
    "replicasets",
    "ReplicaSet",
    True,
    _DEFINITION + "ReplicaSet",
    short_names=("rs",),
    categories=("all",),
    subresources=(SCALE, STATUS),
    columns=cells.REPLICA_COLUMNS,
    row=cells.replica_row,
    default=defaults.default_replica_set,
    validate=validate_replica_set,
    selectable_fields={"status.replicas": lambda tree: str(tree.get("status", {}).get("replicas", 0))},
)

STATEFUL_SET = Kind(
    "apps",
    "v1",
    "statefulsets",
    "StatefulSet",
    True,
    _DEFINITION + "StatefulSet",
    short_names=("sts",),
    categories=("all",),
    subresources=(SCALE, STATUS),
    columns=cells.STATEFUL_COLUMNS,
    row=cells.stateful_row,
    default=defaults.default_stateful_set,
    validate=validate_stateful_set,
)
DAEMON_SET = Kind(
    "apps",
    "v1",
    "daemonsets",
    "DaemonSet",
    True,
    _DEFINITION + "DaemonSet",
    short_names=("ds",),
    categories=("all",),
    subresources=(STATUS,),
    columns=cells.DAEMON_COLUMNS,
    row=cells.daemon_row,
    default=defaults.default_daemon_set,
    validate=validate_daemon_set,
)

CONTROLLER_REVISION = Kind(
    "apps",
    "v1",
    "controllerrevisions",
    "ControllerRevision",
    True,
    _DEFINITION + "ControllerRevision",
    columns=cells.CONTROLLER_REVISION_COLUMNS,
    row=cells.controller_revision_row,
    generations=False,
)

KINDS = (DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET, CONTROLLER_REVISION)
