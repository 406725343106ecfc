"""Endpoints one by one and in columns: the same endpoints."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podwire.objects.codec import convert
from podwire.objects.discovery import EndpointSlice
from podwire.views.backends import Backend, Backends, Endpoints, in_columns, in_columns_of, merged, one_came, one_for_one

WORDS = st.sampled_from(["a", "b", "", "two words"])
ENDPOINTS = st.fixed_dictionaries(
    {"addresses": st.sampled_from([[f"10.4.0.{n}"] for n in range(1, 7)] + [["10.4.0.7", "10.4.0.8"], []])},
    optional={
        "nodeName": WORDS,
        "targetRef": st.builds(lambda kind, name: {"kind": kind, "namespace": "shop", "name": name}, st.sampled_from(["Pod", "VM"]), WORDS),
        "conditions": st.sampled_from(
            [{"ready": True, "serving": True, "terminating": False}, {"ready": False}, {"terminating": True}, {"serving": False}]
        ),
        "hints": st.just({"forZones": [{"name": "a"}]}),
    },
)
USUAL = st.fixed_dictionaries(
    {"addresses": st.sampled_from([[f"10.4.0.{n}"] for n in range(1, 9)]), "nodeName": st.sampled_from(["a", "b"])},
    optional={"targetRef": st.builds(lambda name: {"kind": "Pod", "namespace": "shop", "name": name}, st.sampled_from(["p", "q"]))},
)
PORTS = st.sampled_from(
    [[{"name": "http", "port": 80}], [{"name": "http", "port": 81}], [{"name": "http"}], [{"name": "other", "port": 80}]]
)


def piece(endpoints: list[dict[str, Any]], ports: list[dict[str, Any]] | None = None, kind: str = "IPv4") -> EndpointSlice:
    many = ports if ports is not None else [{"name": "http", "port": 80}]
    return convert(EndpointSlice, {"metadata": {"name": "x"}, "addressType": kind, "ports": many, "endpoints": endpoints})


def one_by_one(slice_: EndpointSlice) -> tuple[Backend, ...]:
    """What columns must say, written otherwise."""
    found = []
    for endpoint in slice_.endpoints:
        pod = endpoint.target_ref
        name = f"{pod.namespace}/{pod.name}" if pod is not None and pod.kind == "Pod" else ""
        found += [Backend(address, 80, endpoint.node_name, name) for address in endpoint.addresses[:1]]
    return tuple(found)


@given(st.lists(ENDPOINTS, max_size=5), PORTS)
def test_columns_hold_a_slices_endpoints_or_are_not_made(endpoints: list[dict[str, Any]], ports: list[dict[str, Any]]) -> None:
    slice_ = piece(endpoints, ports)
    found, every = in_columns_of(slice_, "http", "TCP"), one_by_one(slice_)
    usual = all(e.ready and e.serving and not e.terminating and e.hints is None for e in slice_.endpoints)
    once = len({backend.address for backend in every}) == len(every)
    words = not any(" " in backend.node + backend.pod for backend in every)
    if ports[0].get("port") == 80 and ports[0]["name"] == "http" and every and usual and once and words:
        assert found is not None
        assert tuple(found) == every == tuple(found[at] for at in range(len(found)))
        assert found == in_columns(every, 4)
    elif ports[0].get("port") != 81:
        assert found is None


@given(st.lists(USUAL, max_size=4), st.lists(USUAL, max_size=4))
def test_what_came_in_a_slice_is_what_differs_between_columns(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    held, now = in_columns_of(piece(before), "http", "TCP"), in_columns_of(piece(after), "http", "TCP")
    if held is None:
        return
    found = one_came(piece(after), "http", "TCP", held)
    gone, came = {*held} - {*(now or ())}, {*(now or ())} - {*held}
    if now is not None and len(now) == len(held) and len(gone) == 1:
        assert found == (*gone, *came, now)
    else:
        assert found is None


@given(st.lists(USUAL, min_size=1, max_size=4), st.integers(0, 3), ENDPOINTS)
def test_one_endpoint_in_the_place_of_one_is_found(before: list[dict[str, Any]], at: int, other: dict[str, Any]) -> None:
    held = in_columns_of(piece(before), "http", "TCP")
    after = [*before]
    after[at % len(before)] = other
    now = in_columns_of(piece(after), "http", "TCP")
    if held is None:
        return
    found = one_came(piece(after), "http", "TCP", held)
    if now is None or {*now} == {*held} or len(now) != len(held):
        assert found is None
    else:
        assert found == (held[at % len(before)], now[at % len(before)], now)


def test_other_ports_and_families_are_another_change() -> None:
    [one, other] = ([{"addresses": [address], "nodeName": "a"}] for address in ("10.4.0.1", "10.4.0.2"))
    held = in_columns_of(piece(one), "http", "TCP")
    assert held == Backends("10.4.0.1", 80, 4, "a", "")
    assert one_came(piece(other), "http", "TCP", held) is not None
    assert one_came(piece(other, [{"name": "http", "port": 81}]), "http", "TCP", held) is None
    assert one_came(piece(other), "http", "UDP", held) is None
    assert one_came(piece(other, kind="IPv6"), "http", "TCP", held) is None
    assert one_came(piece(one), "http", "TCP", held) is None, "nothing differs"
    twice = [{"name": "http", "port": 80}, {"name": "http", "port": 81}]
    assert in_columns_of(piece(one, twice), "http", "TCP") is None


def test_endpoints_of_several_slices() -> None:
    [one, other, same] = (
        in_columns_of(piece([{"addresses": [address]}], [{"name": "http", "port": port}]), "http", "TCP")
        for address, port in (("10.4.0.1", 80), ("10.4.0.2", 80), ("10.4.0.1", 80))
    )
    assert one is not None
    assert other is not None
    assert same is not None
    together = merged([one, other])
    assert together is not None
    assert [(b.address, b.node, b.pod) for b in together] == [("10.4.0.1", "", ""), ("10.4.0.2", "", "")]
    assert merged([one, same]) is None
    assert merged([one, Backends("10.4.0.3", 81, 4, "", "")]) is None


def test_what_is_kept_one_by_one() -> None:
    rows: Endpoints = (Backend("10.4.0.1", 80), Backend("10.4.0.2", 81))
    assert in_columns((), 4) == ()
    assert in_columns((rows[0], rows[1]), 4) == rows
    assert in_columns((Backend("10.4.0.1", 80, ready=False, hint_zones=("a",)),), 4) == Backends("10.4.0.1", 80, 4, "", "")
    assert one_for_one(rows, (rows[0], Backend("10.4.0.3", 81))) == (rows[1], Backend("10.4.0.3", 81))
    assert one_for_one(rows, rows) is None
    assert one_for_one(rows, (rows[0],)) is None
