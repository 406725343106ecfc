from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.core import Node, Pod
from podwire.workloads.daemonsets import desired
from podwire.workloads.kinds import DaemonSet

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
OWNER = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "ds", "controller": True}


def node(name: str, *taints: tuple[str, str], **labels: str) -> Node:
    spec = {"taints": [{"key": key, "effect": effect} for key, effect in taints]}
    return codec.convert(Node, {"metadata": {"name": name, "labels": labels}, "spec": spec})


def daemon_set(strategy: dict[str, Any] | None = None, pod: dict[str, Any] | None = None) -> DaemonSet:
    template = {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "x"}]} | (pod or {})}
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template, "updateStrategy": strategy or {}}
    return codec.convert(DaemonSet, {"metadata": {"name": "agent", "namespace": "default", "uid": "ds", "generation": 1}, "spec": spec})


def pod(
    name: str, on: str, *, token: str = "new", ready: bool = True, phase: str = "Running", ending: bool = False, bound: bool = True
) -> Pod:
    tree = desired.pod_of(daemon_set(), on, name, token)
    tree["metadata"] |= {"uid": f"u-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    if ending:
        tree["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
    if bound:
        tree["spec"]["nodeName"] = on
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}] if ready else []
    return codec.convert(Pod, tree | {"status": {"phase": phase, "conditions": conditions}})


NODES = [node("n1"), node("n2"), node("n3")]


def test_each_node_gets_one_and_what_is_there_counts() -> None:
    assert desired.decide(daemon_set(), [], NODES, "new", NOW).create == ("n1", "n2", "n3")
    unbound = pod("b", "n2", bound=False, ready=False, phase="Pending")
    assert desired.decide(daemon_set(), [pod("a", "n1"), unbound], NODES, "new", NOW).create == ("n3",)


def test_a_pod_on_its_way_out_is_awaited() -> None:
    assert desired.decide(daemon_set(), [pod("a", "n1", ending=True)], NODES[:1], "new", NOW) == desired.Plan()


