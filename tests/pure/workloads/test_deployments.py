from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.workloads.deployments import desired, scaling, status
from podwire.workloads.kinds import Deployment, ReplicaSet

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def template(image: str = "a") -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image, "unknownField": 1}]}}


def deployment(replicas: int = 4, image: str = "a", **spec: Any) -> Deployment:
    meta = {"name": "web", "namespace": "default", "uid": "d", "generation": 1}
    body = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(image)}
    return codec.convert(Deployment, {"metadata": meta, "spec": body | spec})


class Cluster:
    """A Deployment and its ReplicaSets; what is decided is done at once, Pods become available when the test says so."""

    def __init__(self, wanted: Deployment) -> None:
        self.deployment = wanted
        self.sets: dict[str, dict[str, Any]] = {}
        self.available: dict[str, int] = {}
        self.made = 0

    def replica_sets(self) -> list[ReplicaSet]:
        found = []
        for name, tree in self.sets.items():
            size = tree["spec"]["replicas"]
            available = min(size, self.available.get(name, 0))
            state = {"replicas": size, "readyReplicas": available, "availableReplicas": available}
            found.append(codec.convert(ReplicaSet, tree | {"status": state}))
        return found

    def step(self, *, old_pods: bool = False) -> desired.Plan:
        plan = desired.decide(self.deployment, self.replica_sets(), old_pods=old_pods)
        if plan.create is not None:
            self.made += 1
            name = plan.create["metadata"]["name"]
            assert name not in self.sets
            meta = {"uid": f"rs{self.made}", "creationTimestamp": f"2026-01-01T00:00:{self.made:02}Z"}
            self.sets[name] = plan.create | {"metadata": plan.create["metadata"] | meta}
        for one, notes in plan.annotate:
            self.sets[one.name]["metadata"]["annotations"] |= notes
        for scale in plan.scale:
            tree = self.sets[scale.replica_set.name]
            tree["spec"]["replicas"] = scale.replicas
            tree["metadata"]["annotations"] |= scaling.size_annotations(self.deployment, desired.limits(self.deployment))
            self.available[scale.replica_set.name] = min(scale.replicas, self.available.get(scale.replica_set.name, 0))
        for one in plan.remove:
            del self.sets[one.name]
        return plan

    def sizes(self) -> dict[str, int]:
        return {tree["spec"]["template"]["spec"]["containers"][0]["image"]: tree["spec"]["replicas"] for tree in self.sets.values()}

    def all_available(self) -> None:
        self.available = {name: tree["spec"]["replicas"] for name, tree in self.sets.items()}

    def settle(self) -> None:
        for _ in range(100):
            before = self.sizes()
            plan = self.step()
            self.all_available()
            if self.sizes() == before and not plan.create and not plan.remove and not plan.annotate:
                return
        raise AssertionError(f"does not settle: {self.sizes()}")


