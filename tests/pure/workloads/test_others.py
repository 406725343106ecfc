from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from podwire.objects import codec
from podwire.objects.core import Namespace, Node, Pod, Secret, ServiceAccount
from podwire.objects.meta import ObjectMeta, OwnerReference
from podwire.workloads import names
from podwire.workloads.accounts import desired as accounts
from podwire.workloads.expectations import LIMIT_S, Expectations
from podwire.workloads.garbage import desired as garbage
from podwire.workloads.garbage.desired import Owner
from podwire.workloads.namespaces import desired as namespaces
from podwire.workloads.nodes import desired as nodes

NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)


# Names, expectations -----------------------------------------------------------------------------------------------------------


def test_the_hash_of_a_template_does_not_depend_on_the_order_of_its_fields() -> None:
    assert names.template_hash({"a": 1, "b": {"c": 2, "d": 3}}) == names.template_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert names.template_hash({"a": 1}) != names.template_hash({"a": 2})
    assert names.template_hash({"a": 1}) != names.template_hash({"a": 1}, 1)
    assert set(names.template_hash({"a": 1})) <= set(names.ALPHABET)
    assert names.suffix(lambda _below: 3) == "fffff"


def test_a_key_waits_until_all_is_seen_or_too_long() -> None:
    expectations = Expectations()
    expectations.expect("web", "+a", 0)
    expectations.expect("web", "+b", 1)
    assert expectations.waiting("web", 5) == LIMIT_S - 4
    assert expectations.seen("+a") == "web"
    assert expectations.seen("+a") is None
    assert expectations.waiting("web", LIMIT_S + 2) == 0
    expectations.expect("web", "+c", 0)
    expectations.forget("web")
    assert expectations.waiting("web", 0) == 0


# Accounts ------------------------------------------------------------------------------------------------------------------------


def test_a_secret_that_asks_for_a_token_is_completed() -> None:
    account = codec.convert(ServiceAccount, {"metadata": {"name": "robot", "namespace": "shop", "uid": "u"}})
    metadata = {"name": "mine", "namespace": "shop", "uid": "s1", "annotations": {accounts.ACCOUNT_NAME: "robot"}}
    asking = codec.convert(Secret, {"metadata": metadata, "type": accounts.TOKEN_TYPE})
    assert accounts.belongs(asking, account)
    assert not accounts.is_complete(asking, account, b"PEM")
    assert accounts.token_request(asking)["spec"]["boundObjectRef"] == {"apiVersion": "v1", "kind": "Secret", "name": "mine", "uid": "s1"}
    patch = accounts.completion(asking, account, "t0ken", b"PEM")
    metadata["annotations"] |= patch["metadata"]["annotations"]
    secret = codec.convert(Secret, {"metadata": metadata, "type": accounts.TOKEN_TYPE, "data": patch["data"]})
    assert {key: base64.b64decode(value) for key, value in secret.data.items()} == {
        "ca.crt": b"PEM",
        "namespace": b"shop",
        "token": b"t0ken",
    }
    assert accounts.belongs(secret, account)
    assert accounts.is_complete(secret, account, b"PEM")
    assert not accounts.is_complete(secret, account, b"other PEM")
    renewed = accounts.completion(secret, account, "another", b"other PEM")["data"]
    assert base64.b64decode(renewed["token"]) == b"t0ken"
    former = codec.convert(ServiceAccount, {"metadata": {"name": "robot", "namespace": "shop", "uid": "v"}})
    assert not accounts.belongs(secret, former)


