"""Whose Pods are whose: Pods made from a template, adopted and released.

Pure. A controller owns the Pods that name it as their controller and that its selector matches. It takes in those that it
matches and nobody owns, and lets go of those that it no longer matches.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#non-template-pod-acquisitions
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from podwire.objects.core import Pod
from podwire.objects.meta import Object, OwnerReference
from podwire.objects.resources import Resource
from podwire.workloads.availability import is_active
from podwire.workloads.kinds import Tree, controller_of, owned_by


@dataclass(frozen=True)
class Claim:
    """``mine`` are the Pods that the controller has once ``adopt`` and ``release`` are done."""

    mine: tuple[Pod, ...] = ()
    adopt: tuple[Pod, ...] = ()
    release: tuple[Pod, ...] = ()


def claim(owner: Object, pods: Iterable[Pod], fits: Callable[[Pod], bool]) -> Claim:
    """``pods`` are those that the owner controls, and those of its namespace that nobody controls."""
    mine: list[Pod] = []
    adopt: list[Pod] = []
    release: list[Pod] = []
    for pod in pods:
        reference = controller_of(pod.metadata)
        if reference is not None and reference.uid == owner.metadata.uid:
            (mine if fits(pod) else release).append(pod)
        elif reference is None and fits(pod) and is_active(pod) and owner.metadata.deletion_timestamp is None:
            adopt.append(pod)
            mine.append(pod)
    return Claim(tuple(mine), tuple(adopt), tuple(release))


def pod_of(resource: Resource[Any], owner: Object, template: Tree, name: str, labels: dict[str, str] | None = None) -> Tree:
    """Make a Pod from a template, under a name that the caller chose, with labels beside the template's."""
    meta = template.get("metadata") or {}
    head = {"name": name, "generateName": f"{owner.name}-", "namespace": owner.namespace}
    copied = {field: meta[field] for field in ("labels", "annotations", "finalizers") if meta.get(field)}
    if labels:
        copied["labels"] = {**copied.get("labels", {}), **labels}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": head | copied | {"ownerReferences": [owned_by(resource, owner.metadata)]},
        "spec": template.get("spec") or {},
    }


def adoption(resource: Resource[Any], owner: Object, one: Object) -> Tree:
    """Make the patch that gives an object to the owner; refused by the API if the object is not the one we saw."""
    others = [reference for reference in one.metadata.owner_references if reference.uid != owner.metadata.uid]
    return {"metadata": {"uid": one.metadata.uid, "ownerReferences": [*map(_reference, others), owned_by(resource, owner.metadata)]}}


def release(owner: Object, one: Object) -> Tree:
    """Make the patch that takes an object, which the selector no longer matches, from the owner."""
    others = [reference for reference in one.metadata.owner_references if reference.uid != owner.metadata.uid]
    return {"metadata": {"uid": one.metadata.uid, "ownerReferences": [*map(_reference, others)] or None}}


def _reference(owner: OwnerReference) -> Tree:
    tree: Tree = {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    return tree | ({"controller": True} if owner.controller else {}) | ({"blockOwnerDeletion": True} if owner.block_owner_deletion else {})
