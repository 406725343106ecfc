"""The templates that a DaemonSet or StatefulSet has had, kept as ControllerRevisions: what ``kubectl rollout history`` and ``undo`` read.

Pure. A template that comes back takes the number after the highest. Revisions beyond the limit are forgotten, the oldest first, but
none that a Pod still carries.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/controller-revision-v1/
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from podwire.objects.apps import ControllerRevision
from podwire.objects.meta import Object
from podwire.objects.resources import Resource
from podwire.workloads import names
from podwire.workloads.kinds import Tree, controller_of, owned_by

HASH = "controller-revision-hash"


@dataclass(frozen=True)
class Plan:
    """Exactly one of ``create`` and ``update``: the revision of the present template is to be made, or is there.

    ``number`` is not 0 if ``update`` has to take that number.
    """

    create: Tree | None = None
    update: ControllerRevision | None = None
    number: int = 0
    adopt: tuple[ControllerRevision, ...] = ()


def data_of(template: Tree) -> Tree:
    """Give the patch that brings a template back."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def template_of(revision: ControllerRevision) -> Tree:
    template = (revision.data.get("spec") or {}).get("template") or {}
    return {key: value for key, value in template.items() if key != "$patch"}


def decide(resource: Resource[Any], owner: Object, template: Tree, have: Iterable[ControllerRevision], collisions: int) -> Plan:
    """``have`` are the revisions that the owner controls, and those that nobody controls and its selector matches."""
    ordered = sorted(have, key=lambda one: (one.revision, one.name))
    adopt = tuple(one for one in ordered if controller_of(one.metadata) is None)
    highest = ordered[-1].revision if ordered else 0
    found = next((one for one in reversed(ordered) if template_of(one) == template), None)
    if found is not None:
        return Plan(update=found, number=highest + 1 if found.revision != highest else 0, adopt=adopt)
    token = names.template_hash(template, collisions)
    labels = ((template.get("metadata") or {}).get("labels") or {}) | {HASH: token}
    meta = {
        "name": f"{owner.name}-{token}",
        "namespace": owner.namespace,
        "labels": labels,
        "ownerReferences": [owned_by(resource, owner.metadata)],
    }
    return Plan(create={"metadata": meta, "data": data_of(template), "revision": highest + 1}, adopt=adopt)


def token_of(revision: ControllerRevision) -> str:
    """Give the hash by which Pods of a DaemonSet name the revision."""
    return revision.metadata.labels.get(HASH, "") or revision.name.rpartition("-")[2]


def forgotten(have: Iterable[ControllerRevision], live: Collection[str], limit: int) -> Sequence[ControllerRevision]:
    """Give the revisions to delete. ``live`` are names or hashes that Pods or the status still name."""
    idle = [one for one in have if one.name not in live and token_of(one) not in live]
    return sorted(idle, key=lambda one: (one.revision, one.name))[: max(0, len(idle) - limit)]