def test_a_namespace_that_ends_gets_no_account() -> None:
    living, ending = ({"metadata": {"name": "a"} | more} for more in ({}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    assert accounts.needs_default(codec.convert(Namespace, living), None)
    assert not accounts.needs_default(codec.convert(Namespace, ending), None)


# Namespaces ------------------------------------------------------------------------------------------------------------------------


def test_what_a_namespace_holds_is_what_the_api_says() -> None:
    everything = {"namespaced": True, "verbs": ["list", "delete", "get"]}
    found = namespaces.listed(
        "v1",
        [
            {"name": "pods", "kind": "Pod"} | everything,
            {"name": "pods/status", "kind": "Pod"} | everything,
            {"name": "events", "kind": "Event"} | everything,
            {"name": "nodes", "kind": "Node", "namespaced": False, "verbs": ["list", "delete"]},
            {"name": "bindings", "kind": "Binding", "namespaced": True, "verbs": ["create"]},
        ],
    ) + namespaces.listed("things.example.com/v1", [{"name": "things", "kind": "Thing"} | everything])
    emptied = namespaces.to_empty(found)
    assert [one.plural for one in emptied] == ["pods", "things", "events"]
    assert emptied[1].path("shop", "a") == "/apis/things.example.com/v1/namespaces/shop/things/a"


def test_only_our_finalizer_is_removed() -> None:
    tree = {"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes", "example.com/mine"]}}
    assert namespaces.finalized(tree)["spec"]["finalizers"] == ["example.com/mine"]


def test_why_a_namespace_lasts() -> None:
    waiting = namespaces.waits({("pods", ""): 2, ("secrets", ""): 0, ("things", "example.com"): 1}, {"example.com/hold": 1})
    others = {"type": "Example", "status": "True"}
    conditions = namespaces.conditions(waiting, "2026-01-01T00:00:00Z", [others])
    assert conditions is not None
    assert conditions[0] == others
    assert [(one["type"], one["status"], one["reason"], one["message"]) for one in conditions[1:]] == [
        ("NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", "All resources successfully discovered"),
        ("NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        (
            "NamespaceDeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: pods. has 2 resource instances, things.example.com has 1 resource instances",
        ),
        (
            "NamespaceFinalizersRemaining",
            "True",
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
        ),
    ]
    assert namespaces.conditions(waiting, "2026-01-01T00:00:09Z", conditions) is None
    later = namespaces.conditions(namespaces.waits({("pods", ""): 1}, {}), "2026-01-01T00:00:09Z", conditions)
    assert later is not None
    assert [one.get("lastTransitionTime", "")[-3:] for one in later] == ["", "00Z", "00Z", "00Z", "09Z", "09Z"]
    assert later[-1]["reason"] == "ContentHasNoFinalizers"
    assert namespaces.waits({}, {}) == {}


# Garbage ---------------------------------------------------------------------------------------------------------------------------


def owned(*uids: str, **meta: Any) -> ObjectMeta:
    references = tuple(OwnerReference(kind="ReplicaSet", name=uid, uid=uid, block_owner_deletion=True) for uid in uids)
    return ObjectMeta(name="child", uid="child", owner_references=references, **meta)


@pytest.mark.parametrize(
    ("meta", "states", "dependents", "verdict"),
    [
        (owned(), {}, False, garbage.KEEP),
        (owned("a"), {"a": Owner.PRESENT}, False, garbage.KEEP),
        (owned("a"), {"a": Owner.ABSENT}, False, garbage.Verdict(delete="Background")),
        (owned("a"), {"a": Owner.WAITING}, True, garbage.Verdict(delete="Foreground")),
        (owned("a"), {"a": Owner.WAITING}, False, garbage.Verdict(delete="Background")),
        (owned("a", finalizers=("orphan",)), {"a": Owner.ABSENT}, False, garbage.Verdict(delete="Orphan")),
        (owned("a", finalizers=("foregroundDeletion",)), {"a": Owner.ABSENT}, False, garbage.Verdict(delete="Foreground")),
        (owned("a", deletion_timestamp="2026-01-01T00:00:00Z"), {"a": Owner.ABSENT}, False, garbage.KEEP),
        (owned("a", "b"), {"a": Owner.ABSENT, "b": Owner.PRESENT}, False, garbage.Verdict(references=owned("b").owner_references)),
    ],
)
def test_verdicts(meta: ObjectMeta, states: dict[str, Owner], dependents: bool, verdict: garbage.Verdict) -> None:
    assert garbage.judge(meta, lambda owner: states[owner.uid], has_dependents=dependents) == verdict


def test_a_foreground_owner_waits_for_those_that_block_it() -> None:
    owner = ObjectMeta(uid="a", finalizers=("foregroundDeletion",), deletion_timestamp="2026-01-01T00:00:00Z")
    assert garbage.finalizer_done(owner, [owned("a")]) == ""
    free = ObjectMeta(uid="x", owner_references=(OwnerReference(uid="a"),))
    assert garbage.finalizer_done(owner, [free]) == "foregroundDeletion"
    assert garbage.finalizer_done(ObjectMeta(uid="a", finalizers=("foregroundDeletion",)), []) == ""


