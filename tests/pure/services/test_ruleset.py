"""The tables as a whole: after any sequence of changes they are what a computation from nothing gives, and right at every step."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire import nft
from podwire.nft import bytecode
from podwire.services.elements import mark
from podwire.services.room import room
from podwire.views.backends import Backend
from podwire.views.frontends import Frontend, ServiceFrontends
from pure.services.worlds import KEYS, World, is_as_made_anew, number, services

STEPS = st.lists(
    st.one_of(
        st.sampled_from(KEYS).flatmap(lambda key: st.tuples(st.just(key), st.none() | services(key))),
        st.sampled_from(["take", "expire", "restart"]),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(STEPS)
def test_after_any_changes_the_tables_are_as_if_made_anew(steps: list[Any]) -> None:
    world = World()
    for step in steps:
        if isinstance(step, str):
            if step == "restart":
                world.take()
            getattr(world, step)()
        else:
            world.put(*step)
    world.take()
    world.expire()
    world.restart()
    contested = world.program._claims.contested
    again_changes = world.program.take()
    assert contested or not again_changes  # an id that no address leads to, because another has it, cannot be read back
    world.kernel.apply_batches(again_changes)
    world.expire()
    is_as_made_anew(world)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(1, 9), st.booleans(), st.booleans()), max_size=15))
def test_one_endpoint_after_another_in_the_place_of_one(moves: list[tuple[int, int, int, bool, bool]]) -> None:
    world = World()
    rows = [[Backend(f"10.4.1.{which}", 8080, "node-2", pod=f"shop/p{which}") for which in range(11, 15)] for _ in range(2)]

    def put() -> None:
        ports = tuple(Frontend(name, "TCP", port, 0, tuple(rows[port - 80])) for port, name in ((80, "http"), (81, "")))
        world.put("shop/s0", ServiceFrontends("shop/s0", ("10.8.0.1",), (), (), ports))

    put()
    world.take()
    for port, place, address, here, take in moves:
        came = Backend(f"10.4.1.{address}", 8080, "node-1" if here else "node-2", pod=f"shop/q{address}")
        if came.address in {backend.address for at, backend in enumerate(rows[port]) if at != place}:
            continue
        rows[port][place] = came
        put()
        if take:
            world.take()
    world.take()
    world.expire()
    is_as_made_anew(world)
    world.restart()
    assert not world.program.take()


def one(*addresses: str, key: str = "shop/s0", **more: Any) -> ServiceFrontends:
    rows = tuple(Backend(address, 8080, "node-1", pod=f"shop/{address}") for address in addresses)
    return ServiceFrontends(key, ("10.8.0.1",), (), more.pop("load_balancer_ips", ()), (Frontend("http", "TCP", 80, 0, rows),), **more)


def summary(batches: list[list[nft.Change]]) -> list[list[str]]:
    return [
        [f"{type(c).__name__[:-8]} {c.set.name} {len(c.elements)}" for c in batch if isinstance(c, nft.AddElements | nft.DeleteElements)]
        for batch in batches
    ]


def test_one_endpoint_more_or_less_is_a_few_elements() -> None:
    world = World()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.2", "10.4.1.1"))
    world.take()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.2", "10.4.1.1", "10.4.1.2"))
    batches = world.program.take()
    world.kernel.apply_batches(batches)
    assert summary(batches) == [["Add pick 1", "Add backends 1", "Add own-endpoints 1", "Delete sizes 1", "Add sizes 1"]]
    world.put("shop/s0", one("10.4.0.2", "10.4.1.1", "10.4.1.2"))
    batches = world.program.take()
    world.kernel.apply_batches(batches)
    assert summary(batches) == [["Delete backends 1", "Add backends 1", "Delete sizes 1", "Add sizes 1"]]
    late = world.program.expire(world.program.round)
    assert summary(late) == [["Delete own-endpoints 1", "Delete backends 1"]]


def test_a_slot_that_is_taken_again_before_it_expires_is_replaced() -> None:
    world = World()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.2"))
    world.take()
    world.put("shop/s0", one("10.4.0.1"))
    world.take()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.3"))
    world.take()
    world.expire()
    assert len(world.kernel.elements["backends"]) == 2


def test_a_service_that_cannot_be_programmed_any_more_is_gone() -> None:
    world = World()
    vip = ("203.0.113.1",)
    for affinity_s in (0, 600):
        for bad in (one("10.4.0.2", "nowhere", load_balancer_ips=vip), one("10.4.0.2", "10.4.0.3", load_balancer_ips=("nowhere",))):
            world.put("shop/s0", one("10.4.0.1", "10.4.0.2", load_balancer_ips=vip, affinity_s=affinity_s))
            world.take()
            with pytest.raises(ValueError, match="nowhere"):
                world.put("shop/s0", msgspec.structs.replace(bad, affinity_s=affinity_s))
            world.wanted.clear()
            world.take()
            world.expire()
            is_as_made_anew(world)
            assert not world.kernel.elements["backends"]


def test_an_external_address_that_is_its_own_cluster_address_makes_no_view() -> None:
    world = World()
    world.put("shop/s0", msgspec.structs.replace(one("10.4.0.1", external_local=True), external_ips=("10.8.0.1",)))
    world.take()
    assert not world.kernel.elements["short-circuit"]


def test_a_restart_before_the_stale_slot_is_gone() -> None:
    world = World()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.2", "10.4.0.3"))
    world.take()
    world.put("shop/s0", one("10.4.0.2", "10.4.0.3"))
    world.take()
    world.restart()
    world.take()
    world.expire()
    assert len(world.kernel.elements["backends"]) == 2
    assert number(next(element.value for key, element in world.kernel.elements["sizes"].items() if key != mark(0))) == 2


def test_a_late_element_is_not_deleted_before_its_round_is_over() -> None:
    world = World()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.2", "10.4.0.3"))
    world.take()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.2"))
    world.take()
    first = world.program.round
    world.put("shop/s0", one("10.4.0.1"))
    world.take()
    world.kernel.apply_batches(world.program.expire(first))
    assert len(world.kernel.elements["backends"]) == 2


def test_no_endpoint_is_refused_and_a_service_that_is_gone_leaves_nothing() -> None:
    world = World()
    world.put("shop/s0", one())
    world.take()
    assert len(world.kernel.elements["no-endpoints"]) == 1
    assert not world.kernel.elements["frontends"]
    world.put("shop/s0", None)
    world.take()
    world.expire()
    rest = {name for name, rows in world.kernel.elements.items() if rows}
    assert rest <= {"pod-ranges", "service-ranges", "sizes", "pick"}


def test_two_services_that_claim_one_address() -> None:
    world = World()
    for key in ("shop/s1", "shop/s0"):
        world.put(key, one("10.4.0.1", key=key))
        world.take()
    [frontend] = world.kernel.elements["frontends"].values()
    assert frontend.comment == "shop/s0:http/TCP"
    world.put("shop/s0", None)
    world.take()
    [frontend] = world.kernel.elements["frontends"].values()
    assert frontend.comment == "shop/s1:http/TCP"


def test_batches_stay_small_and_big_maps_ask_for_room() -> None:
    world = World()
    rows = [f"10.4.{i}.{j}" for i in range(40) for j in range(250)]
    world.put("shop/s0", one(*rows))
    batches = world.program.take()
    assert len(batches) > 5
    assert all(len(bytecode.encode(batch).datagram) < 200_000 for batch in batches)
    assert not world.program.full()
    world.put("shop/s1", msgspec.structs.replace(one(*rows, key="shop/s1"), cluster_ips=("10.8.0.2",)))
    assert world.program.full()
    assert room(world.program.services.values()).backends == 40000


def test_affinity_has_handles_that_are_not_given_twice() -> None:
    world = World()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.2", affinity_s=600))
    world.take()
    assert "choose-and-keep-600s" in world.kernel.chains
    before = {element.value for element in world.kernel.elements["handles"].values()}
    world.put("shop/s0", one("10.4.0.1", affinity_s=600))
    world.take()
    world.put("shop/s0", one("10.4.0.1", "10.4.0.2", affinity_s=600))
    world.take()
    after = {element.value for element in world.kernel.elements["handles"].values()}
    assert len(before & after) == 1
    assert len(after) == 2


def test_source_ranges_are_merged() -> None:
    world = World()
    world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=("0.0.0.0/0", "10.0.0.0/8")))
    world.take()
    assert len(world.kernel.elements["source-ranges"]) == 1


def may_come(world: World, source: str) -> bool:
    """Whether the guard of the one load-balancer address lets a client in."""
    elements = world.kernel.elements
    client = ipaddress.ip_address(source).packed
    ranges = [*elements["source-ranges"].values(), *elements["coming-ranges"].values()]
    return all(any(one.key <= key + client <= (one.end or one.key) for one in ranges) for key in elements["guarded"])


def test_who_may_come_before_and_after_may_come_between_any_two_batches_of_very_many_ranges() -> None:
    world = World()
    before = tuple(f"10.{i // 256}.{i % 256}.0/25" for i in range(3000))
    after = tuple(f"10.{i // 256}.{i % 256}.0/{24 if i % 2 else 26}" for i in range(500, 3500))
    clients = [f"10.{i // 256}.{i % 256}.9" for i in range(500, 3000, 97)]
    world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=before))
    world.take()
    world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=after))
    batches = world.program.take()
    assert len(batches) > 2
    for batch in batches:
        assert len(bytecode.encode(batch).datagram) < 212_992
        world.kernel.apply(batch)
        assert all(may_come(world, client) for client in clients)
        assert not may_come(world, "192.0.2.1")
    assert not may_come(world, "10.0.0.9")
    world.put("shop/s0", None)
    for batch in world.program.take():
        world.kernel.apply(batch)
        assert not may_come(world, "192.0.2.1") or not world.kernel.elements["frontends"]


def test_who_may_come_before_and_after_may_come_while_one_range_is_exchanged_for_very_many_and_back() -> None:
    world = World()
    whole, parts = ("10.0.0.0/8",), tuple(f"10.{i // 256}.{i % 256}.0/25" for i in range(4000))
    clients = [f"10.{i // 256}.{i % 256}.9" for i in range(0, 4000, 97)]
    world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=whole))
    world.take()
    for ranges, others in ((parts, False), (whole, True), (parts[:3000], False)):
        world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=ranges))
        batches = world.program.take()
        assert len(batches) > 1
        for batch in batches:
            assert len(bytecode.encode(batch).datagram) < 212_992
            world.kernel.apply(batch)
            assert all(may_come(world, client) for client in clients[:30])
            assert not may_come(world, "192.0.2.1")
        assert may_come(world, "10.0.0.200") is others
        assert not world.kernel.elements["coming-ranges"]


def test_ranges_that_a_process_left_aside_when_it_died_go_last() -> None:
    parts = tuple(f"10.{i // 256}.{i % 256}.0/25" for i in range(2600))
    world = World()
    world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=("10.0.0.0/8",)))
    world.take()
    world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=parts))
    steps = len(world.program.take())
    for died in range(1, steps):
        for then in (parts, ("10.0.0.0/9", "10.128.0.0/10")):
            world = World()
            world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=("10.0.0.0/8",)))
            world.take()
            world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=parts))
            world.kernel.apply_batches(world.program.take()[:died])
            world.put("shop/s0", one("10.4.0.1", load_balancer_ips=("203.0.113.1",), source_ranges=then))
            world.restart()
            world.take()
            assert may_come(world, "10.0.0.9")
            assert not world.kernel.elements["coming-ranges"]
            is_as_made_anew(world)
