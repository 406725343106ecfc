"""JSON paths as a definition writes them: for printed columns, selectable fields, Scale.

    .spec.replicas   .spec.ports[0].name   .metadata.labels['app\\.kubernetes\\.io/name']   .status.conditions[?(@.type=="Ready")].status

The simple form alone is a chain of fields. Source: https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_STEP = re.compile(
    r"""\.(?P<name>(?:[^.\[\]\\]|\\.)+)
      | \[\s*'(?P<quoted>(?:[^'\\]|\\.)*)'\s*\]
      | \[\s*"(?P<double>(?:[^"\\]|\\.)*)"\s*\]
      | \[\s*(?P<index>-?\d+)\s*\]
      | \[(?P<all>\*)\]
      | \[\?\(\s*@(?P<field>[^=!<>\s]+)\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<literal>"[^"]*"|'[^']*'|[^\s)]+)\s*\)\]""",
    re.VERBOSE,
)
_SIMPLE = re.compile(r"(\.[A-Za-z0-9_-]+|\.?\['[^']+'\])+")

Step = Callable[[Any], Iterable[Any]]


def find(path: str) -> Callable[[Any], Iterator[Any]]:
    """Compile a path; what comes of it yields the values there. Raises ValueError."""
    steps = list(_steps(path))

    def values(tree: Any) -> Iterator[Any]:
        found: list[Any] = [tree]
        for step in steps:
            found = [below for one in found for below in step(one)]
        yield from found

    return values


def fields(path: str) -> tuple[str, ...]:
    """Read a path that is a chain of fields. Raises ValueError."""
    if not _SIMPLE.fullmatch(path):
        raise ValueError("should be a json path under .spec")
    return tuple(match["name"] or match["quoted"] for match in _STEP.finditer(path))


def _steps(path: str) -> Iterator[Step]:
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ValueError(f"unrecognized character in action: {path[position:]}")
        yield _step(match)
        position = match.end()


def _step(match: re.Match[str]) -> Step:
    for form in ("name", "quoted", "double"):
        if match[form] is not None:
            return _field(re.sub(r"\\(.)", r"\1", match[form]))
    if match["index"] is not None:
        return _index(int(match["index"]))
    if match["all"]:
        return lambda value: value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return _filter(match["field"], match["operator"], match["literal"])


def _field(name: str) -> Step:
    if name == "*":
        return lambda value: value.values() if isinstance(value, dict) else ()
    return lambda value: (value[name],) if isinstance(value, dict) and name in value else ()


def _index(index: int) -> Step:
    return lambda value: (value[index],) if isinstance(value, list) and -len(value) <= index < len(value) else ()


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    ">": lambda a, b: bool(a > b),
    "<=": lambda a, b: bool(a <= b),
    ">=": lambda a, b: bool(a >= b),
}


def _filter(path: str, operator: str, literal: str) -> Step:
    below, compare = find(path), _COMPARE[operator]
    wanted: Any = literal[1:-1] if literal[0] in "\"'" else {"true": True, "false": False}.get(literal, literal)
    if isinstance(wanted, str) and literal[0] not in "\"'":
        try:
            wanted = float(literal)
        except ValueError:
            raise ValueError(f"unrecognized character in action: {literal}") from None

    def chosen(value: Any) -> Iterator[Any]:
        for one in value if isinstance(value, list) else ():
            for found in below(one):
                if isinstance(found, str) == isinstance(wanted, str) and compare(found, wanted):
                    yield one

    return chosen