def test_an_orphaning_owner_waits_until_nobody_names_it() -> None:
    owner = ObjectMeta(uid="a", finalizers=("orphan", "mine"), deletion_timestamp="2026-01-01T00:00:00Z")
    assert garbage.finalizer_done(owner, [owned("a")]) == ""
    assert garbage.finalizer_done(owner, []) == "orphan"
    assert garbage.without_finalizer(owner, "orphan")["metadata"]["finalizers"] == ["mine"]
    assert garbage.without_owner(owned("a"), "a")["metadata"]["ownerReferences"] is None


# Nodes -----------------------------------------------------------------------------------------------------------------------------


def node(ready: str = "True", **spec: Any) -> Node:
    conditions = [{"type": kind, "status": "False"} for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")]
    return codec.convert(
        Node, {"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": [*conditions, {"type": "Ready", "status": ready}]}}
    )


def test_a_node_that_is_not_heard_of_becomes_unknown_once() -> None:
    changed = nodes.unknown_conditions(node(), NOW)
    assert changed is not None
    assert {one["type"]: one["status"] for one in changed} == dict.fromkeys(
        ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"), "Unknown"
    )
    silent = codec.convert(Node, {"metadata": {"name": "n"}, "status": {"conditions": changed}})
    assert nodes.unknown_conditions(silent, NOW) is None


def test_taints_follow_the_condition_and_leave_others_alone() -> None:
    def keys(value: list[dict[str, Any]] | None) -> set[tuple[str, str]]:
        return {(one["key"], one["effect"]) for one in value or ()}

    mine = {"key": "gpu", "effect": "NoSchedule"}
    assert nodes.taints(node(taints=[mine]), NOW) is None
    lost = nodes.taints(node("Unknown", taints=[mine]), NOW)
    assert keys(lost) == {("gpu", "NoSchedule"), (nodes.UNREACHABLE, "NoSchedule"), (nodes.UNREACHABLE, "NoExecute")}
    assert keys(nodes.taints(node("False"), NOW)) == {(nodes.NOT_READY, "NoSchedule"), (nodes.NOT_READY, "NoExecute")}
    assert keys(nodes.taints(node(taints=lost), NOW)) == {("gpu", "NoSchedule")}
    assert keys(nodes.taints(node(unschedulable=True), NOW)) == {(nodes.CORDONED, "NoSchedule")}
    full = [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "False"}]
    pressed = codec.convert(Node, {"metadata": {"name": "n"}, "status": {"conditions": full}})
    assert keys(nodes.taints(pressed, NOW)) == {("node.kubernetes.io/disk-pressure", "NoSchedule")}
    assert keys(nodes.taints(node(taints=[mine, *(nodes.taints(pressed, NOW) or ())]), NOW)) == {("gpu", "NoSchedule")}


@pytest.mark.parametrize(
    ("tolerations", "left"),
    [
        ([], 0.0),
        ([{"operator": "Exists"}], None),
        ([{"key": nodes.UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}], 240.0),
        ([{"key": nodes.UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}], 0.0),
        ([{"key": nodes.NOT_READY, "operator": "Exists", "effect": "NoExecute"}], 0.0),
    ],
)
def test_when_a_pod_must_go(tolerations: list[dict[str, Any]], left: float | None) -> None:
    taint = {"key": nodes.UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:09:00Z"}
    one = codec.convert(Pod, {"metadata": {"name": "p"}, "spec": {"tolerations": tolerations}})
    assert nodes.eviction_s(one, node(taints=[taint]).spec.taints, NOW) == left


def test_pods_that_cannot_end_by_themselves() -> None:
    placed = codec.convert(Pod, {"metadata": {"name": "p"}, "spec": {"nodeName": "gone"}})
    ending = codec.convert(Pod, {"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert nodes.is_orphaned(placed, {"n"})
    assert not nodes.is_orphaned(placed, {"gone"})
    assert nodes.is_orphaned(ending, {"n"})
    assert not nodes.is_orphaned(codec.convert(Pod, {"metadata": {"name": "p"}}), {"n"})