def test_nodes_are_chosen_by_selector_affinity_and_taints() -> None:
    nodes = [node("a", disk="ssd"), node("b"), node("c", ("gpu", "NoSchedule"), disk="ssd"), node("d", ("gpu", "NoExecute"), disk="ssd")]
    picky = daemon_set(pod={"nodeSelector": {"disk": "ssd"}})
    assert desired.decide(picky, [], nodes, "new", NOW).create == ("a",)
    there = [pod(name, name) for name in "abcd"]
    assert [one.name for one in desired.decide(picky, there, nodes, "new", NOW).delete] == ["b", "d"]
    tolerant = daemon_set(pod={"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]})
    assert desired.decide(tolerant, [], nodes, "new", NOW).create == ("a", "c", "d")


def test_nodes_that_are_cordoned_lost_or_under_pressure_keep_theirs() -> None:
    keys = [("unschedulable", "NoSchedule"), ("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule")]
    nodes = [node(f"n{number}", (f"node.kubernetes.io/{key}", effect)) for number, (key, effect) in enumerate(keys)]
    assert len(desired.decide(daemon_set(), [], nodes, "new", NOW).create) == 4
    unwired = [node("n", ("node.kubernetes.io/network-unavailable", "NoSchedule"))]
    assert desired.decide(daemon_set(), [], unwired, "new", NOW).create == ()
    assert desired.decide(daemon_set(pod={"hostNetwork": True}), [], unwired, "new", NOW).create == ("n",)


def test_what_ended_is_replaced_and_of_two_the_older_stays() -> None:
    ended = pod("a", "n1", phase="Failed", ready=False)
    assert desired.decide(daemon_set(), [ended], NODES[:1], "new", NOW).ended == ((ended, "n1"),)
    twice = [pod("a", "n1"), pod("b", "n1")]
    assert [one.name for one in desired.decide(daemon_set(), twice, NODES[:1], "new", NOW).delete] == ["b"]


def test_a_pod_for_a_node_that_is_gone_goes_unless_it_ran_there() -> None:
    gone = [pod("a", "lost", bound=False), pod("b", "lost")]
    assert [one.name for one in desired.decide(daemon_set(), gone, [], "new", NOW).delete] == ["a"]


def test_a_rolling_update_keeps_to_what_may_be_unavailable() -> None:
    old = [pod(f"p{number}", f"n{number}", token="old") for number in (1, 2, 3)]
    two = daemon_set({"rollingUpdate": {"maxUnavailable": 2, "maxSurge": 0}})
    assert len(desired.decide(two, old, NODES, "new", NOW).delete) == 2
    share = daemon_set({"rollingUpdate": {"maxUnavailable": "50%", "maxSurge": 0}})
    assert len(desired.decide(share, old, NODES, "new", NOW).delete) == 2, "rounded up"
    one = daemon_set()
    assert len(desired.decide(one, old, NODES, "new", NOW).delete) == 1
    broken = [pod("p1", "n1", token="old", ready=False), *old[1:]]
    assert [each.name for each in desired.decide(one, broken, NODES, "new", NOW).delete] == ["p1"], "what serves nobody first"
    assert desired.decide(daemon_set({"type": "OnDelete"}), old, NODES, "new", NOW).delete == ()


def test_a_surge_makes_the_new_one_first() -> None:
    surging = daemon_set({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
    old = [pod(f"p{number}", f"n{number}", token="old") for number in (1, 2, 3)]
    first = desired.decide(surging, old, NODES, "new", NOW)
    assert (first.create, first.delete) == (("n1",), ())
    waiting = desired.decide(surging, [*old, pod("q1", "n1", ready=False)], NODES, "new", NOW)
    assert (waiting.create, waiting.delete) == ((), ())
    done = desired.decide(surging, [*old, pod("q1", "n1")], NODES, "new", NOW)
    assert [one.name for one in done.delete] == ["p1"]
    assert done.create == ("n2",)


def test_a_pod_carries_its_node_tolerations_and_revision() -> None:
    term = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "x"}]}]}}
    tree = desired.pod_of(daemon_set(pod={"affinity": {"nodeAffinity": term}}), "n1", "agent-abcde", "hash")
    required = tree["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required == {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}
    assert tree["metadata"]["labels"] == {"app": "agent", "controller-revision-hash": "hash"}
    assert len(tree["spec"]["tolerations"]) == 6


def test_the_status_counts_nodes() -> None:
    nodes = [*NODES, node("n4", ("gpu", "NoSchedule"))]
    pods = [pod("a", "n1"), pod("b", "n2", token="old"), pod("c", "n3", ready=False), pod("d", "n4")]
    assert desired.status(daemon_set(), pods, nodes, "new", NOW) == {
        "observedGeneration": 1,
        "currentNumberScheduled": 3,
        "numberMisscheduled": 1,
        "desiredNumberScheduled": 3,
        "numberReady": 2,
        "updatedNumberScheduled": 2,
        "numberAvailable": 2,
        "numberUnavailable": 1,
    }


states = st.fixed_dictionaries(
    {
        "on": st.sampled_from(["n1", "n2", "n3", "gone"]),
        "token": st.sampled_from(["old", "new"]),
        "ready": st.booleans(),
        "ending": st.booleans(),
        "phase": st.sampled_from(["Pending", "Running", "Failed"]),
        "bound": st.booleans(),
    }
)


@given(st.lists(states, max_size=8), st.integers(0, 2), st.integers(0, 3))
def test_steps_lead_to_one_new_pod_on_each_node_and_never_to_two_beside_each_other(
    start: list[dict[str, Any]], surge: int, unavailable: int
) -> None:
    """Played with nodes on which each Pod becomes ready a step after it was made and ends a step after it was told to."""
    owner = daemon_set({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
    pods = {f"p{number}": state for number, state in enumerate(start)}
    made = len(pods)
    for _ in range(40):
        values = [pod(name, **state) for name, state in pods.items()]
        plan = desired.decide(owner, values, NODES, "new", NOW)
        before = Counter(state["on"] for state in pods.values())
        for where in plan.create:
            assert before[where] <= (1 if surge else 0), "made only where there is none, or with a surge where there is one"
            assert where not in {name for name, count in Counter(plan.create).items() if count > 1}
        ready = {state["on"] for state in pods.values() if state["ready"] and not state["ending"] and state["phase"] != "Failed"}
        going = {one.name for one in plan.delete} | {one.name for one, _ in plan.ended}
        if not surge and ready == {"n1", "n2", "n3"} and all(count == 1 for count in before.values()):
            assert len(going - {name for name, state in pods.items() if state["on"] == "gone"}) <= max(1, unavailable)
        pods = {name: state for name, state in pods.items() if not state["ending"]}
        for name, state in pods.items():
            if name in going:
                state["ending"] = True
            elif state["phase"] != "Failed":
                state |= {"ready": True, "phase": "Running", "bound": True}
        for where in plan.create:
            made += 1
            pods[f"p{made}"] = {"on": where, "token": "new", "ready": False, "ending": False, "phase": "Pending", "bound": False}
    here = [state for state in pods.values() if state["on"] != "gone"]
    assert sorted(state["on"] for state in here) == ["n1", "n2", "n3"]
    assert {state["token"] for state in here} == {"new"}
