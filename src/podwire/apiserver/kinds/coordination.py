"""Rows of the group coordination.k8s.io, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver.cells import age
from podwire.apiserver.kind import AGE, NAME, Column, Kind, Tree
from podwire.apiserver.validation import FieldError, Path, invalid
from podwire.apiserver.validation_values import not_negative


def _row(tree: Tree, now: datetime) -> list[Any]:
    metadata = tree["metadata"]
    return [metadata["name"], tree.get("spec", {}).get("holderIdentity", ""), age(metadata.get("creationTimestamp"), now)]


def _validate(tree: Tree, _old: Tree | None) -> list[FieldError]:
    spec, path = tree.get("spec", {}), Path("spec")
    seconds = spec.get("leaseDurationSeconds")
    errors = [] if seconds is None or seconds > 0 else [invalid(path / "leaseDurationSeconds", seconds, "must be greater than 0")]
    return errors + not_negative(spec.get("leaseTransitions"), path / "leaseTransitions")


LEASE = Kind(
    "coordination.k8s.io",
    "v1",
    "leases",
    "Lease",
    True,
    "io.k8s.api.coordination.v1.Lease",
    columns=(NAME, Column("Holder", description="Who holds the lease."), AGE),
    row=_row,
    validate=_validate,
    generations=False,
    create_on_update=True,
)

KINDS = (LEASE,)
