"""What expressions may cost at most: the figures are upstream's, since they decide which definitions a server takes."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.cel import types
from podwire.apiserver.cel.cost import MOST, estimate
from podwire.apiserver.extension import rules
from podwire.apiserver.extension.rules import WORD, schema_type
from podwire.apiserver.validation import Path

Schema = dict[str, Any]
TEXT, NUMBER, TRUTH, EITHER = {"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"x-kubernetes-int-or-string": True}
THING = {"type": "object", "required": ["required"], "properties": {"required": TEXT, "optional": TEXT}}


def many(item: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": item} | ({} if most is None else {"maxItems": most})


def named(value: Schema, most: int | None = None) -> Schema:
    return {"type": "object", "additionalProperties": value} | ({} if most is None else {"maxProperties": most})


def text(most: int | None = None, **more: Any) -> Schema:
    return TEXT | more | ({} if most is None else {"maxLength": most})


@pytest.mark.parametrize(
    ("schema", "rule", "cost"),
    [
        # Source: TestCostEstimation in apiextensions-apiserver/pkg/apiserver/schema/cel/compilation_test.go
        (many(NUMBER), "self.all(x, true)", 4718591),
        (many(NUMBER, 10), "self.all(x, true)", 32),
        (many(TEXT), "self.all(x, true)", 3145727),
        (many(TEXT, 20), "self.all(x, true)", 62),
        (many(TRUTH), "self.all(x, true)", 1887437),
        (many(many(NUMBER)), "self.all(x, true)", 3145727),
        (many(THING), "self.all(x, true)", 555128),
        (named(NUMBER), "self.all(x, true)", 1348169),
        (named(TEXT), "self.all(x, true)", 1179647),
        (named(TEXT, 3), "self.all(x, true)", 11),
        (named(TRUTH), "self.all(x, true)", 943718),
        (text(), "self.contains('test')", 314574),
        (text(10), "self.contains('test')", 5),
        (text(), "self.startsWith('test')", 2),
        (text(), 'size(self + "hello") > size("hello")', 314578),
        (text(4), 'size(self + "hello") > size("hello")', 7),
        (many(NUMBER), "self[1] == 0.0", 2),
        (many(TEXT, 8), "self[1] == self[1]", 314577),
        (many(NUMBER, 10), "self.all(x, self.all(y, true))", 352),
        (many(NUMBER, 10), "self.all(x, self.all(y, self.all(z, true)))", 3552),
        (text(), 'self.matches("x")', 314574),
        (text(50), 'self.matches("x")', 22),
        (text(), '"".matches("(((((((((())))))))))[0-9]")', 7),
        (text(), 'self.matches("")', 1),
        (named(TEXT), "self.all(x, x.contains(self[x]))", 2752507),
        (named(text(10), 10), "self.all(x, x.contains(self[x]))", 72),
        (named(NUMBER), 'self["x"] == 0.0', 2),
        (text(), 'self == "x"', 2),
        (text(0), 'self == "x"', 1),
        (text(format="byte"), 'self == b"x"', 2),
        (many(NUMBER), "self.all(x, x == 0.0)", 6291454),
        (many(NUMBER, 3 * 1024 * 2048), "self.all(x, x == 0.0)", 25165826),
        (many(named(THING)), 'self.all(x, x["y"].required == "z")', 7340027),
        (many(named(THING), 10), 'self.all(x, x["y"].required == "z")', 72),
        (many(EITHER), "self.all(x, true)", 4718591),
        (many(EITHER), "self[0] == 5", 3),
        (many(TRUTH), "self[0] == false", 2),
    ],
)
def test_the_figures_of_upstream(schema: Schema, rule: str, cost: int) -> None:
    assert estimate(rule, {"self": schema_type(schema)}) == cost


def test_what_has_no_end() -> None:
    assert estimate("self.all(x, self.all(y, true))", {"self": schema_type(many(NUMBER))}) > 10_000_000
    assert estimate("'a' + string(self)", {"self": types.INT}) > 1 << 50  # a number may be printed at any length
    assert estimate("self.map(x, self.map(y, self)).size() > 0", {"self": types.LIST}) == MOST


@pytest.mark.parametrize(("longest", "most"), [(16, 909_090), (63, 333_333), (253, 94_339), (1024, 24_154)])
def test_where_the_limit_is(longest: int, most: int) -> None:
    """The largest lists that upstream takes with this rule, as somebody measured."""

    def refused(count: int) -> list[str]:
        schema = many(text(longest), count) | {WORD: [{"rule": "self.all(x, x.contains('gpu'))"}]}
        return [str(error) for error in rules.errors(schema, Path("schema"))]

    assert refused(most) == []
    over = refused(most + 1)
    advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    assert len(over) == 1
    assert over[0].startswith(f"schema.{WORD}[0].rule: Forbidden: estimated rule cost exceeds budget by factor of 1.0")
    assert over[0].endswith(f"x {advice}")


def test_all_together() -> None:
    rule = {WORD: [{"rule": "self.all(x, x.contains('gpu'))", "messageExpression": "'no: ' + string(self.size())"}]}
    found = [str(error) for error in rules.errors(many(TEXT) | rule, Path("schema"))]
    advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    much, first = f"exceeds budget by factor of more than 100x {advice}", f"schema.{WORD}[0]"
    share = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    assert found == [
        f"{first}.rule: Forbidden: estimated rule cost {much}",
        f"{first}.messageExpression: Forbidden: estimated messageExpression cost {much}",
        f"{first}.messageExpression: Forbidden: {share}",
        f"{first}.rule: Forbidden: {share}",
        f"schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema {much}",
    ]


def test_a_rule_counts_for_each_value_that_it_is_put_to() -> None:
    item = text(1000) | {WORD: [{"rule": "self.contains('a')"}]}  # 400 and a little each
    few = {"type": "object", "properties": {"a": many(item, 20_000)}}
    assert rules.errors(few, Path("schema")) == []
    assert "by factor of 1.6x" in str(rules.errors({"type": "object", "properties": {"a": many(item, 40_000)}}, Path("schema"))[0])
    endless = {"type": "object", "properties": {"a": many(item)}}
    assert "by factor of 42.0x" in str(rules.errors(endless, Path("schema"))[0])
