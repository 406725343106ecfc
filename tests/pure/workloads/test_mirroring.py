from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.core import Endpoints, Service
from podwire.objects.discovery import EndpointSlice
from podwire.workloads.mirroring import desired


def endpoints(*subsets: dict[str, Any], **labels: str) -> Endpoints:
    meta = {"name": "db", "namespace": "default", "uid": "e", "labels": labels}
    return codec.convert(Endpoints, {"metadata": meta, "subsets": list(subsets)})


def service(**spec: Any) -> Service:
    return codec.convert(Service, {"metadata": {"name": "db", "namespace": "default"}, "spec": spec})


def test_what_is_mirrored() -> None:
    assert desired.is_mirrored(endpoints(), service())
    assert not desired.is_mirrored(endpoints(), service(selector={"app": "db"}))
    assert not desired.is_mirrored(endpoints(), service(type="ExternalName"))
    assert not desired.is_mirrored(endpoints(), None)
    assert not desired.is_mirrored(endpoints(**{desired.SKIP: "true"}), service())


def test_one_slice_a_family_and_set_of_ports() -> None:
    first = {"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 80}]}
    plan = desired.decide(endpoints(first, team="one"), [])
    by_family = {one.address_type: one for one in plan.create}
    assert [(one.addresses, one.ready) for one in by_family["IPv4"].endpoints] == [(("192.0.2.1",), True), (("192.0.2.2",), False)]
    assert [one.addresses for one in by_family["IPv6"].endpoints] == [("2001:db8::1",)]
    assert by_family["IPv4"].metadata.labels == {
        "team": "one",
        "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert by_family["IPv4"].metadata.owner_references[0].kind == "Endpoints"
    assert desired.decide(endpoints(), [by_family["IPv4"]]).delete == (by_family["IPv4"],)


addresses = st.lists(st.integers(1, 254), unique=True, max_size=8)


@given(st.lists(addresses, min_size=1, max_size=4))
def test_slices_follow_and_then_rest(history: list[list[int]]) -> None:
    have: dict[str, EndpointSlice] = {}
    for numbers in history:
        wanted = endpoints(
            *([{"addresses": [{"ip": f"192.0.2.{number}"} for number in numbers], "ports": [{"port": 80}]}] if numbers else [])
        )
        plan = desired.decide(wanted, have.values())
        for one in plan.delete:
            del have[one.name]
        for one in plan.update:
            have[one.name] = one
        for number, one in enumerate(plan.create):
            tree = codec.tree(one)
            tree["metadata"]["name"] = f"db-{len(have)}-{number}"
            made = codec.convert(EndpointSlice, tree)
            have[made.name] = made
        assert sorted(each.addresses[0] for one in have.values() for each in one.endpoints) == sorted(
            f"192.0.2.{number}" for number in numbers
        )
        again = desired.decide(wanted, have.values())
        assert not again.create + again.update + again.delete
