"""ServiceCIDRs that people make: what is given out of them, how they come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.apiserver.service_ranges import ELSEWHERE, ServiceRanges
from podwire.ipam.addresses import FULL, TAKEN, Unavailable

Tree = dict[str, Any]
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
MERGE = "application/merge-patch+json"
LIMIT_S = 20.0

# The ranges and their addresses --------------------------------------------------------------------------------------------

NETWORKS = [ip_network(text) for text in ("10.0.0.0/29", "10.0.0.0/30", "10.0.0.4/30", "10.0.0.8/30", "fd00::/126")]
ALL = [ip_address(f"10.0.0.{number}") for number in range(13)] + [ip_address(f"fd00::{number}") for number in range(5)]
STEP = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("ab"), st.sets(st.sampled_from(NETWORKS), max_size=2), st.booleans()),
    st.tuples(st.just("take"), st.sampled_from(ALL)),
    st.tuples(st.just("keep"), st.sampled_from(ALL)),
    st.tuples(st.just("release"), st.sampled_from(ALL)),
    st.tuples(st.just("give"), st.integers(0, 99)),
)


def said(act: Callable[[Any], object], given: Any) -> str:
    """What an act is refused with; nothing when it is done."""
    try:
        act(given)
    except Unavailable as error:
        return str(error)
    return ""


@given(st.lists(STEP, max_size=30))
def test_ranges_are_sets_of_addresses(steps: list[Any]) -> None:
    """Against sets: what may be given is what the ready ranges have and nobody has taken."""
    ranges = ServiceRanges()
    objects: dict[str, tuple[set[Any], bool]] = {}
    taken: set[Any] = set()

    def usable() -> set[Any]:
        networks = [network for those, ready in objects.values() if ready for network in those]
        # IPv4 has a broadcast address; the first of a range is of no use in either family.
        return {
            one
            for network in networks
            for one in ALL
            if one.version == network.version
            and one in network
            and one != network.network_address
            and (one.version == 6 or one != network.broadcast_address)
        }

    for step in steps:
        match step:
            case ("put", name, networks, ready):
                objects[name] = (networks, ready)
                ranges.put(name, networks, ready=ready)
            case ("take" | "keep" as how, address):
                wrong = ELSEWHERE if how == "take" and address not in usable() else TAKEN if address in taken else ""
                assert said(ranges.take if how == "take" else ranges.keep, address) == wrong
                taken |= set() if wrong else {address}
            case ("release", address):
                ranges.release(address)
                taken.discard(address)
            case ("give", seed):
                free = usable() - taken
                if free:
                    address = ranges.give(Random(seed).randrange)
                    assert address in free
                    taken.add(address)
                else:
                    assert said(ranges.give, Random(seed).randrange) == FULL


# Through the API -----------------------------------------------------------------------------------------------------------


def service(name: str, **spec: Any) -> Tree:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def ready(tree: Tree) -> tuple[str, str]:
    (condition,) = [one for one in tree["status"]["conditions"] if one["type"] == "Ready"]
    return condition["status"], condition["reason"]


def until(call: Any, path: str, wanted: Any) -> Tree:
    """Wait until a condition of an object holds; gives its answer."""
    end = time.monotonic() + LIMIT_S
    while True:
        got = call("GET", path)
        if wanted(got):
            return got.tree
        assert time.monotonic() < end, got.tree


@pytest.fixture
def more(call: Any) -> Any:
    """Make ServiceCIDRs that are gone after the test."""
    made: list[str] = []

    def make(name: str, *cidrs: str) -> Any:
        made.append(name)
        return call("POST", RANGES, {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}})

    yield make
    for name in made:
        call("PATCH", f"{RANGES}/{name}", {"metadata": {"finalizers": None}}, content_type=MERGE)
        call("DELETE", f"{RANGES}/{name}")
        call("PATCH", f"{RANGES}/{name}", {"metadata": {"finalizers": None}}, content_type=MERGE)
        until(call, f"{RANGES}/{name}", lambda got: got.status == 404)


def test_a_range_that_somebody_makes_is_given_out_of(call: Any, namespace: str, more: Any) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    refused = call("POST", path, service("a", clusterIP="10.77.0.10"))
    assert refused.status == 422
    assert "failed to allocate IP 10.77.0.10: the provided network does not match the current range" in refused.tree["message"]
    made = more("extra", "10.77.0.0/24")
    assert made.status == 201
    assert made.tree["metadata"]["finalizers"] == ["networking.k8s.io/service-cidr-finalizer"]
    assert ready(made.tree) == ("True", "")
    assert call("POST", path, service("a", clusterIP="10.77.0.10")).status == 201
    held = call("GET", f"{ADDRESSES}/10.77.0.10").tree
    assert held["spec"]["parentRef"]["name"] == "a"
    assert call("POST", path, service("b", clusterIP="10.77.0.10")).status == 422
    assert call("POST", path, service("b", clusterIP="10.77.0.0")).status == 422  # the network's own address


def test_one_that_is_still_used_waits_and_says_so(call: Any, namespace: str, more: Any) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    more("held", "10.78.0.0/24")
    assert call("POST", path, service("a", clusterIP="10.78.0.10")).status == 201
    assert call("DELETE", f"{RANGES}/held").status == 200
    tree = until(call, f"{RANGES}/held", lambda got: ready(got.tree)[0] == "False")
    assert ready(tree) == ("False", "Terminating")
    assert "There are still IPAddresses referencing the ServiceCIDR" in tree["status"]["conditions"][0]["message"]
    # Nothing more is given out of it, and what is given stays.
    assert call("POST", path, service("b", clusterIP="10.78.0.11")).status == 422
    assert call("PATCH", f"{path}/a", {"metadata": {"labels": {"x": "y"}}}, content_type=MERGE).status == 200
    assert call("DELETE", f"{path}/a").status == 200
    until(call, f"{RANGES}/held", lambda got: got.status == 404)


def test_one_whose_addresses_another_holds_goes(call: Any, namespace: str, more: Any) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    more("small", "10.79.0.0/28")
    assert call("POST", path, service("a", clusterIP="10.79.0.3")).status == 201
    assert call("DELETE", f"{RANGES}/small").status == 200
    until(call, f"{RANGES}/small", lambda got: ready(got.tree)[0] == "False")
    more("large", "10.79.0.0/24")
    until(call, f"{RANGES}/small", lambda got: got.status == 404)
    assert call("POST", path, service("b", clusterIP="10.79.0.3")).status == 422
    assert call("DELETE", f"{path}/a").status == 200
    assert call("POST", path, service("b", clusterIP="10.79.0.3")).status == 201


def test_an_address_kept_before_its_range_came_stays_kept(call: Any, namespace: str, more: Any) -> None:
    kept = {"metadata": {"name": "10.80.0.5"}, "spec": {"parentRef": {"resource": "things", "group": "example.com", "name": "t"}}}
    assert call("POST", ADDRESSES, kept).status == 201
    more("later", "10.80.0.0/24")
    path = f"/api/v1/namespaces/{namespace}/services"
    assert "already allocated" in call("POST", path, service("a", clusterIP="10.80.0.5")).tree["message"]
    assert call("DELETE", f"{ADDRESSES}/10.80.0.5").status == 200
    assert call("POST", path, service("a", clusterIP="10.80.0.5")).status == 201


def test_the_default_range_comes_back_and_is_given_out_of(call: Any, namespace: str) -> None:
    assert call("DELETE", f"{RANGES}/kubernetes").status == 200
    tree = until(call, f"{RANGES}/kubernetes", lambda got: ready(got.tree)[0] == "False")
    path = f"/api/v1/namespaces/{namespace}/services"
    assert "range is full" in call("POST", path, service("a")).tree["message"]
    uid = tree["metadata"]["uid"]
    call("PATCH", f"{RANGES}/kubernetes", {"metadata": {"finalizers": None}}, content_type=MERGE)
    until(call, f"{RANGES}/kubernetes", lambda got: got.status == 200 and got.tree["metadata"]["uid"] != uid)
    assert call("POST", path, service("a")).status == 201


@pytest.mark.parametrize(
    ("cidrs", "message"),
    [
        (["10.81.0.0/24", "10.82.0.0/24"], "may specify no more than one IP for each IP family"),
        (["10.81.0.0/24", "fd01::/64", "fd02::/64"], "may only hold up to 2 values"),
        (["10.81.0.1/24"], "must not have bits set beyond the prefix length"),
        (["FD01::/64"], 'must be in canonical form ("fd01::/64")'),
        (["10.81.0.0/33"], "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
    ],
)
def test_what_is_no_range_is_refused(more: Any, cidrs: list[str], message: str) -> None:
    got = more("wrong", *cidrs)
    assert got.status == 422
    assert message in got.tree["message"]
