"""Rules of custom objects: put to each write, told in the API's words, refused when they do not compile."""

# ruff: noqa: E501 (rules and schemas are read better in one line)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.apiserver import schema
from podwire.apiserver.extension import kinds, rules, structural
from podwire.apiserver.kind import Kind
from podwire.apiserver.registry import REGISTRY
from podwire.apiserver.validation import Path

Tree = dict[str, Any]
WORD = "x-kubernetes-validations"
CRD = REGISTRY.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
ROOT = "spec.validation.openAPIV3Schema.properties[spec]"


def definition(spec: Tree, **root: Any) -> Tree:
    return {
        "metadata": {"name": "gates.example.com", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "gates", "kind": "Gate"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}, **root}},
                }
            ],
        },
    }


def refused(spec: Tree, **root: Any) -> list[str]:
    tree = definition(spec, **root)
    assert CRD is not None
    assert schema.prune_and_check(CRD, tree) == []
    CRD.for_create(tree)
    return [str(error) for error in CRD.check(tree, None)]


def kind(spec: Tree, **root: Any) -> Kind:
    assert refused(spec, **root) == []
    return kinds.of_definition(definition(spec, **root))[0]


def judged(row: Kind, spec: Any, old: Any = None) -> list[str]:
    tree, before = ({"metadata": {"name": "a"}, "spec": one} for one in (spec, old))
    return [str(error) for error in row.validate(tree, None if old is None else before)]


# The shapes of rules that the Gateway API's definitions have.
LISTENERS: Tree = {
    "type": "object",
    "properties": {
        "listeners": {
            "type": "array",
            "maxItems": 64,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name", "port", "protocol"],
                "properties": {
                    "name": {"type": "string", "maxLength": 253},
                    "port": {"type": "integer"},
                    "protocol": {"type": "string", "maxLength": 255},
                    "hostname": {"type": "string", "maxLength": 253},
                    "tls": {"type": "object", "properties": {"mode": {"type": "string"}}},
                },
                WORD: [{"rule": "self.port == oldSelf.port", "message": "port is for ever"}],
            },
            WORD: [
                {
                    "message": "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
                    "rule": "self.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)",
                },
                {
                    "message": "Combination of port, protocol and hostname must be unique for each listener",
                    "rule": "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && "
                    "has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))",
                },
            ],
        }
    },
}


def listener(name: str, port: int, protocol: str = "HTTP", **more: Any) -> Tree:
    return {"name": name, "port": port, "protocol": protocol, **more}


def test_rules_of_listeners() -> None:
    row = kind(LISTENERS)
    assert judged(row, {"listeners": [listener("a", 80), listener("b", 80, hostname="x"), listener("c", 443, "HTTPS", tls={})]}) == []
    assert judged(row, {"listeners": [listener("a", 80, tls={}), listener("b", 80)]}) == [
        "spec.listeners: Invalid value: \"array\": tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
        'spec.listeners: Invalid value: "array": Combination of port, protocol and hostname must be unique for each listener',
    ]
    many = [listener(str(one), one, hostname=f"h{one}") for one in range(64)]
    assert judged(row, {"listeners": many}) == []
    # An element is told from others by its keys, wherever it stands now.
    old = {"listeners": [listener("a", 80), listener("b", 81)]}
    assert judged(row, {"listeners": [listener("c", 82), listener("b", 90)]}, old) == [
        'spec.listeners[1]: Invalid value: "object": port is for ever'
    ]


def test_rules_of_changes_messages_reasons_and_places() -> None:
    row = kind(
        {
            "type": "object",
            "properties": {
                "class": {
                    "type": "string",
                    WORD: [{"rule": "self == oldSelf", "message": "Value is immutable", "reason": "FieldValueForbidden"}],
                },
                "least": {"type": "integer"},
                "most": {"type": "integer"},
                "sticky": {"type": "string"},
            },
            WORD: [
                {
                    "rule": "!has(self.least) || !has(self.most) || self.least <= self.most",
                    "messageExpression": "'least (%d) is more than most (%d)'.format([self.least, self.most])",
                    "fieldPath": ".least",
                },
                {
                    "rule": "oldSelf.hasValue() || !has(self.sticky)",
                    "optionalOldSelf": True,
                    "reason": "FieldValueRequired",
                    "message": "not yet",
                },
            ],
        }
    )
    assert judged(row, {"class": "a", "least": 1, "most": 2}) == []
    assert judged(row, {"class": "b"}, {"class": "a"}) == ["spec.class: Forbidden: Value is immutable"]
    assert judged(row, {"least": 3, "most": 2}) == ['spec.least: Invalid value: "object": least (3) is more than most (2)']
    assert judged(row, {"sticky": "x"}) == ["spec: Required value: not yet"]
    assert judged(row, {"sticky": "x"}, {}) == []


def test_what_does_not_change_is_not_judged_again() -> None:
    row = kind({"type": "object", "properties": {"n": {"type": "integer", WORD: [{"rule": "self > 5"}]}, "s": {"type": "string"}}})
    assert judged(row, {"n": 1, "s": "a"}) == ['spec.n: Invalid value: "integer": failed rule: self > 5']
    assert judged(row, {"n": 1, "s": "b"}, {"n": 1, "s": "a"}) == []
    assert judged(row, {"n": 2}, {"n": 1}) != []


