from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.core import Node, Pod
from podwire.workloads.scheduler import desired
from podwire.workloads.scheduler.load import Load


def node(name: str, zone: str = "a", *, pods: str = "110", ready: str = "True", labels: dict[str, str] | None = None, **spec: Any) -> Node:
    meta = {"name": name, "labels": {"topology.kubernetes.io/zone": zone} | (labels or {})}
    state = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"pods": pods}}
    return codec.convert(Node, {"metadata": meta, "spec": spec, "status": state})


def pod(name: str, owner: str = "rs", at: str = "", phase: str = "", **spec: Any) -> Pod:
    owners = [{"kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}] if owner else []
    meta = {"name": name, "namespace": "default", "uid": name, "ownerReferences": owners}
    body = {"nodeName": at, "containers": [{"name": "c"}]} | spec
    return codec.convert(Pod, {"metadata": meta, "spec": body, "status": {"phase": phase}})


def place(pods: list[Pod], nodes: list[Node], there: list[Pod] | None = None) -> dict[str, str]:
    return {one.pod.name: one.node or one.reason for one in desired.decide(desired.in_order(pods), nodes, Load.of(there or []))}


def test_pods_of_one_controller_spread_over_zones_then_nodes() -> None:
    nodes = [node("a1", "a"), node("a2", "a"), node("a3", "a"), node("b1", "b"), node("c1", "c")]
    placed = place([pod(f"p{number}") for number in range(6)], nodes)
    assert Counter(name[0] for name in placed.values()) == {"a": 2, "b": 2, "c": 2}
    assert len({name for name in placed.values() if name[0] == "a"}) == 2


def test_single_pods_of_many_controllers_spread_too() -> None:
    nodes = [node("a1", "a"), node("b1", "b"), node("c1", "c")]
    placed = place([pod(f"p{number}", owner=f"rs{number}") for number in range(12)], nodes)
    assert set(Counter(placed.values()).values()) == {4}


def test_what_is_there_counts() -> None:
    nodes = [node("a1", "a"), node("b1", "b")]
    assert place([pod("new")], nodes, [pod("old", at="a1")]) == {"new": "b1"}
    assert place([pod("new")], nodes, [pod("old", at="a1", phase="Succeeded")]) == {"new": "a1"}


taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
affinity = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}, {}]
        }
    }
}
by_name = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]
        }
    }
}


@pytest.mark.parametrize(
    ("wanted", "at", "answer"),
    [
        (pod("p"), node("n"), "n"),
        (pod("p"), node("n", unschedulable=True), "0/1 nodes are available: 1 node(s) were unschedulable."),
        (pod("p"), node("n", ready="Unknown"), "0/1 nodes are available: 1 node(s) were not ready."),
        (pod("p"), node("n", pods="0"), "0/1 nodes are available: 1 Too many pods."),
        (pod("p"), node("n", taints=[taint]), "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}."),
        (pod("p", tolerations=[{"key": "gpu", "value": "yes"}]), node("n", taints=[taint]), "n"),
        (pod("p", tolerations=[{"operator": "Exists"}]), node("n", taints=[taint]), "n"),
        (pod("p", tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]), node("n", taints=[taint]), "untolerated"),
        (pod("p"), node("n", taints=[taint | {"effect": "PreferNoSchedule"}]), "n"),
        (pod("p", nodeSelector={"disk": "ssd"}), node("n"), "didn't match Pod's node affinity/selector"),
        (pod("p", nodeSelector={"disk": "ssd"}), node("n", labels={"disk": "ssd"}), "n"),
        (pod("p", affinity=affinity), node("n"), "didn't match Pod's node affinity/selector"),
        (pod("p", affinity=affinity), node("n", labels={"disk": "ssd"}), "n"),
        (pod("p", affinity=by_name), node("n"), "n"),
        (pod("p", affinity=by_name), node("m"), "didn't match"),
    ],
)
def test_filters(wanted: Pod, at: Node, answer: str) -> None:
    assert answer in place([wanted], [at])["p"]


def test_host_ports_do_not_collide() -> None:
    ports = {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}
    placed = place([pod(f"p{number}", **ports) for number in range(3)], [node("a"), node("b")])
    assert sorted(placed.values())[1:] == ["a", "b"]
    assert "free ports" in min(placed.values())


def test_reasons_are_counted() -> None:
    nodes = [node("a", unschedulable=True), node("b", unschedulable=True), node("c", pods="0")]
    told = place([pod("p")], nodes)["p"].partition(" preemption: ")[0]
    assert told == "0/3 nodes are available: 1 Too many pods, 2 node(s) were unschedulable."
    assert place([pod("p")], [])["p"] == "no nodes available to schedule pods"


def test_who_waits() -> None:
    assert desired.is_waiting(pod("p"))
    assert not desired.is_waiting(pod("p", at="n"))
    assert not desired.is_waiting(pod("p", schedulerName="other"))


places = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.sampled_from(["", "n1", "n2"]), st.sampled_from(["", "Running", "Failed"]))
)


@given(st.lists(places, min_size=2, max_size=6))
def test_the_load_kept_step_by_step_is_that_of_a_whole_count(history: list[dict[str, tuple[str, str]]]) -> None:
    ports = {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}
    load = Load()
    before: dict[str, Pod] = {}
    for state in history:
        after = {name: pod(name, owner=name[0] if name < "c" else "", at=at, phase=phase, **ports) for name, (at, phase) in state.items()}
        for name in before.keys() | after.keys():
            load.changed(before.get(name), after.get(name))
        assert load == Load.of(after.values())
        before = after
