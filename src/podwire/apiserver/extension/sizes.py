"""How large the values of a schema may be: what the costs of its rules are estimated by, and what is too much.

Where a schema says nothing, a request is the limit: as many elements as fit into one, none smaller than its schema allows.

Source: https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/cel/common/schemas.go and
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#resource-use-by-validation-functions
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from podwire.apiserver.cel.cost import plus, times
from podwire.apiserver.validation import FieldError, Path, forbidden

Schema = dict[str, Any]
RULE_LIMIT = 10_000_000
TOTAL_LIMIT = 100_000_000
_REQUEST = 3 * 1024 * 1024  # bytes
_TELLING = 4  # expressions that are named where all together are too much
_LENGTHS = {"duration": 32, "date": 12, "date-time": 32}
_SHORTEST = {"duration": 3, "date": 12, "date-time": 21}
_SMALLEST = {"boolean": 4, "integer": 1, "number": 1, "string": 2, "array": 2}
_ADVICE = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"


def text_length(schema: Schema) -> int:
    """Give how many bytes a text has at most."""
    if "maxLength" in schema:
        return max(0, int(schema["maxLength"])) * (1 if schema.get("format") == "byte" else 4)
    values = schema.get("enum")
    if values and not schema.get("x-kubernetes-int-or-string"):
        return max((len(one.encode()) for one in values if isinstance(one, str)), default=0)
    return _LENGTHS.get(schema.get("format", ""), _REQUEST - 2)


def item_count(schema: Schema) -> int:
    """Give how many elements a list has at most."""
    if "maxItems" in schema:
        return max(0, int(schema["maxItems"]))
    return (_REQUEST - 2) // (_smallest(schema.get("items", {})) + 1)


def entry_count(schema: Schema) -> int:
    """Give how many entries a map has at most."""
    if "maxProperties" in schema:
        return max(0, int(schema["maxProperties"]))
    values = schema.get("additionalProperties")
    return (_REQUEST - 2) // (_smallest(values if isinstance(values, dict) else {}) + 6)


def _smallest(schema: Schema) -> int:
    """Give how many bytes a value has at least when it is written down."""
    if schema.get("x-kubernetes-int-or-string"):
        return 1
    kind = schema.get("type", "")
    if kind == "string":
        return _SHORTEST.get(schema.get("format", ""), 2)
    if kind != "object" or isinstance(schema.get("additionalProperties"), dict):
        return _SMALLEST.get(kind, 2)
    fields = schema.get("properties", {})
    needed = [name for name in schema.get("required", ()) if name in fields and fields[name].get("default") is None]
    return 2 + sum(len(name) + _smallest(fields[name]) + 4 for name in needed)


def below(schema: Schema, times_there: int | None) -> int | None:
    """Give how often a value below one may be there, None for without limit. ``times_there``: how often the one may be."""
    most: int | None = 1
    if schema.get("type") == "array":
        most = schema.get("maxItems")
    elif isinstance(schema.get("additionalProperties"), dict):
        most = schema.get("maxProperties")
    return None if times_there is None or most is None else times(times_there, max(0, int(most)))


@dataclass
class Budget:
    """What the expressions of one schema cost together, and which of them cost most."""

    total: int = 0
    dear: list[tuple[int, Path]] = field(default_factory=list)

    def spend(self, cost: int, schema: Schema, times_there: int | None) -> int:
        """Give what a rule costs with all values that it may be put to."""
        return times(cost, _REQUEST // (_smallest(schema) + 1) if times_there is None else times_there)

    def note(self, what: str, cost: int, path: Path) -> list[FieldError]:
        """Count an expression; refuse one that alone costs too much."""
        self.total = plus(self.total, cost)
        if cost >= TOTAL_LIMIT // 100:
            self.dear = sorted([*self.dear, (cost, path)], key=lambda one: -one[0])[:_TELLING]
        return [forbidden(path, _exceeds(f"estimated {what} cost", cost, RULE_LIMIT))] if cost > RULE_LIMIT else []

    def errors(self, path: Path) -> list[FieldError]:
        """Refuse a schema whose expressions cost too much together."""
        if self.total <= TOTAL_LIMIT:
            return []
        text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        return [*(forbidden(where, text) for _, where in self.dear), forbidden(path, _exceeds(what, self.total, TOTAL_LIMIT))]


def _exceeds(what: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return f"{what} exceeds budget by factor of {shown} {_ADVICE}"
