"""The agent's rounds before kernels in memory: what it is told, in whatever order and whatever fails, the kernels come to hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from podwire.nft.fake import FakeNftables
from podwire.services.agent import FORMER, TABLES
from pure.services.rounds import Rounds
from pure.services.test_tables import meaning


def service(ip: str, *sources: str, protocol: str = "TCP") -> dict[str, Any]:
    tree: dict[str, Any] = {"spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": protocol}]}}
    if sources:
        tree["spec"] |= {"type": "LoadBalancer", "loadBalancerSourceRanges": sources}
        tree["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}
    return tree


def slice_of(name: str, *addresses: str, protocol: str = "TCP") -> dict[str, Any]:
    rows = [{"addresses": [address], "nodeName": "node-2"} for address in addresses]
    labels = {"kubernetes.io/service-name": name}
    return {"metadata": {"labels": labels}, "ports": [{"port": 8080, "protocol": protocol}], "endpoints": rows}


ODD = {
    "ranges": (service("10.8.0.9", "010.0.0.0/8"), None),  # leading zeros, as some old Services have
    "endpoints": (service("10.8.0.9", protocol="UDP"), slice_of("odd", "nonsense", protocol="UDP")),
}


@pytest.mark.parametrize("what", ODD)
def test_a_service_that_is_not_to_be_understood_keeps_no_other_from_being_programmed(what: str) -> None:
    odd, piece = ODD[what]

    async def main() -> None:
        right, rounds = Rounds(), Rounds()
        for one in (right, rounds):
            one.service("a", service("10.8.0.1"))
            one.slice("a-x", slice_of("a", "10.4.1.1"))
        rounds.slice("odd-x", piece)
        rounds.service("odd", odd)
        for _ in range(2):
            await right.round()
            await rounds.round()
            assert meaning(rounds.kernels[0]) == meaning(right.kernels[0])
            assert not rounds.proxy._dirty
            for one in (right, rounds):
                one.slice("a-x", slice_of("a", "10.4.1.2"))
                if one is rounds:
                    one.service("odd", odd)
                one.service("b", service("10.8.0.2"))
        rounds.service("odd", service("10.8.0.9", "10.0.0.0/8"))
        right.service("odd", service("10.8.0.9", "10.0.0.0/8"))
        rounds.slice("odd-x", None)
        await right.round()
        await rounds.round()
        assert meaning(rounds.kernels[0]) == meaning(right.kernels[0])

    asyncio.run(main())


def test_an_address_of_the_other_family_in_a_slice_is_passed_over() -> None:
    """No API takes it: what is alike in columns must be as what is not."""
    histories = [["10.4.1.1"], ["fd00:4::1"], ["10.4.1.1", "fd00:4::1"], ["fd00:4::2", "10.4.1.1"], ["10.4.1.2", "fd00:4::2"]]

    async def main() -> None:
        right, rounds = Rounds(), Rounds()
        for one in (right, rounds):
            one.service("a", service("10.8.0.1"))
        for addresses in histories:
            right.slice("a-x", slice_of("a", *[address for address in addresses if ":" not in address]))
            rounds.slice("a-x", slice_of("a", *addresses))
            for one in (right, rounds):
                await one.round()
                one.expire()
            assert meaning(rounds.kernels[0]) == meaning(right.kernels[0])

    asyncio.run(main())


def test_former_slices_do_not_heap_up_where_no_round_follows() -> None:
    async def main() -> None:
        rounds = Rounds()
        await rounds.round()
        for at in range(2 * FORMER):
            rounds.slice("x", slice_of("", f"10.4.1.{at % 250}"))
        assert len(rounds.proxy._former) == FORMER
        rounds.service("a", service("10.8.0.1"))
        await rounds.round()
        assert not rounds.proxy._former

    asyncio.run(main())


# Histories ---------------------------------------------------------------------------------------------------------------------

NAMES = ("s0", "s1")
IPV4 = [f"10.4.{third}.{last}" for third in (0, 1) for last in (1, 2, 3)] + ["no address"]
IPV6 = ["fd00:4::1", "fd00:4:0::1", "fd00:4::2", "fd00:4::3"]  # the first two are one


def endpoints(addresses: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    targets = st.builds(lambda name: {"kind": "Pod", "namespace": "shop", "name": name}, st.sampled_from(["a", "b", "two words", "é" * 90]))
    more = st.sampled_from([{}] * 9 + [{"conditions": {"ready": False}}, {"hints": {"forZones": [{"name": "a"}]}}])
    usual = st.fixed_dictionaries(
        {"addresses": st.sampled_from(addresses).map(lambda address: [address])},
        optional={"nodeName": st.sampled_from(["node-1", "node-2", "node-2"]), "targetRef": targets},
    )
    return st.builds(lambda one, other: {**one, **other}, usual, more)


@st.composite
def some_slice(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["IPv4", "IPv4", "IPv6"]))
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": draw(st.sampled_from(NAMES))}},
        "addressType": kind,
        "ports": [{"name": name, "port": draw(st.sampled_from([8080, 8080, 8081]))} for name in ("", "b")],
        "endpoints": draw(st.lists(endpoints(IPV4 if kind == "IPv4" else IPV6), max_size=4)),
    }


@st.composite
def some_service(draw: st.DrawFn) -> dict[str, Any]:
    addresses = [draw(st.sampled_from(["10.8.0.1", "10.8.0.2"])), *draw(st.sampled_from([[], ["fd00:8::1"]]))]
    ports: list[dict[str, Any]] = [{"port": 80}, *draw(st.sampled_from([[], [{"name": "b", "port": 81}]]))]
    usual = {"clusterIP": addresses[0], "clusterIPs": addresses, "ports": ports}
    kept = {"sessionAffinity": "ClientIP"}
    more = st.sampled_from([{}] * 6 + [{"externalIPs": ["203.0.113.1"]}, {"internalTrafficPolicy": "Local"}, kept])
    return {"metadata": {"creationTimestamp": draw(st.sampled_from([None, "2020-01-01T00:00:00Z"]))}, "spec": usual | draw(more)}


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, str, dict[str, Any] | None]]:
    steps: list[tuple[str, str, dict[str, Any] | None]] = [("service", name, draw(some_service())) for name in NAMES]
    there: dict[str, dict[str, Any]] = {}
    kinds = ("slice", "endpoint", "endpoint", "endpoint", "round", "round", "gone", "service", "refused", "restart")
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=4, max_size=24)):
        name = draw(st.sampled_from(["x", "y"]))
        if kind == "service":
            steps.append((kind, draw(st.sampled_from(NAMES)), draw(st.none() | some_service())))
        elif kind == "gone":
            there.pop(name, None)
            steps.append(("slice", name, None))
        elif kind == "endpoint" and name in there and there[name]["endpoints"]:
            rows = list(there[name]["endpoints"])
            rows[draw(st.integers(0, len(rows) - 1))] = draw(endpoints(IPV4 if there[name]["addressType"] == "IPv4" else IPV6))
            there[name] = {**there[name], "endpoints": rows}
            steps += [("slice", name, there[name]), *draw(st.sampled_from([[], [("round", "", None)]]))]
        elif kind in ("slice", "endpoint"):
            there[name] = draw(some_slice())
            steps.append(("slice", name, there[name]))
        else:
            steps.append((kind, "", None))
    return steps


def told(kernels: tuple[FakeNftables, ...], objects: Mapping[tuple[str, str], dict[str, Any]]) -> Rounds:
    """Begin with what there is."""
    rounds = Rounds(kernels)
    for (kind, name), tree in objects.items():
        (rounds.service if kind == "service" else rounds.slice)(name, tree)
    return rounds


def comments(kernel: FakeNftables) -> dict[str, list[str]]:
    [table] = kernel.dump().tables
    sets = [one for one in table.sets if one.name not in ("sizes", "pick")]
    return {one.name: sorted(element.comment for element in one.elements.values()) for one in sets}


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))
@given(histories())
def test_after_any_history_the_kernels_hold_what_a_new_agent_would_tell_them(history: list[tuple[str, str, dict[str, Any] | None]]) -> None:
    async def main() -> None:
        objects: dict[tuple[str, str], dict[str, Any]] = {}
        rounds = Rounds()
        for kind, name, tree in history:
            if kind == "restart":
                rounds = told(rounds.kernels, objects)
            elif kind == "refused":
                left = iter([True])
                rounds.fails = lambda _, left=left: next(left, False)  # type: ignore[misc]
                await rounds.round()
            elif kind == "round":
                rounds.fails = lambda _: False
                await rounds.proxy._operate(TABLES)  # nothing is refused that is not to be
            else:
                (rounds.service if kind == "service" else rounds.slice)(name, tree)
                objects.pop((kind, name), None)
                if tree is not None:
                    objects[kind, name] = tree
        rounds.fails = lambda _: False
        await rounds.round()
        rounds.expire()
        anew = told((), objects)
        await anew.round()
        for ours, theirs in zip(rounds.kernels, anew.kernels, strict=True):
            assert meaning(ours) == meaning(theirs)
            assert comments(ours) == comments(theirs)
        generations = [kernel.generation() for kernel in rounds.kernels]
        await told(rounds.kernels, objects).round()
        assert [kernel.generation() for kernel in rounds.kernels] == generations, "a restart over the right tables changes nothing"

    asyncio.run(main())
