"""Deployments, ReplicaSets and their kin with their Pod template as a plain tree.

A Pod must carry every field that its template has, also those that no type names; so the controllers that copy templates read
them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podwire.objects import apps
from podwire.objects.meta import LabelSelector, ObjectMeta, OwnerReference
from podwire.objects.resources import DAEMON_SETS, DEPLOYMENTS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS, Resource

Tree = dict[str, Any]


_UNSAID = frozenset(
    {
        "conditions",
        "currentReplicas",
        "fullyLabeledReplicas",
        "numberAvailable",
        "numberUnavailable",
        "readyReplicas",
        "unavailableReplicas",
        "updatedNumberScheduled",
        "updatedReplicas",
    }
)


def as_written(status: Tree, *unsaid: str) -> Tree:
    """The patch of a status: counts that are not said where they are zero, these and ``unsaid``, are taken away."""
    return {name: None if not value and (name in _UNSAID or name in unsaid) else value for name, value in status.items()}


class DeploymentSpec(apps.DeploymentSpec, frozen=True):
    template: Tree = {}  # type: ignore[assignment]


class Deployment(apps.Deployment, frozen=True):
    spec: DeploymentSpec = DeploymentSpec()


class ReplicaSetSpec(apps.ReplicaSetSpec, frozen=True):
    template: Tree = {}  # type: ignore[assignment]


class ReplicaSet(apps.ReplicaSet, frozen=True):
    spec: ReplicaSetSpec = ReplicaSetSpec()


class ReplicationControllerSpec(apps.ReplicationControllerSpec, frozen=True):
    template: Tree = {}  # type: ignore[assignment]


class ReplicationController(apps.ReplicationController, frozen=True):
    spec: ReplicationControllerSpec = ReplicationControllerSpec()

    def as_replica_set(self) -> ReplicaSet:
        """Give the ReplicaSet that would do the same. It keeps its own kind, so that Events and owner references name it."""
        spec = ReplicaSetSpec(
            replicas=self.spec.replicas,
            selector=LabelSelector(match_labels=self.spec.selector),
            template=self.spec.template,
            min_ready_seconds=self.spec.min_ready_seconds,
        )
        resource = REPLICATION_CONTROLLERS
        return ReplicaSet(api_version=resource.api_version, kind=resource.kind, metadata=self.metadata, spec=spec, status=self.status)


class DaemonSetSpec(apps.DaemonSetSpec, frozen=True):
    template: Tree = {}  # type: ignore[assignment]


class DaemonSet(apps.DaemonSet, frozen=True):
    spec: DaemonSetSpec = DaemonSetSpec()


class StatefulSetSpec(apps.StatefulSetSpec, frozen=True):
    template: Tree = {}  # type: ignore[assignment]
    volume_claim_templates: tuple[Tree, ...] = ()  # type: ignore[assignment]


class StatefulSet(apps.StatefulSet, frozen=True):
    spec: StatefulSetSpec = StatefulSetSpec()


TREE_DEPLOYMENTS = Resource(DEPLOYMENTS.group, DEPLOYMENTS.version, DEPLOYMENTS.plural, DEPLOYMENTS.kind, True, Deployment)
TREE_REPLICA_SETS = Resource(REPLICA_SETS.group, REPLICA_SETS.version, REPLICA_SETS.plural, REPLICA_SETS.kind, True, ReplicaSet)

TREE_REPLICATION_CONTROLLERS = Resource(
    REPLICATION_CONTROLLERS.group,
    REPLICATION_CONTROLLERS.version,
    REPLICATION_CONTROLLERS.plural,
    REPLICATION_CONTROLLERS.kind,
    True,
    ReplicationController,
)
TREE_DAEMON_SETS = Resource(DAEMON_SETS.group, DAEMON_SETS.version, DAEMON_SETS.plural, DAEMON_SETS.kind, True, DaemonSet)
TREE_STATEFUL_SETS = Resource(STATEFUL_SETS.group, STATEFUL_SETS.version, STATEFUL_SETS.plural, STATEFUL_SETS.kind, True, StatefulSet)


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
