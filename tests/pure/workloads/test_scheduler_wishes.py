"""What Pods ask for of nodes' resources, of other Pods and of topologies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.core import Node, Pod
from podwire.objects.quantities import Malformed, exact, thousandths
from podwire.views import resources
from podwire.workloads.scheduler import desired
from podwire.workloads.scheduler.desired import Surroundings
from podwire.workloads.scheduler.load import Load

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


def node(name: str, zone: str = "a", cpu: str = "2", memory: str = "4Gi", **spec: Any) -> Node:
    meta = {"name": name, "labels": {ZONE: zone, HOST: name}}
    state = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "110", "cpu": cpu, "memory": memory}}
    return codec.convert(Node, {"metadata": meta, "spec": spec, "status": state})


def pod(name: str, at: str = "", *, app: str = "web", where: str = "default", asks: dict[str, str] | None = None, **spec: Any) -> Pod:
    meta = {"name": name, "namespace": where, "uid": f"{where}/{name}", "labels": {"app": app}}
    body = {"nodeName": at, "containers": [{"name": "c", "resources": {"requests": asks or {}}}]} | spec
    return codec.convert(Pod, {"metadata": meta, "spec": body})


def place(
    pods: list[Pod], nodes: list[Node], there: list[Pod] | None = None, priorities: dict[str, int] | None = None, **more: Any
) -> dict[str, str]:
    decisions = desired.decide(desired.in_order(pods, priorities), nodes, Load.of(there or []), Surroundings(**more))
    return {one.pod.name: one.node or one.reason.partition(" preemption: ")[0] for one in decisions}


def near(app: str, topology: str = HOST, **more: Any) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": topology} | more


def required(kind: str, *terms: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}}


def preferred(kind: str, term: dict[str, Any], weight: int = 100) -> dict[str, Any]:
    wish = {"weight": weight, "podAffinityTerm": term}
    return {"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}}


def spread(skew: int, topology: str = ZONE, when: str = "DoNotSchedule", **more: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "web"}}
    constraint = {"maxSkew": skew, "topologyKey": topology, "whenUnsatisfiable": when, "labelSelector": selector}
    return {"topologySpreadConstraints": [constraint | more]}


NODES = [node("a1", "a"), node("a2", "a"), node("b1", "b")]


def test_quantities() -> None:
    assert [thousandths(text) for text in ("100m", "1", "64Mi", "0.0001", 2, 0.5)] == [100, 1000, 67108864000, 1, 2000, 500]
    assert exact("1e3") == 1000
    with pytest.raises(Malformed):
        exact("many")


def test_what_a_pod_asks_for_is_its_containers_or_its_largest_init_container() -> None:
    def ask(cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": "x", "resources": {"requests": {"cpu": cpu}}} | more

    one = pod("p", containers=[ask("100m"), ask("200m")], initContainers=[ask("50m", restartPolicy="Always"), ask("500m")])
    assert resources.requested(one) == {"cpu": 550}
    two = pod("p", containers=[ask("100m")], initContainers=[ask("50m", restartPolicy="Always")], overhead={"cpu": "10m"})
    assert resources.requested(two) == {"cpu": 160}
    assert resources.requested(pod("p")) == {}


def test_requests_fill_nodes_and_the_reasons_are_counted() -> None:
    nodes = [node("n1", cpu="1"), node("n2", cpu="1", memory="1Gi"), node("n3", taints=[{"key": "gpu", "effect": "NoSchedule"}])]
    there = [pod("x", "n1", asks={"cpu": "800m"}), pod("y", "n2", asks={"cpu": "900m"})]
    answer = place([pod("p", asks={"cpu": "500m", "memory": "2Gi"})], nodes, there)["p"]
    assert answer == "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint {gpu: }, 2 Insufficient cpu."
    assert place([pod("p", asks={"cpu": "150m"})], nodes, there) == {"p": "n1"}
    assert "Insufficient nvidia.com/gpu" in place([pod("p", asks={"nvidia.com/gpu": "1"})], nodes)["p"]
    assert place([pod("p", asks={"cpu": "100m"})], [node("n1"), node("n2")], [pod("x", "n1", asks={"cpu": "1500m"})]) == {"p": "n2"}


def test_apart_and_together() -> None:
    apart = required("podAntiAffinity", near("web"))
    placed = place([pod(f"p{number}", **apart) for number in range(4)], NODES)
    assert sorted(placed.values()) == ["0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.", "a1", "a2", "b1"]
    zones = required("podAntiAffinity", near("web", ZONE))
    assert place([pod("p", **zones)], NODES, [pod("x", "a2")]) == {"p": "b1"}
    together = required("podAffinity", near("cache", ZONE))
    assert place([pod("p", **together)], NODES, [pod("x", "b1", app="cache")]) == {"p": "b1"}
    assert place([pod("p", **together)], NODES)["p"] == "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    own = required("podAffinity", near("web", ZONE))
    placed = place([pod("p0", **own), pod("p1", **own), pod("p2", **own)], NODES)
    assert len({name[0] for name in placed.values()}) == 1, "the first goes anywhere, the others to it"


def test_who_is_there_refuses_too() -> None:
    there = [pod("x", "b1", app="db", **required("podAntiAffinity", near("web", ZONE)))]
    nodes = [node("b1", "b"), node("b2", "b")]
    answer = "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    assert place([pod("p")], nodes, there) == {"p": answer}
    assert place([pod("p", app="other")], nodes, there) == {"p": "b2"}


def test_namespaces_of_terms() -> None:
    there = [pod("x", "b1", app="cache", where="far")]
    labels = {"default": {}, "far": {"team": "one"}}
    assert "affinity rules" in place([pod("p", **required("podAffinity", near("cache")))], NODES, there, namespaces=labels)["p"]
    for more in ({"namespaces": ["far"]}, {"namespaceSelector": {"matchLabels": {"team": "one"}}}, {"namespaceSelector": {}}):
        wanted = required("podAffinity", near("cache", **more))
        assert place([pod("p", **wanted)], NODES, there, namespaces=labels) == {"p": "b1"}


def test_preferences_choose_among_what_is_possible() -> None:
    there = [pod("x", "b1", app="cache")]
    assert place([pod("p", **preferred("podAffinity", near("cache")))], NODES, there) == {"p": "b1"}
    away = preferred("podAntiAffinity", near("cache", ZONE))
    assert place([pod("p", **away)], [node("b1", "b"), node("b2", "b"), node("c1", "c")], there) == {"p": "c1"}
    wish = {"weight": 1, "preference": {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["b"]}]}}
    liked = {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}}
    assert place([pod("p", **liked)], NODES) == {"p": "b1"}
    avoided = [node("a1", taints=[{"key": "old", "effect": "PreferNoSchedule"}]), node("a2")]
    assert place([pod("p")], avoided, [pod("x", "a2")]) == {"p": "a2"}
    assert place([pod("p")], avoided[:1]) == {"p": "a1"}
    company = [pod("x", "b1", app="cache", **preferred("podAffinity", near("web")))]
    assert place([pod("p")], NODES, company) == {"p": "b1"}, "who is there may like company too"


def test_spread_over_a_topology() -> None:
    placed = place([pod(f"p{number}", **spread(1)) for number in range(6)], NODES)
    assert Counter(name[0] for name in placed.values()) == {"a": 3, "b": 3}
    there = [pod("x", "a1"), pod("y", "a2")]
    assert place([pod("p", **spread(1))], NODES[:2], there)["p"] in ("a1", "a2"), "one domain alone is even"
    cordoned = [*NODES[:2], node("b1", "b", unschedulable=True)]
    assert place([pod("p", **spread(1))], cordoned, there)["p"] == (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints."
    )
    assert place([pod("p", **spread(1, when="ScheduleAnyway"))], NODES, there) == {"p": "b1"}
    assert "missing required label" in place([pod("p", **spread(1, "rack"))], NODES)["p"]
    assert "spread constraints" in place([pod("p", **spread(1, minDomains=3))], NODES, [pod("x", "a1"), pod("y", "b1")])["p"]


def test_priority_decides_who_is_first() -> None:
    one_place = [node("n", cpu="100m")]
    low, high = pod("a", asks={"cpu": "100m"}), pod("b", asks={"cpu": "100m"}, priority=10)
    assert place([low, high], one_place)["b"] == "n"
    named = pod("c", asks={"cpu": "100m"}, priorityClassName="urgent")
    assert place([low, named], one_place, priorities={"urgent": 5})["c"] == "n"


def test_a_gated_pod_does_not_wait_for_a_node() -> None:
    assert not desired.is_waiting(pod("p", schedulingGates=[{"name": "later"}]))


wishes = st.sampled_from(
    [
        {},
        required("podAntiAffinity", near("web")),
        required("podAntiAffinity", near("db", ZONE)),
        required("podAffinity", near("db", ZONE)),
        preferred("podAffinity", near("db")),
        spread(1),
        spread(2, HOST),
    ]
)
some_pods = st.lists(st.tuples(st.sampled_from(["web", "db"]), st.sampled_from(["100m", "700m", ""]), wishes), max_size=9)


@given(some_pods)
def test_no_placement_breaks_what_is_required(drawn: list[tuple[str, str, dict[str, Any]]]) -> None:
    pods = [pod(f"p{number}", app=app, asks={"cpu": cpu} if cpu else {}, **spec) for number, (app, cpu, spec) in enumerate(drawn)]
    nodes = [node("a1", "a", cpu="1"), node("a2", "a", cpu="1"), node("b1", "b", cpu="1")]
    load = Load()
    decisions = desired.decide(pods, nodes, load)
    placed = {one.pod.name: _on(one.pod, one.node) for one in decisions if one.node}
    assert load == Load.of(placed.values()), "kept step by step as counted anew"
    cpu: Counter[str] = Counter()
    for one in placed.values():
        cpu[one.spec.node_name] += resources.requested(one).get("cpu", 0)
    assert all(amount <= 1000 for amount in cpu.values())
    for one in placed.values():
        for other in placed.values():
            if one is not other:
                assert not _refuses(one, other)


def _refuses(one: Pod, other: Pod) -> bool:
    """The same said in another way: by the letters of the nodes' names."""
    affinity = one.spec.affinity
    for term in affinity.pod_anti_affinity.required if affinity and affinity.pod_anti_affinity else ():
        mine, theirs = one.spec.node_name, other.spec.node_name
        near_by = mine == theirs if term.topology_key == HOST else mine[0] == theirs[0]
        if near_by and term.label_selector is not None and term.label_selector.matches(other.metadata.labels):
            return True
    return False


def _on(one: Pod, name: str) -> Pod:
    tree = codec.tree(one)
    tree["spec"]["nodeName"] = name
    return codec.convert(Pod, tree)
