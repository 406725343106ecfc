"""CEL's comprehensions: what is done with each element of a list or a map. Each step counts, so that none goes on for ever.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#macros
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podwire.apiserver.cel.syntax import Call, SyntaxFault
from podwire.apiserver.cel.types import BOOL, DYN, Type, fits, list_of, map_of
from podwire.apiserver.cel.values import CostExceeded, Fault, no_overload

Frame = list[Any]
Run = Callable[[Frame], Any]
Steps = Callable[[Frame], Any]
Bodies = list[tuple[Type, Run]]


def steps(many: Run, places: list[int]) -> Steps:
    """Give what sets the variables for one element after the other, and counts them."""

    def each(frame: Frame) -> Any:
        values = many(frame)
        kind = type(values)
        if kind is list:
            pairs: Any = enumerate(values)
        elif kind is dict:
            pairs = values.items()
        else:
            raise no_overload()
        for key, value in pairs:
            frame[0] -= 1
            if frame[0] < 0:
                raise CostExceeded
            if len(places) == 2:
                frame[places[0]], frame[places[1]] = key, value
            else:
                frame[places[0]] = value if kind is list else key
            yield frame[places[0]], key

    return each


def _truth(node: Call, body: tuple[Type, Run]) -> Run:
    kind, run = body
    if not fits(BOOL, kind):
        raise SyntaxFault(node.position, f"expected type 'bool' but found '{kind}'")

    def truth(frame: Frame) -> Any:
        value = run(frame)
        if type(value) is not bool:
            raise no_overload()
        return value

    return truth


def _quantified(*, decisive: bool) -> Callable[..., tuple[Type, Run]]:
    """``all`` and ``exists``: what is wrong with one element does not matter when another decides."""

    def make(node: Call, _kind: Type, _items: Type, bodies: Bodies, each: Steps) -> tuple[Type, Run]:
        truth = _truth(node, bodies[0])

        def run(frame: Frame) -> Any:
            fault: Fault | None = None
            for _ in each(frame):
                try:
                    if truth(frame) is decisive:
                        return decisive
                except CostExceeded:
                    raise
                except Fault as raised:
                    fault = raised
            if fault is not None:
                raise fault
            return not decisive

        return BOOL, run

    return make


def _exactly_one(node: Call, _kind: Type, _items: Type, bodies: Bodies, each: Steps) -> tuple[Type, Run]:
    truth = _truth(node, bodies[0])
    return BOOL, lambda frame: sum(truth(frame) for _ in each(frame)) == 1


def _filter(node: Call, kind: Type, items: Type, bodies: Bodies, each: Steps) -> tuple[Type, Run]:
    truth = _truth(node, bodies[0])
    return list_of(items if kind.name == "list" else kind.of[0] if kind.of else DYN), lambda frame: [
        value for value, _ in each(frame) if truth(frame)
    ]


def _mapped(node: Call, _kind: Type, _items: Type, bodies: Bodies, each: Steps) -> tuple[Type, Run]:
    """``map`` and ``transformList``; with a test before, only of what passes it."""
    kind, body = bodies[-1]
    if len(bodies) == 1:
        return list_of(kind), lambda frame: [body(frame) for _ in each(frame)]
    truth = _truth(node, bodies[0])
    return list_of(kind), lambda frame: [body(frame) for _ in each(frame) if truth(frame)]


def _mapped_map(node: Call, kind: Type, _items: Type, bodies: Bodies, each: Steps) -> tuple[Type, Run]:
    result, body = bodies[-1]
    truth = _truth(node, bodies[0]) if len(bodies) == 2 else None
    keys = kind.of[0] if kind.name == "map" else DYN
    return map_of(keys, result), lambda frame: {key: body(frame) for _, key in each(frame) if truth is None or truth(frame)}


def _mapped_entries(node: Call, _kind: Type, _items: Type, bodies: Bodies, each: Steps) -> tuple[Type, Run]:
    result, body = bodies[-1]
    truth = _truth(node, bodies[0]) if len(bodies) == 2 else None

    def run(frame: Frame) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for _ in each(frame):
            if truth is None or truth(frame):
                for key, value in body(frame).items():
                    if key in found:
                        raise Fault(f"insert failed: key {key} already exists")
                    found[key] = value
        return found

    return result if result.name == "map" else map_of(DYN, DYN), run


def _sorted_by(_node: Call, _kind: Type, items: Type, bodies: Bodies, each: Steps) -> tuple[Type, Run]:
    _, body = bodies[0]

    def run(frame: Frame) -> list[Any]:
        keyed = [(body(frame), value) for value, _ in each(frame)]
        try:
            return [value for _, value in sorted(keyed, key=lambda pair: pair[0])]
        except TypeError:
            raise no_overload() from None

    return list_of(items), run


MAKERS: dict[str, Callable[..., tuple[Type, Run]]] = {
    "all": _quantified(decisive=False),
    "exists": _quantified(decisive=True),
    "exists_one": _exactly_one,
    "existsOne": _exactly_one,
    "filter": _filter,
    "map": _mapped,
    "transformList": _mapped,
    "transformMap": _mapped_map,
    "transformMapEntry": _mapped_entries,
    "sortBy": _sorted_by,
}
