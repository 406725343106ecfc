"""Rows of the group apps, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/
"""

from __future__ import annotations

from podwire.apiserver.kind import SCALE, STATUS, Kind

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
)

KINDS = (DEPLOYMENT, REPLICA_SET)