def test_a_new_deployment_makes_one_replica_set_with_the_whole_template() -> None:
    cluster = Cluster(deployment(3))
    plan = cluster.step()
    assert plan.create is not None
    token = plan.create["metadata"]["labels"]["pod-template-hash"]
    assert plan.create["metadata"]["name"] == f"web-{token}"
    assert plan.create["spec"]["replicas"] == 3
    assert plan.create["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": token}
    assert plan.create["spec"]["template"]["metadata"]["labels"] == {"app": "web", "pod-template-hash": token}
    assert plan.create["spec"]["template"]["spec"] == template()["spec"], "fields that no type names are carried"
    assert plan.create["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    cluster.settle()
    assert cluster.made == 1


def test_going_back_to_a_former_template_uses_its_replica_set_under_a_new_revision() -> None:
    cluster = Cluster(deployment(2, "a"))
    cluster.settle()
    cluster.deployment = deployment(2, "b")
    cluster.settle()
    assert cluster.sizes() == {"a": 0, "b": 2}
    cluster.deployment = deployment(2, "a")
    cluster.settle()
    assert cluster.sizes() == {"a": 2, "b": 0}
    assert cluster.made == 2
    revisions = {tree["metadata"]["annotations"][desired.REVISION] for tree in cluster.sets.values()}
    assert revisions == {"2", "3"}
    assert any(tree["metadata"]["annotations"].get(desired.HISTORY) == "1" for tree in cluster.sets.values())


def test_history_is_kept_to_the_limit_and_the_oldest_goes_first() -> None:
    cluster = Cluster(deployment(1, "0", revisionHistoryLimit=2))
    for image in "01234":
        cluster.deployment = deployment(1, image, revisionHistoryLimit=2)
        cluster.settle()
    assert cluster.sizes() == {"2": 0, "3": 0, "4": 1}


def test_recreate_waits_for_the_last_old_pod() -> None:
    strategy = {"strategy": {"type": "Recreate"}}
    cluster = Cluster(deployment(2, "a", **strategy))
    cluster.settle()
    cluster.deployment = deployment(2, "b", **strategy)
    cluster.step(old_pods=True)
    assert cluster.sizes() == {"a": 0}
    cluster.step(old_pods=True)
    assert cluster.sizes() == {"a": 0}
    cluster.step()
    assert cluster.sizes() == {"a": 0, "b": 2}


def test_a_paused_deployment_is_scaled_but_not_rolled() -> None:
    cluster = Cluster(deployment(2, "a"))
    cluster.settle()
    cluster.deployment = deployment(3, "b", paused=True)
    cluster.settle()
    assert cluster.sizes() == {"a": 3}


def test_scaling_in_the_middle_of_a_rollout_keeps_the_proportion() -> None:
    cluster = Cluster(deployment(10, "a", strategy={"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}))
    cluster.settle()
    cluster.deployment = deployment(10, "b", strategy={"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}})
    for _ in range(5):
        cluster.step()
    assert cluster.sizes() == {"a": 8, "b": 5}
    cluster.deployment = deployment(15, "b", strategy={"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}})
    cluster.step()
    assert cluster.sizes() == {"a": 11, "b": 7}, "the example of the Kubernetes documentation"


def test_an_orphan_that_fits_is_adopted_not_doubled() -> None:
    cluster = Cluster(deployment(2))
    cluster.settle()
    (tree,) = cluster.sets.values()
    orphan = codec.convert(ReplicaSet, tree | {"metadata": tree["metadata"] | {"ownerReferences": []}})
    plan = desired.decide(cluster.deployment, [orphan], old_pods=False)
    assert plan.adopt == (orphan,)


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "expected"),
    [
        ("25%", "25%", 4, (1, 1)),
        ("25%", "25%", 3, (1, 0)),
        (0, 0, 3, (0, 1)),
        ("0%", "10%", 5, (0, 1)),
        (1, 5, 3, (1, 3)),
        ("100%", 0, 2, (2, 0)),
    ],
)
def test_limits(surge: Any, unavailable: Any, replicas: int, expected: tuple[int, int]) -> None:
    wanted = deployment(replicas, strategy={"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
    assert desired.limits(wanted) == expected


@given(
    st.integers(1, 12),
    st.one_of(st.integers(0, 4), st.sampled_from(["0%", "25%", "50%", "100%"])),
    st.one_of(st.integers(0, 4), st.sampled_from(["0%", "25%", "50%", "100%"])),
    st.data(),
)
def test_a_rollout_never_has_too_many_nor_too_few_and_always_ends(replicas: int, surge: Any, unavailable: Any, data: Any) -> None:
    strategy = {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}
    cluster = Cluster(deployment(replicas, "a", **strategy))
    cluster.settle()
    images = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
    for image in images:
        cluster.deployment = deployment(replicas, image, **strategy)
        most, least = desired.limits(cluster.deployment)
        for _ in range(data.draw(st.integers(0, 6))):
            had = sum(cluster.available.values())
            cluster.step()
            assert sum(cluster.sizes().values()) <= replicas + most
            assert sum(cluster.available.values()) >= min(had, replicas - least)
            for name, tree in cluster.sets.items():
                have = cluster.available.get(name, 0)
                cluster.available[name] = data.draw(st.integers(have, tree["spec"]["replicas"]))
    cluster.all_available()
    cluster.settle()
    assert cluster.sizes()[images[-1]] == replicas
    assert sum(cluster.sizes().values()) == replicas


# Status ------------------------------------------------------------------------------------------------------------------------


def told(cluster: Cluster, now: datetime = NOW) -> dict[str, Any]:
    plan = desired.decide(cluster.deployment, cluster.replica_sets(), old_pods=False)
    wanted, _ = status.status(cluster.deployment, plan, now)
    return wanted


def conditions(tree: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in tree["conditions"]}


def with_status(wanted: Deployment, tree: dict[str, Any]) -> Deployment:
    return codec.convert(Deployment, codec.tree(wanted) | {"status": tree})


def test_status_goes_from_created_to_complete_and_then_stays_the_same() -> None:
    cluster = Cluster(deployment(2))
    first = told(cluster)
    assert conditions(first) == {"Available": ("False", "MinimumReplicasUnavailable"), "Progressing": ("True", "NewReplicaSetCreated")}
    cluster.settle()
    cluster.deployment = with_status(cluster.deployment, first)
    done = told(cluster, NOW + timedelta(seconds=3))
    assert conditions(done) == {"Available": ("True", "MinimumReplicasAvailable"), "Progressing": ("True", "NewReplicaSetAvailable")}
    assert (done["replicas"], done["updatedReplicas"], done["availableReplicas"], done["unavailableReplicas"]) == (2, 2, 2, None)
    cluster.deployment = with_status(cluster.deployment, done)
    assert not status.changed(cluster.deployment, told(cluster, NOW + timedelta(hours=3)))


def test_a_rollout_that_does_not_move_passes_its_deadline() -> None:
    cluster = Cluster(deployment(2, progressDeadlineSeconds=60))
    cluster.step()
    cluster.deployment = with_status(cluster.deployment, told(cluster))
    plan = desired.decide(cluster.deployment, cluster.replica_sets(), old_pods=False)
    _, again_s = status.status(cluster.deployment, plan, NOW + timedelta(seconds=10))
    assert again_s == 51
    late = told(cluster, NOW + timedelta(seconds=61))
    assert conditions(late)["Progressing"] == ("False", "ProgressDeadlineExceeded")
    cluster.deployment = with_status(cluster.deployment, late)
    cluster.all_available()
    assert conditions(told(cluster, NOW + timedelta(seconds=99)))["Progressing"] == ("True", "NewReplicaSetAvailable")
