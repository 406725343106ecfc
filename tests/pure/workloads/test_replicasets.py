from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from podwire.objects import codec
from podwire.objects.core import Pod
from podwire.objects.resources import REPLICA_SETS
from podwire.workloads import ownership
from podwire.workloads.kinds import ReplicaSet, ReplicationController
from podwire.workloads.ranking import DELETION_COST, victims
from podwire.workloads.replicasets import desired

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": True}


def replica_set(replicas: int, **spec: Any) -> ReplicaSet:
    body = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}}
    return codec.convert(
        ReplicaSet, {"metadata": {"name": "web", "namespace": "default", "uid": "rs", "generation": 3}, "spec": body | spec}
    )


def pod(
    name: str, *, ready: str = "", node: str = "n", phase: str = "Running", meta: dict[str, Any] | None = None, restarts: int = 0
) -> Pod:
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": ready}] if ready else []
    head = {"name": name, "namespace": "default", "uid": f"u-{name}", "labels": {"app": "web"}, "ownerReferences": [OWNER]}
    containers = [{"name": "c", "restartCount": restarts}]
    state = {"phase": phase, "conditions": conditions, "containerStatuses": containers}
    return codec.convert(Pod, {"metadata": head | (meta or {}), "spec": {"nodeName": node}, "status": state})


EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-01T00:00:50Z"


def test_what_lacks_is_made_and_what_ended_or_ends_does_not_count() -> None:
    pods = [pod("a"), pod("b", phase="Failed"), pod("c", meta={"deletionTimestamp": EARLY})]
    assert desired.decide(replica_set(3), pods, NOW).create == 2
    assert desired.decide(replica_set(1), pods, NOW) == desired.Plan()


def test_pods_of_nobody_are_adopted_and_pods_that_no_longer_match_are_released() -> None:
    orphan = pod("orphan", meta={"ownerReferences": []})
    other = pod("other", meta={"ownerReferences": [OWNER | {"uid": "x"}]})
    renamed = pod("renamed", meta={"labels": {"app": "debug"}})
    plan = desired.decide(replica_set(1), [orphan, other, renamed], NOW)
    assert (plan.adopt, plan.release, plan.create) == ((orphan,), (renamed,), 0)
    assert ownership.adoption(REPLICA_SETS, replica_set(1), orphan)["metadata"]["ownerReferences"][0]["uid"] == "rs"
    assert ownership.release(replica_set(1), renamed)["metadata"] == {"uid": "u-renamed", "ownerReferences": None}


def test_those_whose_loss_costs_least_go_first() -> None:
    ranked = [
        pod("unplaced", node="", phase="Pending"),
        pod("pending", node="n1", phase="Pending"),
        pod("unready", node="n2"),
        pod("cheap", node="n3", ready=EARLY, meta={"annotations": {DELETION_COST: "-5"}}),
        pod("crowded", node="n4", ready=EARLY),
        pod("crowding", node="n4", ready=EARLY),
        pod("young", node="n5", ready=LATE),
        pod("restarted", node="n6", ready=EARLY, restarts=3),
        pod("old", node="n7", ready=EARLY),
        pod("dear", node="n8", ready=EARLY, meta={"annotations": {DELETION_COST: "5"}}),
    ]
    assert [one.name for one in victims(ranked[::-1], len(ranked))] == [one.name for one in ranked]


def test_available_is_ready_for_long_enough() -> None:
    wanted = replica_set(2, minReadySeconds=30)
    pods = [pod("a", ready=EARLY), pod("b", ready=LATE)]
    tree = desired.status(wanted, pods, "", NOW)
    assert (tree["replicas"], tree["readyReplicas"], tree["availableReplicas"], tree["observedGeneration"]) == (2, 2, 1, 3)
    assert desired.decide(wanted, pods, NOW).again_s == 20


def test_a_refusal_shows_in_the_status_and_keeps_its_time() -> None:
    tree = desired.status(replica_set(1), [], "quota exceeded", NOW)
    assert tree["conditions"][0]["message"] == "quota exceeded"
    failing = codec.convert(ReplicaSet, codec.tree(replica_set(1)) | {"status": tree})
    assert not desired.changed(failing, desired.status(failing, [], "quota exceeded", NOW.replace(hour=5)))
    assert desired.changed(failing, desired.status(failing, [], "", NOW))


def test_a_pod_carries_the_whole_template() -> None:
    template = {
        "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
        "spec": {"containers": [], "aFieldOfTomorrow": {"x": [1]}},
    }
    tree = ownership.pod_of(REPLICA_SETS, replica_set(1), template, "web-abcde")
    assert tree["spec"] == template["spec"]
    assert tree["metadata"]["annotations"] == {"a": "b"}
    assert tree["metadata"]["ownerReferences"][0]["controller"] is True


def test_a_replica_set_that_ends_does_nothing() -> None:
    ending = codec.convert(ReplicaSet, codec.tree(replica_set(3)) | {"metadata": {"uid": "rs", "deletionTimestamp": EARLY}})
    assert desired.decide(ending, [pod("a")], NOW) == desired.Plan()


def test_a_replication_controller_is_decided_on_as_a_replica_set() -> None:
    tree = {
        "metadata": {"name": "old", "namespace": "default", "uid": "rc"},
        "spec": {"replicas": 2, "selector": {"app": "web"}, "template": {"metadata": {"labels": {"app": "web"}}}},
    }
    controller = codec.convert(ReplicationController, tree)
    orphan = pod("orphan", meta={"ownerReferences": []})
    plan = desired.decide(controller.as_replica_set(), [orphan], NOW)
    assert (plan.create, plan.adopt) == (1, (orphan,))