def test_an_invalid_object_is_not_put_to_rules() -> None:
    row = kind({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}, WORD: [{"rule": "self.n > 5"}]})
    assert judged(row, {}) == [
        "spec.n: Required value",
        '<nil>: Invalid value: "null": some validation rules were not checked because the object was invalid; '
        "correct the existing errors to complete validation",
    ]


def test_what_goes_wrong_in_a_rule() -> None:
    row = kind({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"}}}, WORD: [{"rule": "self.l[0] > 5"}]})
    assert judged(row, {"l": []}) == ['spec: Invalid value: "object": index out of bounds: 0 evaluating rule: self.l[0] > 5']
    assert judged(row, {}) == ['spec: Invalid value: "object": no such key: l evaluating rule: self.l[0] > 5']
    endless = {
        "type": "object",
        "properties": {"l": {"type": "array", "items": {"type": "integer"}}},
        WORD: [{"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))", "message": "m"}, {"rule": "false"}],
    }
    assert "estimated rule cost exceeds budget by factor of more than 100x" in refused(endless)[0]
    # Who stored it before there was a limit has it still.
    assert judged(kinds.of_definition(definition(endless))[0], {"l": list(range(300))}) == [
        "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': "
        "no further validation rules will be run due to call cost exceeds limit for rule: m"
    ]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"rule": " "}, f"{ROOT}.{WORD}[0].rule: Required value: rule is not specified"),
        (
            {"rule": "self.nope > 1"},
            f'{ROOT}.{WORD}[0].rule: Invalid value: {{"rule":"self.nope > 1"}}: compilation failed: '
            "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1\n | ....^",
        ),
        ({"rule": "self.n"}, f'{ROOT}.{WORD}[0].rule: Invalid value: {{"rule":"self.n"}}: cel expression must evaluate to a bool'),
        (
            {"rule": "true", "messageExpression": "self.n"},
            f'{ROOT}.{WORD}[0].messageExpression: Invalid value: {{"rule":"true","messageExpression":"self.n"}}: '
            "messageExpression must evaluate to a string",
        ),
        (
            {"rule": "true", "fieldPath": ".nope"},
            f'{ROOT}.{WORD}[0].fieldPath: Invalid value: ".nope": fieldPath must be a valid path: does not refer to a valid field',
        ),
        ({"rule": "true", "message": "a\nb"}, f'{ROOT}.{WORD}[0].message: Invalid value: "a\\nb": message must not contain line breaks'),
        (
            {"rule": "true", "reason": "No"},
            f'{ROOT}.{WORD}[0].reason: Unsupported value: "No": supported values: "FieldValueDuplicate", "FieldValueForbidden", '
            '"FieldValueInvalid", "FieldValueRequired"',
        ),
    ],
)
def test_rules_that_are_refused(rule: Tree, wanted: str) -> None:
    assert refused({"type": "object", "properties": {"n": {"type": "integer"}}, WORD: [rule]}) == [wanted]


def test_elements_that_cannot_be_told_apart_have_no_state_before() -> None:
    items = {"type": "object", "properties": {"n": {"type": "integer", WORD: [{"rule": "self == oldSelf"}]}}}
    [error] = refused({"type": "object", "properties": {"l": {"type": "array", "items": items}}})
    assert error.endswith(f"oldSelf cannot be used on the uncorrelatable portion of the schema within {ROOT}.properties[l]")


# Bad input -----------------------------------------------------------------------------------------------------------------

_JSON = st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text("ab", max_size=3), lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["n", "s", "l", "m", "f", "z"]), below, max_size=4), max_leaves=12)  # fmt: skip
_LEAVES = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "number", "boolean"])},
    optional={"nullable": st.booleans(), "minimum": st.integers(-2, 2), "maxLength": st.integers(0, 3), "pattern": st.just("^a*$")},
)
_SCHEMAS = st.recursive(
    _LEAVES | st.just({"x-kubernetes-int-or-string": True}) | st.just({"x-kubernetes-preserve-unknown-fields": True}),
    lambda below: (
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from(["n", "s", "l", "m"]), below, max_size=3)}
        )
        | st.fixed_dictionaries({"type": st.just("array"), "items": below}, optional={"maxItems": st.integers(0, 2)})
        | st.fixed_dictionaries({"type": st.just("object"), "additionalProperties": below})
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(_SCHEMAS, _JSON)
def test_any_value_is_taken_or_refused(field: Tree, value: Any) -> None:
    """Whatever is written, it is judged; what is taken stays as it is when it is written again."""
    row = kind({"type": "object", "properties": {"f": field}})
    tree = {"apiVersion": "example.com/v1", "kind": "Gate", "metadata": {"name": "a", "namespace": "b"}, "spec": {"f": value}}
    assert row.custom is not None
    row.custom.shape(tree)
    row.for_create(tree)
    if row.validate(tree, None):
        return
    again = {**tree, "metadata": dict(tree["metadata"])}
    assert row.custom.shape(again) == []
    assert again == tree
    assert row.validate(again, tree) == []


@settings(deadline=None)
@given(_JSON)
def test_any_schema_is_taken_or_refused(value: Any) -> None:
    """What is no structural schema is refused and breaks nothing."""
    found = {"type": "object", "properties": {"f": {"type": "object", "default": value}}}
    assert isinstance(structural.errors(found, Path("s")) or rules.errors(found, Path("s")), list)
