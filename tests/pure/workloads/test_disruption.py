from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.apiserver import eviction
from podwire.objects import codec
from podwire.objects.core import Pod
from podwire.objects.meta import OwnerReference
from podwire.objects.policy import PodDisruptionBudget
from podwire.workloads.disruption import desired

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)


def budget(disrupted: dict[str, str] | None = None, **spec: Any) -> PodDisruptionBudget:
    meta = {"name": "b", "namespace": "default", "generation": 1}
    body = {"selector": {"matchLabels": {"app": "web"}}} | spec
    return codec.convert(PodDisruptionBudget, {"metadata": meta, "spec": body, "status": {"disruptedPods": disrupted or {}}})


def pod(name: str, *, ready: bool = True, owner: str = "rs", ending: bool = False, made: str = "2026-01-01T00:00:00Z") -> Pod:
    owners = [{"kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}] if owner else []
    meta = {
        "name": name,
        "namespace": "default",
        "uid": name,
        "labels": {"app": "web"},
        "ownerReferences": owners,
        "creationTimestamp": made,
    }
    if ending:
        meta["deletionTimestamp"] = "2026-01-01T00:00:50Z"
    state = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    return codec.convert(Pod, {"metadata": meta, "status": state})


def sizes(number: int) -> desired.Sizes:
    def size(_namespace: str, owner: OwnerReference) -> tuple[str, int] | None:
        return (owner.uid, number) if owner.name == "rs" else None

    return size


THREE = [pod("a"), pod("b"), pod("c")]


@pytest.mark.parametrize(
    ("spec", "expected", "needed", "allowed"),
    [
        ({"minAvailable": 2}, 3, 2, 1),
        ({"minAvailable": "50%"}, 4, 2, 1),
        ({"maxUnavailable": 1}, 4, 3, 0),
        ({"maxUnavailable": "50%"}, 4, 2, 1),
        ({"maxUnavailable": 9}, 4, 0, 3),
    ],
)
def test_what_may_go(spec: dict[str, Any], expected: int, needed: int, allowed: int) -> None:
    wanted, _ = desired.status(budget(**spec), THREE, sizes(4), NOW)
    assert (wanted["expectedPods"], wanted["desiredHealthy"], wanted["disruptionsAllowed"]) == (expected, needed, allowed)


def test_granted_evictions_count_until_they_are_seen_or_come_to_nothing() -> None:
    young = {"a": "2026-01-01T00:00:30Z", "gone": "2026-01-01T00:00:30Z"}
    wanted, again_s = desired.status(budget(young, minAvailable=1), THREE, sizes(3), NOW)
    assert (wanted["currentHealthy"], wanted["disruptedPods"], again_s) == (2, {"a": "2026-01-01T00:00:30Z"}, 90.0)
    following = [pod("a", made="2026-01-01T00:00:31Z"), *THREE[1:]]
    wanted, _ = desired.status(budget(young, minAvailable=1), following, sizes(3), NOW)
    assert (wanted["currentHealthy"], wanted["disruptedPods"]) == (3, {}), "the next Pod of that name was not evicted"
    old = {"a": "2025-12-31T00:00:00Z"}
    wanted, _ = desired.status(budget(old, minAvailable=1), THREE, sizes(3), NOW)
    assert (wanted["currentHealthy"], wanted["disruptedPods"]) == (3, {})


def test_pods_that_nobody_controls_are_told_of() -> None:
    alone = [pod("a", owner="")]
    assert desired.unmanaged(budget(maxUnavailable=1), alone)
    assert not desired.unmanaged(budget(minAvailable=1), alone)
    wanted, _ = desired.status(budget(maxUnavailable=1), [pod("a", owner="ds"), pod("b", owner="ds")], sizes(9), NOW)
    assert wanted["expectedPods"] == 2


@given(st.lists(st.booleans(), max_size=6), st.one_of(st.integers(0, 6), st.sampled_from(["0%", "50%", "100%"])), st.booleans())
def test_evictions_one_after_the_other_never_leave_fewer_than_needed(ready: list[bool], amount: int | str, least: bool) -> None:
    """Each eviction is granted from the status that the one before left; the controller counts in between, or has not yet."""
    spec: dict[str, Any] = {"minAvailable" if least else "maxUnavailable": amount, "unhealthyPodEvictionPolicy": "IfHealthyBudget"}
    pods = [pod(str(number), ready=state) for number, state in enumerate(ready)]
    one = budget(**spec)
    wanted, _ = desired.status(one, pods, sizes(len(pods)), NOW)
    healthy = sum(ready)
    tree = {"metadata": codec.tree(one.metadata), "spec": codec.tree(one.spec), "status": wanted}
    for each in pods:
        granted, refusal = eviction.decide(codec.tree(each), [tree])
        if refusal is None and each.ready:
            assert granted is tree
            tree["status"]["disruptionsAllowed"] -= 1
            healthy -= 1
        if refusal is not None:
            assert (refusal.code, refusal.message) == (429, eviction.REFUSED)
    assert healthy >= min(sum(ready), wanted["desiredHealthy"])


def test_what_asks_nobody() -> None:
    full = {"metadata": {"name": "b", "generation": 1}, "spec": {"selector": {}}, "status": {"observedGeneration": 1}}
    tree = codec.tree(pod("a"))
    assert eviction.decide(tree, []) == (None, None)
    assert eviction.decide(tree | {"status": {"phase": "Pending"}}, [full]) == (None, None)
    assert eviction.decide(codec.tree(pod("a", ending=True)), [full]) == (None, None)
    always = full | {"spec": {"selector": {}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}}
    assert eviction.decide(codec.tree(pod("a", ready=False)), [always]) == (None, None)
    refusal = eviction.decide(tree, [full])[1]
    assert refusal is not None
    assert refusal.code == 429
    twice = eviction.decide(tree, [full, full])[1]
    assert twice is not None
    assert twice.code == 500
    unseen = eviction.decide(tree, [full | {"status": {}}])[1]
    assert unseen is not None
    assert unseen.headers == ((b"retry-after", b"10"),)
