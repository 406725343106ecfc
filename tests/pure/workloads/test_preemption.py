"""Who has to go for whose sake: the choice alone, then a whole scheduler on an API."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import running_apiserver
from podwire.client.api import Client
from podwire.objects import codec
from podwire.objects.core import Node, Pod
from podwire.objects.policy import PodDisruptionBudget
from podwire.objects.resources import EVENTS, NODES, PODS, PRIORITY_CLASSES
from podwire.workloads.scheduler import desired
from podwire.workloads.scheduler.desired import Decision, Surroundings
from podwire.workloads.scheduler.load import Load
from podwire.workloads.scheduler.preemption import split
from running_controllers import cluster, namespace, until


def node(name: str, cpu: str = "2", pods: str = "110", *, labels: dict[str, str] | None = None, **spec: Any) -> Node:
    state = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": cpu, "pods": pods}}
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name} | (labels or {})}
    return codec.convert(Node, {"metadata": meta, "spec": spec, "status": state})


def pod(name: str, cpu: str, priority: int = 0, at: str = "", start: str = "2026-01-01T00:00:00Z", nominated: str = "", **spec: Any) -> Pod:
    meta = {"name": name, "namespace": "default", "uid": name, "labels": {"app": name.rstrip("0123456789")}}
    body = {"nodeName": at, "priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]} | spec
    return codec.convert(Pod, {"metadata": meta, "spec": body, "status": {"startTime": start, "nominatedNodeName": nominated}})


def budget(app: str, allowed: int, **status: Any) -> PodDisruptionBudget:
    spec = {"selector": {"matchLabels": {"app": app}}}
    meta = {"name": app, "namespace": "default"}
    return codec.convert(PodDisruptionBudget, {"metadata": meta, "spec": spec, "status": {"disruptionsAllowed": allowed} | status})


def decide(wanted: Pod, nodes: list[Node], there: list[Pod], *budgets: PodDisruptionBudget, **more: Any) -> Decision:
    load = Load.of(there)
    [decision] = desired.decide([wanted], nodes, load, Surroundings(budgets=budgets, **more))
    if not decision.node:
        assert load == Load.of(there), "it was only thought"
    return decision


def victims(decision: Decision) -> tuple[str, list[str]]:
    assert decision.preempt is not None, decision.reason
    return decision.preempt.node, [one.name for one in decision.preempt.victims]


HIGH = pod("high", "1", 100)


@pytest.mark.parametrize(
    ("nodes", "there", "budgets", "answer"),
    [
        # The fewest budgets violated come before everything else.
        (
            [node("a"), node("b")],
            [pod("kept", "2", 0, "a"), pod("free", "2", 50, "b")],
            [budget("kept", 0)],
            ("b", ["free"]),
        ),
        # The lowest highest priority.
        ([node("a"), node("b")], [pod("x", "2", 50, "a"), pod("y1", "1", 10, "b"), pod("y2", "1", 20, "b")], [], ("b", ["y1"])),
        # The smallest sum: two of priority 10 weigh more than one.
        (
            [node("a"), node("b")],
            [pod("x1", "1500m", 10, "a"), pod("x2", "500m", 10, "a"), pod("y1", "500m", 10, "b"), pod("y2", "1500m", 10, "b")],
            [],
            ("a", ["x1"]),
        ),
        # The one that has run for the shortest time.
        (
            [node("a"), node("b")],
            [pod("x", "2", 10, "a", "2026-01-01T00:00:00Z"), pod("y", "2", 10, "b", "2026-01-02T00:00:00Z")],
            [],
            ("b", ["y"]),
        ),
        # The more important are let stay first.
        ([node("a")], [pod("x", "1", 10, "a"), pod("y", "1", 20, "a")], [], ("a", ["x"])),
        ([node("a")], [pod("x", "1", 10, "a", "2026-01-01T00:00:00Z"), pod("y", "1", 10, "a", "2026-01-02T00:00:00Z")], [], ("a", ["y"])),
        # Those that a budget protects are let stay before more important ones that it does not.
        ([node("a")], [pod("kept", "1", 10, "a"), pod("y", "1", 20, "a")], [budget("kept", 0)], ("a", ["y"])),
        ([node("a")], [pod("kept", "1", 10, "a"), pod("y", "1", 20, "a")], [budget("kept", 1)], ("a", ["kept"])),
        # Room for one more Pod, and a port.
        ([node("a", pods="1")], [pod("x", "1", 10, "a")], [], ("a", ["x"])),
    ],
)
def test_who_has_to_go(nodes: list[Node], there: list[Pod], budgets: list[PodDisruptionBudget], answer: tuple[str, list[str]]) -> None:
    decision = decide(HIGH, nodes, there, *budgets)
    assert victims(decision) == answer
    assert "preemption" not in decision.reason


APART = {
    "requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
    ]
}
TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


def test_company_and_ports_are_reasons_to_go() -> None:
    apart = pod("high", "0", 100, affinity={"podAntiAffinity": APART})
    assert victims(decide(apart, [node("a")], [pod("x", "1", 10, "a"), pod("y", "1", 0, "a")])) == ("a", ["x"])
    port = {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}
    assert victims(decide(pod("high", "0", 100, **port), [node("a")], [pod("x", "0", 10, "a", **port), pod("y", "1", 0, "a")])) == (
        "a",
        ["x"],
    )


@pytest.mark.parametrize(
    ("wanted", "nodes", "there", "reason"),
    [
        (
            pod("high", "1", 100, preemptionPolicy="Never"),
            [node("a")],
            [pod("x", "2", 0, "a")],
            "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
        ),
        (
            HIGH,
            [node("a"), node("b", unschedulable=True), node("c", taints=[TAINT])],
            [pod("x", "2", 100, "a")],
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable. "
            "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
            "2 Preemption is not helpful for scheduling.",
        ),
        (
            pod("high", "3", 100),
            [node("a")],
            [pod("x", "2", 0, "a")],
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        ),
        (
            HIGH,
            [node("a")],
            [pod("x", "1500m", 200, "a"), pod("y", "500m", 0, "a")],
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
        (HIGH, [], [], "no nodes available to schedule pods"),
    ],
)
def test_why_nobody_goes(wanted: Pod, nodes: list[Node], there: list[Pod], reason: str) -> None:
    decision = decide(wanted, nodes, there)
    assert (decision.node, decision.preempt, decision.reason) == ("", None, reason)


def test_while_others_go_their_place_is_kept() -> None:
    nodes, there = [node("a"), node("b")], [pod("x", "2", 0, "a"), pod("y", "2", 50, "b")]
    waiting = decide(HIGH, nodes, there, under_way={"high": "a"}, kept=[(HIGH, "a")])
    assert (waiting.preempt, waiting.keeps) == (None, True)
    assert waiting.reason.endswith("preemption: not eligible due to a terminating pod on the nominated node.")
    # Whoever is as important or less does not get what has become free meanwhile; who is more important does.
    free = [node("a", "1")]
    assert decide(pod("low", "1", 50), free, [], kept=[(HIGH, "a")]).node == ""
    assert decide(pod("same", "1", 100), free, [], kept=[(HIGH, "a")]).node == ""
    assert decide(pod("higher", "1", 101), free, [], kept=[(HIGH, "a")]).node == "a"
    assert decide(HIGH, [node("b"), node("a", "1")], [], kept=[(HIGH, "a")]).node == "b", "nothing was kept for it"
    assert decide(pod("high", "1", 100, nominated="a"), [node("b"), node("a", "1")], []).node == "a"


def near(app: str, *, apart: bool = False) -> dict[str, Any]:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity" if apart else "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_a_pod_fits_with_those_that_are_expected_and_without_them() -> None:
    nodes, kept = [node("a"), node("b", "500m")], [(HIGH, "a")]
    # It may not take what is kept for another, and who wants to be near that one has nobody there yet.
    assert decide(pod("low", "1"), nodes, [], kept=kept).node == "a"
    assert decide(pod("low", "1001m"), nodes, [], kept=kept).node == ""
    apart, together = pod("low", "1", affinity=near("high", apart=True)), pod("low", "1", affinity=near("high"))
    refused = decide(apart, nodes, [], kept=kept)
    assert refused.reason.startswith("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod anti-affinity rules.")
    refused = decide(together, nodes, [], kept=kept)
    assert refused.reason.startswith("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod affinity rules.")
    assert decide(together, nodes, [pod("high", "1", 100, "a")]).node == "a"
    assert decide(apart, nodes, []).node == "a"


def test_who_is_expected_counts_on_its_own_node_alone() -> None:
    zone = {"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    spread = [{**zone, "labelSelector": {"matchLabels": {"app": "web"}}}]
    nodes, there = [node("a"), node("b")], [pod("web1", "1", 0, "b")]
    # With web2 on a, b would do; but it is not there yet.
    wanted = pod("web3", "1", topologySpreadConstraints=spread)
    assert decide(wanted, nodes, there, kept=[(pod("web2", "1", 100), "a")]).node == "a"
    assert decide(wanted, nodes, there, kept=[(pod("web2", "2", 100), "a")]).node == ""
    assert decide(wanted, nodes, [*there, pod("web2", "2", 100, "a")]).node == "b"


def test_who_makes_room_yields_to_those_that_are_expected() -> None:
    nodes, there = [node("a")], [pod("x", "1", 0, "a"), pod("y", "1", 10, "a")]
    assert victims(decide(pod("h", "1", 100), nodes, there)) == ("a", ["x"])
    assert victims(decide(pod("h", "1", 100), nodes, there, kept=[(pod("other", "1", 200), "a")])) == ("a", ["y", "x"])
    assert decide(pod("h", "2", 100), nodes, there, kept=[(pod("other", "1", 200), "a")]).preempt is None
    assert victims(decide(pod("h", "1", 100), nodes, there, kept=[(pod("other", "1", 50), "a")])) == ("a", ["x"])


def test_who_has_got_a_place_is_expected_nowhere() -> None:
    nodes, load = [node("a", "1"), node("b", "1")], Load()
    around = Surroundings(kept=[(pod("h", "1", 100), "a")])
    decisions = desired.decide([pod("h", "1", 100, nodeSelector={"kubernetes.io/hostname": "b"}), pod("low", "1")], nodes, load, around)
    assert [one.node for one in decisions] == ["b", "a"]
    bound = Load.of([pod("h", "500m", 100, "a")])  # seen by now, and expected still
    [decision] = desired.decide([pod("low", "500m")], nodes[:1], bound, Surroundings(kept=[(pod("h", "500m", 100), "a")]))
    assert decision.node == "a"
    assert bound == Load.of([pod("h", "500m", 100, "a"), pod("low", "500m", 0, "a")])


def test_two_at_once_have_different_victims() -> None:
    nodes, there = [node("a"), node("b")], [pod("x", "2", 0, "a"), pod("y", "2", 0, "b")]
    first, second = desired.decide([pod("h1", "2", 100), pod("h2", "2", 100)], nodes, Load.of(there), Surroundings())
    assert {victims(first)[0], victims(second)[0]} == {"a", "b"}


def test_budgets_count_down() -> None:
    pods = [pod(f"web{number}", "1") for number in range(3)]
    protected, others = split(pods, [budget("web", 1)])
    assert ([one.name for one in others], [one.name for one in protected]) == (["web0"], ["web1", "web2"])
    protected, others = split(pods, [budget("web", 1, disruptedPods={"web1": "2026-01-01T00:00:00Z"})])
    assert [one.name for one in protected] == ["web2"], "one whose eviction was granted has been counted"
    empty = codec.convert(PodDisruptionBudget, {"metadata": {"name": "e", "namespace": "default"}, "spec": {"selector": {}}})
    assert split(pods, [empty]) == ([], pods)


@given(st.integers(0, 10_000))
def test_whoever_goes_makes_room_and_nobody_goes_in_vain(seed: int) -> None:
    draw = random.Random(seed)
    nodes = [node(name, "4", "5") for name in "abc"]
    there = [
        pod(
            f"p{number}",
            f"{draw.randint(1, 8) * 250}m",
            draw.randint(0, 3) * 10,
            draw.choice("abc"),
            f"2026-01-0{draw.randint(1, 9)}T00:00:00Z",
        )
        for number in range(12)
    ]
    wanted = pod("high", f"{draw.randint(1, 16) * 250}m", draw.randint(0, 3) * 10)
    decision = decide(wanted, nodes, there, budget("p", draw.randint(0, 3)))
    if decision.preempt is None:
        return
    gone = {one.name for one in decision.preempt.victims}
    assert all(one.spec.priority < wanted.spec.priority for one in decision.preempt.victims)
    at = [one for one in nodes if one.name == decision.preempt.node]
    left = [one for one in there if one.name not in gone]
    assert decide(wanted, at, left).node == decision.preempt.node
    for back in decision.preempt.victims:
        assert decide(wanted, at, [*left, back]).node == "", f"{back.name} could have stayed"


# On an API -------------------------------------------------------------------------------------------------------------------


async def placed(client: Client, name: str, where: str) -> Pod | None:
    found = await client.get(PODS, name, where)
    return found if found.ready else None


def asks(cpu: str, priority: str = "", **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}
    return {"containers": [container], **({"priorityClassName": priority} if priority else {}), **spec}


async def test_a_pod_of_higher_priority_displaces_others(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, kubelet):
        where = await namespace(client, "preempting")
        for name, value in (("low", 10), ("middle", 50), ("high", 100)):
            await client.create(PRIORITY_CLASSES, {"metadata": {"name": name}, "value": value})
        never = {"metadata": {"name": "polite"}, "value": 60, "preemptionPolicy": "Never"}
        await client.create(PRIORITY_CLASSES, never)
        for node_name in ("n1", "n2", "n3"):
            status = {"status": {"allocatable": {"pods": "110", "cpu": "1"}}}
            await client.patch(NODES, node_name, "", status, subresource="status")
        for number, priority in enumerate(("low", "middle", "high")):
            await client.create(PODS, {"metadata": {"name": f"there-{number}"}, "spec": asks("1", priority)}, where)
        for number in range(3):
            await until(lambda number=number: placed(client, f"there-{number}", where))
        at = (await client.get(PODS, "there-0", where)).spec.node_name
        await client.create(PODS, {"metadata": {"name": "polite"}, "spec": asks("1", "polite")}, where)
        await until(lambda: condition_says(client, "polite", where, "preemptionPolicy=Never"))
        kubelet.may_end.clear()  # who has to go takes its time
        await client.create(PODS, {"metadata": {"name": "important"}, "spec": asks("1", "high")}, where)

        async def nominated() -> bool:
            return (await client.get(PODS, "important", where)).status.nominated_node_name == at

        await until(nominated)

        async def going() -> Pod | None:
            found = await client.get(PODS, "there-0", where)
            return found if found.terminating else None

        victim = await until(going)
        [condition] = [one for one in victim.status.conditions if one.type == "DisruptionTarget"]
        assert (condition.status, condition.reason) == ("True", "PreemptionByScheduler")
        assert condition.message == "default-scheduler: preempting to accommodate a higher priority pod"
        await client.create(PODS, {"metadata": {"name": "late"}, "spec": asks("1", "polite")}, where)  # all are thought of again
        await until(lambda: condition_says(client, "important", where, "due to a terminating pod on the nominated node"))
        kubelet.may_end.set()
        important = await until(lambda: placed(client, "important", where))
        assert (important.spec.node_name, important.status.nominated_node_name) == (at, "")
        assert [(await client.get(PODS, name, where)).ready for name in ("there-1", "there-2")] == [True, True]
        assert not (await client.get(PODS, "polite", where)).spec.node_name
        uid = important.metadata.uid

        async def told() -> bool:
            events = await client.list(EVENTS, where)
            return any(one.reason == "Preempted" and one.message == f"Preempted by pod {uid} on node {at}" for one in events)

        await until(told)


async def condition_says(client: Client, name: str, where: str, words: str) -> bool:
    found = await client.get(PODS, name, where)
    return any(words in one.message for one in found.status.conditions if one.type == "PodScheduled")
