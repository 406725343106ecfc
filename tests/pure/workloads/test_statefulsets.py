from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.core import Pod
from podwire.objects.storage import PersistentVolumeClaim
from podwire.workloads.kinds import StatefulSet
from podwire.workloads.statefulsets import desired
from podwire.workloads.statefulsets.desired import Revisions

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
STEADY = Revisions("db-1", "db-1")
ROLLING = Revisions("db-1", "db-2")


def stateful_set(replicas: int, **spec: Any) -> StatefulSet:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    body = {"replicas": replicas, "selector": {"matchLabels": {"app": "db"}}, "template": template, "serviceName": "db"}
    meta = {"name": "db", "namespace": "default", "uid": "sts", "generation": 1}
    return codec.convert(StatefulSet, {"metadata": meta, "spec": body | spec})


def pod(number: int, *, revision: str = "db-1", ready: bool = True, phase: str = "Running", ending: bool = False) -> Pod:
    tree = desired.pod_of(stateful_set(0), number, revision, stateful_set(0).spec.template)
    tree["metadata"]["uid"] = f"u-{number}"
    if ending:
        tree["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}] if ready else []
    return codec.convert(Pod, tree | {"status": {"phase": phase, "conditions": conditions}})


def step(one: StatefulSet, pods: list[Pod], revisions: Revisions = STEADY) -> tuple[list[int], list[str]]:
    plan = desired.decide(one, pods, revisions, NOW)
    return [number for number, _ in plan.create], [each.name for each in plan.delete]


def test_in_order_each_waits_for_the_one_before() -> None:
    assert step(stateful_set(3), []) == ([0], [])
    assert step(stateful_set(3), [pod(0, ready=False)]) == ([], [])
    assert step(stateful_set(3), [pod(0)]) == ([1], [])
    assert step(stateful_set(3, minReadySeconds=300), [pod(0)]) == ([], [])
    assert step(stateful_set(3), [pod(0), pod(2)]) == ([1], [])
    assert step(stateful_set(2, ordinals={"start": 5}), [pod(5)]) == ([6], [])


def test_down_from_the_highest_one_at_a_time() -> None:
    three = [pod(0), pod(1), pod(2)]
    assert step(stateful_set(1), three) == ([], ["db-2"])
    assert step(stateful_set(1), [pod(0), pod(1), pod(2, ending=True)]) == ([], [])
    assert step(stateful_set(1), [pod(0), pod(1, ready=False), pod(2)]) == ([], ["db-2"])
    assert step(stateful_set(1), [pod(0, ready=False), pod(1)]) == ([], []), "not while one that stays does not serve"


def test_in_parallel_all_at_once() -> None:
    parallel = {"podManagementPolicy": "Parallel"}
    assert step(stateful_set(3, **parallel), []) == ([0, 1, 2], [])
    assert step(stateful_set(1, **parallel), [pod(0, ready=False), pod(1), pod(2)]) == ([], ["db-2", "db-1"])


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_what_ended_is_made_anew_under_its_name(phase: str) -> None:
    assert step(stateful_set(1), [pod(0, phase=phase, ready=False)]) == ([], ["db-0"])
    assert step(stateful_set(1), [pod(0, phase=phase, ready=False, ending=True)]) == ([], [])


def test_an_update_goes_from_the_highest_to_the_partition() -> None:
    three = [pod(0), pod(1), pod(2)]
    assert step(stateful_set(3), three, ROLLING) == ([], ["db-2"])
    assert step(stateful_set(3), [*three[:2], pod(2, revision="db-2", ready=False)], ROLLING) == ([], [])
    assert step(stateful_set(3), [*three[:2], pod(2, revision="db-2")], ROLLING) == ([], ["db-1"])
    partitioned = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}
    assert step(stateful_set(3, **partitioned), [*three[:2], pod(2, revision="db-2")], ROLLING) == ([], [])
    assert step(stateful_set(3, updateStrategy={"type": "OnDelete"}), three, ROLLING) == ([], [])
    wide = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}}
    assert step(stateful_set(3, **wide), three, ROLLING) == ([], ["db-2", "db-1"])


def test_below_the_partition_the_former_template_comes_back() -> None:
    partitioned = stateful_set(3, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})
    assert desired.decide(partitioned, [], ROLLING, NOW).create == ((0, "db-1"),)
    assert desired.decide(partitioned, [pod(0)], ROLLING, NOW).create == ((1, "db-2"),)


def test_names_that_are_not_of_the_set_are_left_alone() -> None:
    tree = codec.tree(pod(0))
    tree["metadata"] |= {"name": "db-00", "ownerReferences": []}
    stranger = codec.convert(Pod, tree)
    assert desired.decide(stateful_set(0), [stranger], STEADY, NOW) == desired.Plan()
    tree["metadata"]["name"] = "db-0"
    orphan = codec.convert(Pod, tree)
    assert desired.decide(stateful_set(1), [orphan], STEADY, NOW).adopt == (orphan,)


