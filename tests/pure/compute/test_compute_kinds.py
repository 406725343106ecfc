"""The cloud's kinds: schemas that fit the typed objects, rules, external addresses."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

import msgspec
import pytest

from podwire.apiserver import schema, tables
from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.definitions import definition
from podwire.compute import kinds
from podwire.objects import codec, compute
from podwire.objects.meta import Object

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SMALL = Ranges(external=(ip_network("203.0.113.0/29"),), external_reserved=(ip_address("203.0.113.1"),))
TYPES: dict[str, type[Object]] = {
    "Address": compute.Address,
    "ForwardingRule": compute.ForwardingRule,
    "TargetPool": compute.TargetPool,
    "Instance": compute.Instance,
}


def made(kind: kinds.Kind, **spec: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {"metadata": {"name": "x", "creationTimestamp": "2026-01-01T23:59:00Z"}, "spec": spec}
    assert schema.prune_and_check(kind, tree) == []
    kind.for_create(tree)
    return tree


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_schemas_and_typed_values_have_the_same_fields(kind: kinds.Kind) -> None:
    spec_type = next(field.type for field in msgspec.structs.fields(TYPES[kind.kind]) if field.name == "spec")
    fields = {field.encode_name for field in msgspec.structs.fields(spec_type)}
    assert set(definition(kind.definition + "Spec")["properties"]) == fields
    assert codec.convert(TYPES[kind.kind], made(kind)).name == "x"


def test_defaults_and_columns() -> None:
    rule = made(kinds.FORWARDING_RULE, ipAddress="203.0.113.2", ports=[80, 443], target="web")
    assert (rule["spec"]["ipProtocol"], rule["spec"]["loadBalancingScheme"]) == ("TCP", "EXTERNAL")
    assert tables.row(kinds.FORWARDING_RULE, rule, NOW)["cells"] == ["x", "203.0.113.2", "TCP", "80,443", "web", "60s"]
    pool = made(kinds.TARGET_POOL, instances=["n1", "n2"])
    assert tables.row(kinds.TARGET_POOL, pool, NOW)["cells"] == ["x", 2, "NONE", "60s"]
    node = made(kinds.INSTANCE, zone="europe-west1-b", networkInterfaces=[{"networkIP": "10.128.0.2", "aliasIPRanges": ["10.4.0.0/24"]}])
    assert tables.row(kinds.INSTANCE, node, NOW)["cells"] == ["x", "europe-west1-b", "10.128.0.2", "10.4.0.0/24", "60s"]
    address = made(kinds.ADDRESS)
    assert tables.row(kinds.ADDRESS, address, NOW)["cells"] == ["x", "<none>", "EXTERNAL", "60s"]


@pytest.mark.parametrize(
    ("kind", "spec", "errors"),
    [
        (kinds.FORWARDING_RULE, {}, ["spec.ipAddress: Required value", "spec.target: Required value"]),
        (
            kinds.FORWARDING_RULE,
            {"ipAddress": "203.0.113.2", "target": "t", "ports": [0], "ipProtocol": "ICMP"},
            [
                'spec.ipProtocol: Unsupported value: "ICMP": supported values: "TCP", "UDP"',
                "spec.ports[0]: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            kinds.TARGET_POOL,
            {"sessionAffinity": "X"},
            ['spec.sessionAffinity: Unsupported value: "X": supported values: "CLIENT_IP", "CLIENT_IP_PROTO", "NONE"'],
        ),
        (kinds.ADDRESS, {"addressType": "INTERNAL"}, ['spec.addressType: Unsupported value: "INTERNAL": supported values: "EXTERNAL"']),
        (kinds.INSTANCE, {"networkInterfaces": [{}]}, ["spec.networkInterfaces[0].networkIP: Required value"]),
    ],
)
def test_what_is_refused(kind: kinds.Kind, spec: dict[str, Any], errors: list[str]) -> None:
    assert [str(error) for error in kind.check(made(kind, **spec), None)] == errors


def test_external_addresses() -> None:
    allocator = Allocator(SMALL, Random(1))
    given = []
    for _ in range(5):
        tree = made(kinds.ADDRESS)
        grant = allocator.begin(kinds.ADDRESS, tree, None)
        assert not grant.errors
        grant.commit()
        given.append(tree)
    assert sorted(tree["spec"]["address"] for tree in given) == [f"203.0.113.{n}" for n in range(2, 7)]
    more = allocator.begin(kinds.ADDRESS, made(kinds.ADDRESS), None)
    assert [str(error) for error in more.errors] == ["spec.address: Internal error: failed to allocate an address: range is full"]
    allocator.release(kinds.ADDRESS, given[0])
    asked = made(kinds.ADDRESS, address=given[0]["spec"]["address"])
    allocator.begin(kinds.ADDRESS, asked, None).abandon()
    grant = allocator.begin(kinds.ADDRESS, asked, None)
    assert not grant.errors
    grant.commit()
    for wanted, message in (
        (given[0]["spec"]["address"], "provided IP is already allocated"),
        ("203.0.113.1", "the provided IP (203.0.113.1) is reserved in 203.0.113.0/29"),
        ("198.51.100.1", "the provided IP (198.51.100.1) is not in the valid range. The range of valid IPs is 203.0.113.0/29"),
        ("x", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
    ):
        refused = allocator.begin(kinds.ADDRESS, made(kinds.ADDRESS, address=wanted), None)
        assert [str(error) for error in refused.errors] == [f'spec.address: Invalid value: "{wanted}": {message}']


def test_an_address_is_kept_over_updates_and_restarts() -> None:
    allocator = Allocator(SMALL, Random(1))
    old = made(kinds.ADDRESS)
    allocator.begin(kinds.ADDRESS, old, None).commit()
    new = copy.deepcopy(old)
    del new["spec"]["address"]
    new["spec"]["description"] = "for the shop"
    kinds.ADDRESS.for_update(new, old)
    assert new["spec"]["address"] == old["spec"]["address"]
    assert kinds.ADDRESS.check(new, old) == []
    again = Allocator(SMALL, Random(1))
    assert again.load(kinds.ADDRESS, old) == []
    assert again.load(kinds.ADDRESS, old) == ["Address x: provided IP is already allocated"]
    new["spec"]["address"] = "203.0.113.9"
    assert [str(error) for error in kinds.ADDRESS.check(new, old)] == ['spec.address: Invalid value: "203.0.113.9": field is immutable']
