"""What is done quicker for Services as most are: it is what is done for any."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire import nft
from podwire.objects.codec import convert
from podwire.objects.core import Service
from podwire.objects.discovery import EndpointSlice
from podwire.services import desired, layout, plain
from podwire.services.elements import Elements, elements, forms
from podwire.services.numbers import Numbers
from podwire.views.frontends import ServiceFrontends, join
from pure.services import clusters
from pure.services.worlds import HERE, KEYS, World, is_as_made_anew, services

SPECS = st.fixed_dictionaries({"addresses": st.sampled_from([[f"10.4.1.{n}"] for n in range(1, 9)])}, optional={
    "nodeName": st.sampled_from(["node-1", "node-2", "node-3"]),
    "targetRef": st.builds(lambda name: {"kind": "Pod", "namespace": "shop", "name": name}, st.sampled_from(["p", "q"])),
    "conditions": st.sampled_from([{"ready": False}, {"terminating": True}, {"ready": True}]),
    "hints": st.just({"forZones": [{"name": "a"}]}),
})  # fmt: skip
CAME = st.tuples(st.sampled_from(["replace", "replace", "replace", "add", "remove", "port"]), st.integers(0, 4), SPECS, st.booleans())


@given(st.sampled_from([("TCP",), ("TCP", "TCP"), ("TCP", "UDP")]), st.lists(SPECS, max_size=4), st.lists(CAME, max_size=8))
def test_a_slice_that_changed_is_taken_in_as_the_whole_service_would_be(
    protocols: tuple[str, ...], endpoints: list[dict[str, Any]], history: list[tuple[str, int, dict[str, Any], bool]]
) -> None:
    ports = [{"name": f"n{at}", "protocol": protocol, "port": 80 + at} for at, protocol in enumerate(protocols)]
    service = convert(Service, {"metadata": {"name": "s0", "namespace": "shop"}, "spec": {"clusterIP": "10.8.0.1", "ports": ports}})
    targets, rows, world = [{**port, "port": 8080} for port in ports], list(endpoints), World()

    def piece() -> EndpointSlice:
        return convert(EndpointSlice, {"metadata": {"name": "s0-x", "namespace": "shop"}, "ports": targets, "endpoints": rows})

    world.put("shop/s0", join(service, [piece()]))
    world.take()
    for what, at, came, take in history:
        if what == "port":
            targets[at % len(ports)] = {**targets[at % len(ports)], "port": 8080 + at}
        elif what == "add" or not rows:
            rows.append(came)
        elif what == "remove":
            del rows[at % len(rows)]
        else:
            rows[at % len(rows)] = came
        view = join(service, [piece()])
        if world.program.put_slice("shop/s0", piece()):
            program = desired.program(view, HERE) if view is not None else None
            assert program is not None
            assert world.program.services["shop/s0"] == program
            world.wanted["shop/s0"] = program
        else:
            world.put("shop/s0", view)
        if take:
            world.take()
    world.take()
    world.expire()
    is_as_made_anew(world)
    world.restart()
    assert not world.program.take()


def test_one_endpoint_in_the_place_of_one_is_one_exchange() -> None:
    world = World()

    def piece(*addresses: str, node: str = "node-2") -> EndpointSlice:
        rows = [{"addresses": [address], "nodeName": node} for address in addresses]
        return convert(EndpointSlice, {"metadata": {"name": "s0-x", "namespace": "shop"}, "ports": [{"port": 8080}], "endpoints": rows})

    body = {"metadata": {"name": "s0", "namespace": "shop"}, "spec": {"clusterIP": "10.8.0.1", "ports": [{"port": 80}]}}
    world.put("shop/s0", join(convert(Service, body), [piece("10.4.1.1", "10.4.1.2")]))
    world.take()
    assert world.program.put_slice("shop/s0", piece("10.4.1.1", "10.4.1.3"))
    [[gone, came]] = world.program.take()
    assert isinstance(gone, nft.DeleteElements)
    assert isinstance(came, nft.AddElements)
    assert (gone.set.name, len(gone.elements), len(came.elements)) == ("backends", 1, 1)
    assert world.program.put_slice("shop/s0", piece("10.4.1.1", "10.4.1.3"))
    assert not world.program.take(), "nothing changed"
    assert not world.program.put_slice("shop/s0", piece("10.4.1.1", "10.4.1.4", node="node-1")), "both are here now"
    assert not world.program.put_slice("shop/s0", piece("10.4.1.1"))
    assert not world.program.put_slice("shop/s0", piece("10.4.1.1", "10.4.1.1"))
    assert not world.program.put_slice("shop/s0", piece("10.4.1.1", "no address"))
    assert not world.program.put_slice("shop/other", piece("10.4.1.1"))


def told(world: World, batches: list[list[nft.Change]]) -> list[tuple[str, str, int]]:
    """Carry out changes; give what they do with elements, to which map, and of how many. Chains that draw are made when first needed."""
    world.kernel.apply_batches(batches)
    world.check()
    changes = [one for batch in batches for one in batch if isinstance(one, (nft.AddElements, nft.DeleteElements))]
    return sorted((type(one).__name__, one.set.name, len(one.elements)) for one in changes if one.set.name != "pick")


@pytest.mark.parametrize("count", [2, 3, 200])
def test_one_endpoint_more_or_less_is_three_elements_however_many_there_are(count: int) -> None:
    world, names = World(), [f"10.4.1.{number}" for number in range(1, count + 1)]

    def put(*addresses: str) -> None:
        pieces = [{"addresses": [one], "nodeName": "node-2", "targetRef": pod_of(one)} for one in addresses]
        piece = {"metadata": {"name": "x", "namespace": "shop"}, "ports": [{"port": 8080}], "endpoints": pieces}
        world.put("shop/s0", join(service("s0"), [convert(EndpointSlice, piece)]))

    size = [("AddElements", "sizes", 1), ("DeleteElements", "sizes", 1)]
    put(*names)
    world.take()
    put(*names, "10.4.2.1")
    assert told(world, world.program.take()) == [("AddElements", "backends", 1), *size]
    is_as_made_anew(world)
    put(*names[:-1], "10.4.2.1")  # in the slot of the one that goes the last one sits down
    exchange = [("AddElements", "backends", 1), size[0], ("DeleteElements", "backends", 1), size[1]]
    assert told(world, world.program.take()) == exchange
    assert told(world, world.program.expire(world.program.round)) == [("DeleteElements", "backends", 1)]
    is_as_made_anew(world)
    put(*names[:-1])  # the last one: its slot is kept for packets under way
    assert told(world, world.program.take()) == size
    put(*names[:-1], "10.4.2.2")  # where another one sits down
    assert told(world, world.program.take()) == exchange
    is_as_made_anew(world)
    world.restart()
    assert not world.program.take()


def pod_of(address: str) -> dict[str, str]:
    return {"kind": "Pod", "namespace": "shop", "name": f"web-{address}"}


def service(name: str, created: str = "") -> Service:
    metadata = {"name": name, "namespace": "shop", "creationTimestamp": created or None}
    return convert(Service, {"metadata": metadata, "spec": {"clusterIP": "10.8.0.1", "ports": [{"port": 80}]}})


def slice_of(*addresses: str, port: int = 8080, name: str = "x", node: str = "node-2", pod: str = "p") -> EndpointSlice:
    target = {"kind": "Pod", "namespace": "shop", "name": pod}
    rows = [{"addresses": [address], "nodeName": node, "targetRef": target} for address in addresses]
    return convert(EndpointSlice, {"metadata": {"name": name, "namespace": "shop"}, "ports": [{"port": port}], "endpoints": rows})


@pytest.mark.parametrize("alone", [True, False])
def test_an_endpoint_of_a_service_whose_address_another_has_got_is_not_exchanged(alone: bool) -> None:
    world = World()
    younger, elder = service("s1", "2020-01-02T00:00:00Z"), service("s0", "2020-01-01T00:00:00Z")
    world.put("shop/s1", join(younger, [slice_of("10.4.1.1")]))
    world.take()
    world.put("shop/s0", join(elder, [slice_of("10.4.1.9")]))
    world.take()
    after = join(younger, [slice_of("10.4.1.2")])
    if alone:
        assert not world.program.put_slice("shop/s1", slice_of("10.4.1.2"))
    world.put("shop/s1", after)
    assert not world.program.changed, "nothing leads there"
    world.take()
    world.expire()
    is_as_made_anew(world)


@pytest.mark.parametrize("now", [("10.4.1.2", 8080), ("10.4.1.2", 8081)])
def test_an_endpoint_of_two_numbers_stays_on_this_node_when_one_goes(now: tuple[str, int]) -> None:
    world, address = World(), "10.4.1.1"
    other = slice_of(address, port=8081, name="y", node="node-1")
    world.put("shop/s0", join(service("s0"), [slice_of(address, node="node-1"), other]))
    world.take()
    world.put("shop/s0", join(service("s0"), [slice_of(now[0], port=now[1], node="node-1"), other]))
    world.take()
    world.expire()
    is_as_made_anew(world)


@pytest.mark.parametrize("pod", ["p" * 300, "é" * 100, "日本" * 50, "a" + "日本" * 50, "two words" * 20, 'a "quoted" one'], ids=range(6))
def test_comments_are_cut_alike_by_whoever_writes_them(pod: str) -> None:
    """What a target is called is checked by no API."""
    world = World()
    for addresses in (["10.4.1.1"], ["10.4.1.2"], ["10.4.1.2", "10.4.1.3"], ["10.4.1.4", "10.4.1.3"]):
        for node in ("node-2", "node-1"):
            piece = slice_of(*addresses, node=node, pod=pod)
            if world.program.put_slice("shop/s0", piece):
                world.wanted["shop/s0"] = world.program.services["shop/s0"]
            else:
                world.put("shop/s0", join(service("s0"), [piece]))
            world.take()
            world.expire()
            is_as_made_anew(world)
    world.restart()
    assert not world.program.take()
    program = world.wanted["shop/s0"]
    if program.plain:
        found = plain.elements(program, "node-1", forms(layout.IPV4), Numbers())
        assert in_order(found) == in_order(elements(program, "node-1", layout.IPV4, Numbers()))


@given(services(KEYS[0]))
def test_a_plain_service_has_the_elements_of_any(view: ServiceFrontends) -> None:
    program = desired.program(view, HERE)
    assert program is not None
    if program.plain:
        found = plain.elements(program, "node-1", forms(layout.IPV4), Numbers())
        assert in_order(found) == in_order(elements(program, "node-1", layout.IPV4, Numbers()))


def in_order(found: Elements) -> dict[str, list[bytes]]:
    return {field: sorted(rows) for field, rows in found.items()}


@given(clusters.objects())
def test_one_step_decides_as_all_steps_do(trees: list[dict[str, Any]]) -> None:
    world = clusters.cluster(trees)
    for service in world.services:
        slices = tuple(piece for piece in world.slices if piece.service_key == service.key)
        view = join(service, slices)
        for family in (4, 6):
            found = desired.plain(service.key, service, slices, family)
            assert found is None or (view is not None and found == desired.program(view, HERE, family))


def test_who_is_decided_in_one_step() -> None:
    def service(**spec: Any) -> Service:
        body = {"clusterIP": "10.8.0.1", "clusterIPs": ["10.8.0.1"], "ports": [{"port": 80}], **spec}
        return convert(Service, {"metadata": {"name": "s", "namespace": "shop", "labels": body.pop("labels", {})}, "spec": body})

    rows = [{"addresses": ["10.4.1.1"]}]
    slices = (convert(EndpointSlice, {"metadata": {"name": "x"}, "ports": [{"port": 8080}], "endpoints": rows}),)
    assert desired.plain("shop/s", service(), slices, 4) is not None
    assert desired.plain("shop/s", service(), slices, 6) is None
    assert desired.plain("shop/s", service(), (), 4) is None
    for other in (
        {"type": "NodePort"},
        {"type": "ExternalName"},
        {"externalIPs": ["192.0.2.1"]},
        {"sessionAffinity": "ClientIP"},
        {"internalTrafficPolicy": "Local"},
        {"clusterIPs": ["10.8.0.1", "fd00::1"]},
        {"clusterIP": "None", "clusterIPs": ["None"]},
        {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]},
        {"labels": {"service.kubernetes.io/service-proxy-name": "other"}},
    ):
        assert desired.plain("shop/s", service(**other), slices, 4) is None, other
