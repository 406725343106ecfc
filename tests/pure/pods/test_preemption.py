"""Who goes from a full node for the sake of a critical Pod."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.core import Node, Pod
from podwire.pods.fitting import misfit
from podwire.pods.preemption import admit
from podwire.pods.status import qos_class

HIGH, HIGHER = 2_000_000_000, 2_000_001_000
HAVE = {"cpu": "4", "memory": "4Gi", "pods": "5"}
AT = codec.convert(Node, {"metadata": {"name": "n"}, "status": {"allocatable": HAVE}})


def pod(name: str, cpu: str = "", memory: str = "", priority: int = 0, *, guaranteed: bool = False, **more: Any) -> Pod:
    asked = {key: amount for key, amount in (("cpu", cpu), ("memory", memory)) if amount}
    container = {"name": "c", "resources": {"requests": asked, **({"limits": asked} if guaranteed else {})}, **more}
    return codec.convert(Pod, {"metadata": {"name": name}, "spec": {"priority": priority, "containers": [container]}})


def goes(wanted: Pod, *others: Pod) -> list[str]:
    refused, victims = admit(wanted, AT, others)
    assert refused is None, refused
    return [one.name for one in victims]


ROOM = [pod("small", "1", "1Gi"), pod("large", "3", "1Gi")]


@pytest.mark.parametrize(
    ("wanted", "others", "names"),
    [
        (pod("fits", "1", priority=HIGH), ROOM[:1], []),
        # The one that is nearest to enough, and of two that are enough the one that asks for less.
        (pod("w", "1", priority=HIGH), ROOM, ["small"]),
        (pod("w", "2", priority=HIGH), ROOM, ["large"]),
        (pod("w", "4", priority=HIGH), ROOM, ["large", "small"]),
        # Guaranteed Pods only where the others do not suffice, and then none of those in vain.
        (pod("w", "1", priority=HIGH), [pod("g", "1", "1Gi", guaranteed=True), pod("b", "3")], ["b"]),
        (pod("w", "4", priority=HIGH), [pod("g", "2", "1Gi", guaranteed=True), pod("b", "2")], ["b", "g"]),
        (pod("w", "2", "3Gi", priority=HIGH), [pod("g", "4", "3Gi", guaranteed=True), pod("b", memory="1Gi")], ["g"]),
        # One Pod too many: the one that asks for nothing.
        (pod("w", priority=HIGH), [pod(f"b{number}", "100m") for number in range(4)] + [pod("nothing")], ["nothing"]),
        # Of equals the least important one; critical Pods go for more important ones alone.
        (pod("w", "2", priority=HIGH), [pod("x", "2", priority=7), pod("y", "2", priority=5)], ["y"]),
        (pod("w", "2", priority=HIGHER), [pod("x", "2", priority=HIGH), pod("y", "2", priority=HIGHER)], ["x"]),
    ],
)
def test_who_goes(wanted: Pod, others: list[Pod], names: list[str]) -> None:
    assert goes(wanted, *others) == names


def test_who_is_refused() -> None:
    full = [pod("x", "4")]
    refused, victims = admit(pod("w", "1", priority=HIGH - 1), AT, full)
    assert refused is not None
    assert (refused.reason, victims) == ("OutOfcpu", ())
    # Nothing is ended for a Pod that would be refused for another reason all the same.
    taken = [pod("x", "4", ports=[{"containerPort": 80, "hostPort": 80}])]
    refused, victims = admit(pod("w", "1", priority=HIGH, ports=[{"containerPort": 80, "hostPort": 80}]), AT, taken)
    assert refused is not None
    assert (refused.reason, victims) == ("NodePorts", ())
    refused, victims = admit(pod("w", "3", "8Gi", priority=HIGH), AT, [pod("x", "1"), pod("y", "1500m", priority=HIGH)])
    assert refused is not None
    assert (refused.reason, victims) == ("UnexpectedAdmissionError", ())
    assert refused.message == (
        "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: "
        "no set of running pods found to reclaim resources: [(res: cpu, q: 500), (res: memory, q: 4294967296), ]"
    )


@given(st.integers(0, 10_000))
def test_there_is_room_then_and_no_class_goes_in_vain(seed: int) -> None:
    draw = random.Random(seed)
    others = [
        pod(
            f"p{number}",
            draw.choice(["", "500m", "1"]),
            draw.choice(["", "512Mi", "1Gi"]),
            draw.randint(0, 2),
            guaranteed=draw.random() < 0.4,
        )
        for number in range(5)
    ]
    wanted = pod("w", f"{draw.randint(1, 4)}", f"{draw.randint(1, 4)}Gi", HIGH)
    refused, victims = admit(wanted, AT, others)
    assert refused is None
    left = [one for one in others if one not in victims]
    assert misfit(wanted, AT, left) is None
    kept = [one for one in victims if qos_class(one) == "Guaranteed"]
    if kept:
        assert misfit(wanted, AT, [one for one in others if qos_class(one) == "Guaranteed"]) is not None, "the others would have done"
