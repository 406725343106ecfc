from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.core import Endpoints, Pod, Service
from podwire.objects.discovery import EndpointSlice
from podwire.workloads.endpoints import desired, slices

ZONES = {"n1": "a", "n2": "b"}


def service(*ports: dict[str, Any], **spec: Any) -> Service:
    body = {
        "selector": {"app": "web"},
        "clusterIP": "10.8.0.9",
        "ipFamilies": ["IPv4"],
        "ports": list(ports) or [{"port": 80, "targetPort": 8080}],
    }
    meta = {"name": "web", "namespace": "default", "uid": "svc", "labels": {"team": "x"}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return codec.convert(Service, {"metadata": meta, "spec": body | spec})


def pod(name: str, ip: str = "10.4.0.2", *, ready: bool = True, meta: dict[str, Any] | None = None, **fields: Any) -> Pod:
    spec = {"nodeName": "n1", "containers": [{"name": "c", "ports": fields.pop("ports", [])}]} | fields.pop("spec", {})
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:05Z"}
    state = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [condition]} | fields
    return codec.convert(
        Pod, {"metadata": {"name": name, "namespace": "default", "uid": f"u-{name}"} | (meta or {}), "spec": spec, "status": state}
    )


def endpoints(wanted: Service, *pods: Pod) -> list[desired.Member]:
    return desired.members(wanted, pods, lambda node: ZONES.get(node, ""))


def test_an_endpoint_says_where_it_is_and_what_it_is() -> None:
    (member,) = endpoints(service(), pod("a"))
    endpoint = member.endpoint
    assert endpoint.addresses == ("10.4.0.2",)
    assert (endpoint.node_name, endpoint.zone) == ("n1", "a")
    assert endpoint.target_ref is not None
    assert (endpoint.target_ref.kind, endpoint.target_ref.name, endpoint.target_ref.uid) == ("Pod", "a", "u-a")
    assert member.group[1][0].port == 8080


def test_states() -> None:
    def state(wanted: Service, one: Pod) -> tuple[Any, Any, Any]:
        conditions = endpoints(wanted, one)[0].endpoint.conditions
        return conditions.ready, conditions.serving, conditions.terminating

    ending = {"deletionTimestamp": "2026-01-01T00:00:09Z"}
    assert state(service(), pod("a")) == (True, True, False)
    assert state(service(), pod("a", ready=False)) == (False, False, False)
    assert state(service(), pod("a", meta=ending)) == (False, True, True)
    assert state(service(), pod("a", ready=False, meta=ending)) == (False, False, True)
    assert state(service(publishNotReadyAddresses=True), pod("a", ready=False)) == (True, False, False)


def test_what_has_no_address_or_has_ended_is_no_endpoint() -> None:
    assert endpoints(service(), pod("a", podIP="", podIPs=[]), pod("b", phase="Failed"), pod("c", phase="Succeeded")) == []


def test_a_named_target_port_is_looked_up_in_each_pod() -> None:
    wanted = service({"name": "http", "port": 80, "targetPort": "web"}, {"name": "admin", "port": 81, "targetPort": "admin"})
    one = pod("a", "10.4.0.2", ports=[{"name": "web", "containerPort": 8080}, {"name": "admin", "containerPort": 9}])
    two = pod("b", "10.4.0.3", ports=[{"name": "web", "containerPort": 8081}])
    none = pod("c", "10.4.0.4", ports=[{"name": "web", "containerPort": 1, "protocol": "UDP"}])
    found = {
        member.endpoint.addresses[0]: [(port.name, port.port) for port in member.group[1]] for member in endpoints(wanted, one, two, none)
    }
    assert found == {"10.4.0.2": [("http", 8080), ("admin", 9)], "10.4.0.3": [("http", 8081)]}


def test_each_family_has_its_own_slices() -> None:
    one = pod("a", podIPs=[{"ip": "10.4.0.2"}, {"ip": "fd00::2"}])
    found = [(member.group[0], member.endpoint.addresses[0]) for member in endpoints(service(ipFamilies=["IPv4", "IPv6"]), one)]
    assert found == [("IPv4", "10.4.0.2"), ("IPv6", "fd00::2")]


def test_a_hostname_counts_only_in_its_own_subdomain() -> None:
    inside = pod("a", spec={"hostname": "h", "subdomain": "web"})
    outside = pod("b", spec={"hostname": "h", "subdomain": "other"})
    assert [member.endpoint.hostname for member in endpoints(service(), inside, outside)] == ["h", ""]


# Slices --------------------------------------------------------------------------------------------------------------------------


class Api:
    """Slices as an API server would keep them: written and read back as JSON."""

    def __init__(self) -> None:
        self.slices: dict[str, EndpointSlice] = {}
        self.made = self.writes = 0

    def apply(self, wanted: Service, members: list[desired.Member]) -> slices.Plan:
        plan = slices.decide(wanted, members, self.slices.values(), "2026-01-01T00:00:05Z")
        for one in plan.create:
            self.made += 1
            self.slices[f"web-{self.made}"] = self._stored(slices.document(one, f"web-{self.made}"))
        for one in plan.update:
            self.slices[one.name] = self._stored(slices.document(one))
        for one in plan.delete:
            del self.slices[one.name]
        self.writes += len(plan.create) + len(plan.update) + len(plan.delete)
        return plan

    @staticmethod
    def _stored(tree: dict[str, Any]) -> EndpointSlice:
        return codec.decode(EndpointSlice, msgspec.json.encode(tree))

    def addresses(self) -> list[str]:
        return sorted(endpoint.addresses[0] for one in self.slices.values() for endpoint in one.endpoints)


