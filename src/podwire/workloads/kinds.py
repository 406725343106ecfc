"""Deployments and ReplicaSets with their Pod template as a plain tree.

A Pod must carry every field that its template has, also those that no type names; so the controllers that copy templates read
them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podwire.objects import apps
from podwire.objects.meta import ObjectMeta, OwnerReference
from podwire.objects.resources import DEPLOYMENTS, REPLICA_SETS, Resource

Tree = dict[str, Any]


class DeploymentSpec(apps.DeploymentSpec, frozen=True):
    template: Tree = {}  # type: ignore[assignment]


class Deployment(apps.Deployment, frozen=True):
    spec: DeploymentSpec = DeploymentSpec()


class ReplicaSetSpec(apps.ReplicaSetSpec, frozen=True):
    template: Tree = {}  # type: ignore[assignment]


class ReplicaSet(apps.ReplicaSet, frozen=True):
    spec: ReplicaSetSpec = ReplicaSetSpec()


TREE_DEPLOYMENTS = Resource(DEPLOYMENTS.group, DEPLOYMENTS.version, DEPLOYMENTS.plural, DEPLOYMENTS.kind, True, Deployment)
TREE_REPLICA_SETS = Resource(REPLICA_SETS.group, REPLICA_SETS.version, REPLICA_SETS.plural, REPLICA_SETS.kind, True, ReplicaSet)


def selector_entry(namespace: str, labels: Mapping[str, str]) -> tuple[str, str, str]:
    """Give the entry under which a selector is found by a Pod that it may match: one of its labels, the same for equal selectors.

    A selector of expressions alone stands under no label; ``label_entries`` of any Pod has that entry too.
    """
    first = min(labels.items(), default=("", ""))
    return namespace, *first


def label_entries(namespace: str, labels: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Give the entries under which selectors that may match these labels stand."""
    return [(namespace, key, value) for key, value in labels.items()] + [(namespace, "", "")]


def controller_of(meta: ObjectMeta) -> OwnerReference | None:
    """Give the owner that controls an object, None if nobody does."""
    return next((owner for owner in meta.owner_references if owner.controller), None)


def owned_by(resource: Resource[Any], owner: ObjectMeta) -> Tree:
    """Give the owner reference of a controller, as a plain tree."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
