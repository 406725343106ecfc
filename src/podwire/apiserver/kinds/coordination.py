"""Rows of the group coordination.k8s.io, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/
"""

from __future__ import annotations

from podwire.apiserver.kind import Kind

LEASE = Kind(
    "coordination.k8s.io", "v1", "leases", "Lease", True, "io.k8s.api.coordination.v1.Lease", generations=False, create_on_update=True
)

KINDS = (LEASE,)