def many(*numbers: int, ready: bool = True) -> list[desired.Member]:
    return endpoints(service(), *(pod(f"p{number}", f"10.4.{number // 250}.{number % 250}", ready=ready) for number in numbers))


def test_a_service_without_pods_has_one_empty_slice() -> None:
    api = Api()
    api.apply(service(), [])
    (one,) = api.slices.values()
    assert (one.endpoints, one.ports) == ((), ())
    assert one.service_key == "default/web"
    assert one.metadata.labels["team"] == "x"
    assert one.metadata.owner_references[0].uid == "svc"
    api.apply(service(), [])
    assert api.writes == 1
    api.apply(service(), many(1))
    assert api.addresses() == ["10.4.0.1"]
    assert all(one.ports for one in api.slices.values()), "the placeholder is gone"


def test_one_change_among_many_writes_one_slice() -> None:
    api = Api()
    api.apply(service(), many(*range(250)))
    assert sorted(len(one.endpoints) for one in api.slices.values()) == [50, 100, 100]
    api.writes = 0
    rest = [member for member in many(*range(250)) if member.endpoint.addresses != ("10.4.0.7",)]
    api.apply(service(), rest)
    assert api.writes == 1
    api.apply(service(), many(*range(250)))
    assert api.writes == 2


def test_headless_and_labels_follow_the_service() -> None:
    api = Api()
    api.apply(service(), many(1))
    headless = service(clusterIP="None")
    api.apply(headless, many(1))
    (one,) = api.slices.values()
    assert desired.HEADLESS in one.metadata.labels
    assert one.metadata.annotations[desired.TRIGGER] == "2026-01-01T00:00:05Z"


states = st.lists(st.dictionaries(st.integers(0, 260), st.booleans(), max_size=260), max_size=4)


@given(states)
def test_every_endpoint_is_in_one_slice_and_equal_input_writes_nothing(history: list[dict[int, bool]]) -> None:
    api = Api()
    for state in history:
        wanted = [*many(*(number for number, ready in state.items() if ready)), *many(*(n for n, r in state.items() if not r), ready=False)]
        api.apply(service(), wanted)
        assert api.addresses() == sorted(member.endpoint.addresses[0] for member in wanted)
        assert all(len(one.endpoints) <= 100 for one in api.slices.values())
        assert all(one.endpoints for one in api.slices.values()) or len(api.slices) == 1
        before = api.writes
        api.apply(service(), wanted[::-1])
        assert api.writes == before


# Endpoints -----------------------------------------------------------------------------------------------------------------------


def test_the_older_form_says_the_same() -> None:
    ready, unready = pod("a", "10.4.0.2"), pod("b", "10.4.0.3", ready=False)
    ending = pod("c", "10.4.0.4", meta={"deletionTimestamp": "2026-01-01T00:00:09Z"})
    tree = desired.legacy(
        service({"name": "http", "port": 80, "targetPort": 8080}),
        endpoints(service({"name": "http", "port": 80, "targetPort": 8080}), ready, unready, ending),
    )
    (subset,) = tree["subsets"]
    assert [one["ip"] for one in subset["addresses"]] == ["10.4.0.2"]
    assert [one["ip"] for one in subset["notReadyAddresses"]] == ["10.4.0.3"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    stored = codec.decode(Endpoints, msgspec.json.encode(tree))
    assert not desired.legacy_differs(stored, tree)
    assert desired.legacy_differs(stored, tree | {"subsets": []})


def test_a_thousand_addresses_are_enough_for_the_older_form() -> None:
    tree = desired.legacy(service(), many(*range(1100)))
    assert sum(len(subset["addresses"]) for subset in tree["subsets"]) == 1000
    assert tree["metadata"]["annotations"] == {desired.OVER_CAPACITY: "truncated"}


def test_the_trigger_is_the_latest_change() -> None:
    assert desired.trigger(service(), []) == "2026-01-01T00:00:00Z"
    assert desired.trigger(service(), [pod("a")]) == "2026-01-01T00:00:05Z"
    assert desired.trigger(service(), [pod("a", meta={"deletionTimestamp": "2026-01-01T00:00:09Z"})]) == "2026-01-01T00:00:09Z"


@pytest.mark.parametrize(
    ("distribution", "zones", "nodes"),
    [("", [], []), ("PreferClose", ["a"], []), ("PreferSameZone", ["a"], []), ("PreferSameNode", ["a"], ["n1"])],
)
def test_endpoints_say_for_whom_they_are_meant(distribution: str, zones: list[str], nodes: list[str]) -> None:
    ready, starting = endpoints(service(trafficDistribution=distribution), pod("a"), pod("b", ready=False))
    found = ready.endpoint.hints
    assert ([one.name for one in found.for_zones] if found else []) == zones
    assert ([one.name for one in found.for_nodes] if found else []) == nodes
    assert (found is None) is (distribution == "")
    assert starting.endpoint.hints is None


def test_a_node_of_no_zone_gives_no_hint_for_one() -> None:
    [member] = endpoints(service(trafficDistribution="PreferClose"), pod("a", spec={"nodeName": "elsewhere"}))
    assert member.endpoint.hints is None