def test_a_pod_has_its_name_as_hostname_and_the_service_as_subdomain() -> None:
    claims = stateful_set(1, volumeClaimTemplates=[{"metadata": {"name": "data"}}])
    tree = desired.pod_of(claims, 7, "db-2", claims.spec.template)
    assert (tree["metadata"]["name"], tree["spec"]["hostname"], tree["spec"]["subdomain"]) == ("db-7", "db-7", "db")
    assert tree["metadata"]["labels"] == {
        "app": "db",
        "controller-revision-hash": "db-2",
        "statefulset.kubernetes.io/pod-name": "db-7",
        "apps.kubernetes.io/pod-index": "7",
    }
    assert tree["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-7"}}]


def test_claims_outlive_their_pods_unless_the_policy_says_otherwise() -> None:
    template = {"metadata": {"name": "data", "labels": {"tier": "1"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}

    def claim(deleted: str, scaled: str, number: int) -> list[tuple[str, str]]:
        policy = {"whenDeleted": deleted, "whenScaled": scaled}
        one = stateful_set(1, volumeClaimTemplates=[template], persistentVolumeClaimRetentionPolicy=policy)
        tree = desired.claims_of(one, number)["data"]
        assert tree["metadata"]["name"] == f"data-db-{number}"
        assert tree["metadata"]["labels"] == {"tier": "1", "app": "db"}
        assert tree["spec"] == template["spec"]
        made = codec.convert(PersistentVolumeClaim, tree)
        owners = desired.claim_owners(one, pod(number), made)
        if owners is None:
            owners = tree["metadata"].get("ownerReferences", [])
        return [(owner["kind"], owner["name"]) for owner in owners]

    assert claim("Retain", "Retain", 0) == claim("Retain", "Retain", 1) == []
    assert claim("Delete", "Retain", 0) == claim("Delete", "Retain", 1) == [("StatefulSet", "db")]
    assert (claim("Retain", "Delete", 0), claim("Retain", "Delete", 1)) == ([], [("Pod", "db-1")])
    assert (claim("Delete", "Delete", 0), claim("Delete", "Delete", 1)) == ([("StatefulSet", "db")], [("Pod", "db-1")])


def test_the_status_closes_an_update() -> None:
    half = desired.status(stateful_set(2), [pod(0), pod(1, revision="db-2")], ROLLING, NOW)
    assert (half["currentRevision"], half["currentReplicas"], half["updatedReplicas"]) == ("db-1", 1, 1)
    done = desired.status(stateful_set(2), [pod(0, revision="db-2"), pod(1, revision="db-2")], ROLLING, NOW)
    assert (done["currentRevision"], done["currentReplicas"], done["readyReplicas"]) == ("db-2", 2, 2)


states = st.fixed_dictionaries(
    {
        "revision": st.sampled_from(["db-1", "db-2"]),
        "ready": st.booleans(),
        "ending": st.booleans(),
        "phase": st.sampled_from(["Pending", "Running", "Failed"]),
    }
)


@given(
    st.dictionaries(st.integers(0, 6), states),
    st.integers(0, 5),
    st.sampled_from(["OrderedReady", "Parallel"]),
    st.integers(1, 3),
)
def test_steps_lead_to_the_wanted_pods_and_never_to_two_of_a_name(
    start: dict[int, dict[str, Any]], replicas: int, policy: str, unavailable: int
) -> None:
    """Played with a node on which each Pod becomes ready a step after it was made and ends a step after it was told to."""
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable}}
    owner = stateful_set(replicas, podManagementPolicy=policy, updateStrategy=update)
    pods = {number: dict(state) for number, state in start.items()}
    for _ in range(60):
        plan = desired.decide(owner, [pod(number, **state) for number, state in pods.items()], ROLLING, NOW)
        made = [number for number, _ in plan.create]
        assert len(set(made)) == len(made), "a name is made once"
        assert not set(made) & pods.keys(), "and when the last of it is gone"
        going = {desired.ordinal(owner, one) for one in plan.delete}
        if policy == "OrderedReady":
            assert len(made) <= 1
            assert all(pods[number]["ready"] and not pods[number]["ending"] for number in range(made[0] if made else 0))
        pods = {number: state for number, state in pods.items() if not state["ending"]}
        for number, state in pods.items():
            if number in going:
                state["ending"] = True
            elif state["phase"] != "Failed":
                state |= {"ready": True, "phase": "Running"}
        pods |= {number: {"revision": which, "ready": False, "ending": False, "phase": "Pending"} for number, which in plan.create}
    assert pods.keys() == set(range(replicas))
    assert all(state["revision"] == "db-2" and state["ready"] for state in pods.values())
