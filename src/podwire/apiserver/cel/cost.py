"""What an expression may cost at most, told from its text and from how large its variables may be.

The numbers are part of the API: which definitions a server takes depends on them, so they are those of cel-go's estimator and of the
functions that Kubernetes adds, whether or not evaluating costs the same here. A name or a field costs 1, a call 1 or what its arguments'
sizes ask for, a comprehension its body for each element. What has no known size has the largest.

Source: https://github.com/google/cel-go/blob/master/checker/cost.go and
https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/cel/library/cost.go
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from podwire.apiserver.cel.check import Checked, check_text
from podwire.apiserver.cel.syntax import Call, ListOf, Literal, MapOf, Name, Node, Select, StructOf
from podwire.apiserver.cel.types import Type

MOST = (1 << 64) - 1
Size = tuple[int, int]  # at least, at most
_UNKNOWN: Size = (0, MOST)
_ONE: Size = (1, 1)
_TRAVERSAL, _PATTERN = 0.1, 0.25  # of a character of a text, of a regular expression
_LIST, _MAP, _STRUCT = 10, 30, 40  # what making one costs
_SCALARS = frozenset(("bool", "double", "duration", "int", "timestamp", "uint"))
_TEXTS = frozenset(("string", "bytes"))
_CHEAP = (  # of addresses and quantities, whatever their size
    *("masked", "prefixLength", "family", "isUnspecified", "isLoopback", "isLinkLocalMulticast", "isLinkLocalUnicast"),
    *("sign", "asInteger", "isInteger", "asApproximateFloat", "isGreaterThan", "isLessThan", "compareTo", "add", "sub"),
)
_ADDRESS = 16  # bytes


def estimate(text: str, variables: Mapping[str, Type]) -> int:
    """Give what an expression that compiles costs at most; ``MOST`` for what has no end. Raises Rejected."""
    checked = check_text(text, variables)
    return _Estimate(checked).cost(checked.node)


def plus(*amounts: int) -> int:
    """Add amounts that have an end."""
    return min(MOST, sum(amounts))


def times(one: int, other: int) -> int:
    """Multiply amounts that have an end."""
    return min(MOST, one * other)


def _scaled(amount: int, factor: float) -> int:
    return MOST if amount >= MOST else min(MOST, math.ceil(amount * factor))


def _sum(one: Size, other: Size) -> Size:
    return plus(one[0], other[0]), plus(one[1], other[1])


def _either(one: Size, other: Size) -> Size:
    return min(one[0], other[0]), max(one[1], other[1])


class _Estimate:
    """The costs of the parts of one expression, and the sizes of what they give."""

    def __init__(self, checked: Checked) -> None:
        self._types = checked.types
        self._overloads = checked.overloads
        self._sizes: dict[int, Size] = {}
        self._locals: dict[str, Size] = {}

    def cost(self, node: Node) -> int:
        """Give what a part costs."""
        match node:
            case Literal():
                return 0
            case Name():
                return 1
            case Select():
                kind = self._types[id(node.operand)]
                return plus(self.cost(node.operand), int(kind.name == "map" or kind.fields is not None or node.optional))
            case ListOf():
                return plus(_LIST, *map(self.cost, node.items))
            case MapOf():
                return plus(_MAP, *(self.cost(part) for key, value, _ in node.entries for part in (key, value)))
            case StructOf():
                return plus(_STRUCT, *(self.cost(value) for _, value, _ in node.fields))
        if id(node) in self._overloads:
            return self._function(node)
        return self._form(node)

    # Sizes

    def _size(self, node: Node) -> Size:
        """Give how large a value is. What a schema describes is as large as it says; what a function makes, as its rule says."""
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        match node:
            case Literal():
                length = len(node.value) if isinstance(node.value, str | bytes) else 1
                return length, length
            case ListOf():
                return len(node.items), len(node.items)
            case MapOf():
                return len(node.entries), len(node.entries)
            case Name() if node.name in self._locals:
                return self._locals[node.name]
        kind = self._types[id(node)]
        if kind.most is not None and (not isinstance(node, Call) or node.function == "_[_]"):
            return 0, kind.most
        return self._of_type(kind)

    @staticmethod
    def _of_type(kind: Type) -> Size:
        if kind.name == "optional_type" and kind.of:
            kind = kind.of[0]
        return _ONE if kind.name in _SCALARS else _UNKNOWN

    def _element(self, node: Node) -> tuple[Type, Size] | None:
        """Give the type and the size of a list's elements; None for what is no list."""
        kind = self._types[id(node)]
        if kind.name != "list" or not kind.of:
            return None
        inner = kind.of[0]
        return inner, (0, inner.most) if inner.most is not None else self._of_type(inner)

    # Functions

    def _function(self, node: Call) -> int:
        arguments = node.arguments
        spent = plus(*map(self.cost, arguments), *([self.cost(node.target)] if node.target is not None else []))
        if node.function == "dyn":
            self._sizes[id(node)] = self._size(arguments[0])
            return plus(1, spent)
        rule = _RULES.get(node.function)
        own = rule(self, node, arguments) if rule is not None else None
        return plus(spent, 1 if own is None else own)

    def _kinds(self, node: Call, place: int) -> set[str]:
        """Name the types that an argument has in the overloads that fit."""
        return {one.takes[place].name for one in self._overloads[id(node)]}

    def _compared(self, node: Call, arguments: Sequence[Node]) -> int | None:
        if node.function not in ("_==_", "_!=_") and not self._kinds(node, 0) & _TEXTS:
            return None
        return _scaled(min(self._size(arguments[0])[1], self._size(arguments[1])[1]), _TRAVERSAL)

    def _added(self, node: Call, arguments: Sequence[Node]) -> int | None:
        kinds = self._kinds(node, 0)
        if not kinds & {*_TEXTS, "list"}:
            return None
        size = self._sizes[id(node)] = _sum(self._size(arguments[0]), self._size(arguments[1]))
        return _scaled(size[1], _TRAVERSAL) if kinds & _TEXTS else 1

    def _contained(self, node: Call, arguments: Sequence[Node]) -> int | None:
        return self._size(arguments[1])[1] if "list" in self._kinds(node, 1) else None

    def _traversed(self, _node: Call, arguments: Sequence[Node]) -> int:
        return _scaled(self._size(arguments[0])[1], _TRAVERSAL)

    def _traversed_twice(self, _node: Call, arguments: Sequence[Node]) -> int:
        return _scaled(self._size(arguments[0])[1], 2 * _TRAVERSAL)

    def _printed(self, node: Call, arguments: Sequence[Node]) -> int | None:
        """``string(bytes)`` and ``bytes(string)``."""
        kind, (least, most) = self._types[id(arguments[0])].name, self._size(arguments[0])
        if (node.function, kind) not in (("string", "bytes"), ("bytes", "string")):
            return None
        self._sizes[id(node)] = (least // 4, most) if node.function == "string" else (least, times(most, 4))
        return _scaled(most, _TRAVERSAL)

    def _matched(self, node: Call, arguments: Sequence[Node]) -> int | None:
        if node.target is None:
            return None
        most = self._size(node.target)[1]
        if node.function != "matches":
            self._sizes[id(node)] = (0, most)
        return times(_scaled(plus(most, 1), _TRAVERSAL), _scaled(self._size(arguments[0])[1], _PATTERN))

    def _found(self, node: Call, arguments: Sequence[Node]) -> int | None:
        if node.target is None:
            return None
        return times(_scaled(self._size(node.target)[1], _TRAVERSAL), _scaled(self._size(arguments[0])[1], _TRAVERSAL))

    def _folded(self, node: Call, _arguments: Sequence[Node]) -> int | None:
        """``sum``, ``min`` and what else looks at each element, or at each character."""
        if node.target is None:
            return None
        most, element = self._size(node.target)[1], self._element(node.target)
        if element is None:
            return _scaled(most, _TRAVERSAL)
        kind, size = element
        return times(most, plus(1, _scaled(size[1], _TRAVERSAL) if kind.name in _TEXTS else 0))

    def _rewritten(self, node: Call, _arguments: Sequence[Node]) -> int | None:
        if node.target is None:
            return None
        self._sizes[id(node)] = self._size(node.target)
        return _scaled(self._size(node.target)[1], _TRAVERSAL)

    def _formatted(self, node: Call, _arguments: Sequence[Node]) -> int | None:
        return None if node.target is None else _scaled(self._size(node.target)[1], _TRAVERSAL)

    def _replaced(self, node: Call, arguments: Sequence[Node]) -> int | None:
        if node.target is None:
            return None
        size, old, new = self._size(node.target), self._size(arguments[0]), self._size(arguments[1])
        if old[0] == 0:
            most = plus(times(plus(size[1], 1), new[1]), size[1])
        elif new[1] <= old[0]:
            most = size[1]
        else:
            most = times(_scaled(size[1], 1 / old[0]), new[1])
        self._sizes[id(node)] = (0, most)
        return _scaled(size[1], 2 * _TRAVERSAL)

    def _split(self, node: Call, arguments: Sequence[Node]) -> int | None:
        if node.target is None:
            return None
        most = self._size(node.target)[1]
        count = arguments[1].value if len(arguments) > 1 and isinstance(arguments[1], Literal) else most
        self._sizes[id(node)] = (0, count if isinstance(count, int) and count >= 0 else most)
        return _scaled(most, 2 * _TRAVERSAL)

    def _joined(self, node: Call, arguments: Sequence[Node]) -> int | None:
        if node.target is None:
            return None
        most, element = self._size(node.target)[1], self._element(node.target)
        total = times(most, element[1][1]) if element is not None else 0
        if arguments:
            total = plus(total, times(self._size(arguments[0])[1], max(0, most - 1)))
        self._sizes[id(node)] = (0, total)
        return _scaled(total, _TRAVERSAL)

    def _in_network(self, node: Call, arguments: Sequence[Node]) -> int | None:
        if node.target is None:
            return None
        own = _scaled(2 * _ADDRESS, _TRAVERSAL) + (_scaled(_ADDRESS, _TRAVERSAL) + 1 if node.function == "containsCIDR" else 0)
        return plus(own, _scaled(self._size(arguments[0])[1], _TRAVERSAL) if "string" in self._kinds(node, 1) else 0)

    def _address(self, node: Call, arguments: Sequence[Node]) -> int:
        return 1 if node.target is not None else self._traversed(node, arguments)

    # Operators that choose, macros

    def _form(self, node: Call) -> int:
        name, arguments = node.function, node.arguments
        if name in ("_&&_", "_||_"):
            return plus(*map(self.cost, arguments))
        if name == "_?_:_":
            spent = plus(self.cost(arguments[0]), max(self.cost(arguments[1]), self.cost(arguments[2])))
            self._sizes[id(node)] = _either(self._size(arguments[1]), self._size(arguments[2]))
            return spent
        if name == "has":
            select = arguments[0]
            assert isinstance(select, Select)
            return self.cost(select.operand)
        assert node.target is not None
        if name == "bind":
            return self._bound(node)
        if name in ("optMap", "optFlatMap"):
            # hasValue() ? optional.of(bind(value(), body)) : none()
            return plus(2 * self.cost(node.target) + 3 + _LIST, self._within(arguments[:1], [_UNKNOWN], arguments[1:]))
        return self._comprehension(node)

    def _bound(self, node: Call) -> int:
        name, value, body = node.arguments
        spent = plus(_LIST, self.cost(value))
        spent = plus(spent, self._within((name,), [self._size(value)], (body,)))
        self._sizes[id(node)] = self._size(body)
        return spent

    def _within(self, names: Sequence[Node], sizes: Sequence[Size | None], bodies: Sequence[Node]) -> int:
        """Give what bodies cost, in which names have these sizes; None: what their types say."""
        before = dict(self._locals)
        for name, size in zip(names, sizes, strict=True):
            assert isinstance(name, Name)
            self._locals.pop(name.name, None)
            if size is not None:
                self._locals[name.name] = size
        spent = plus(*map(self.cost, bodies))
        self._locals = before
        return spent

    def _comprehension(self, node: Call) -> int:
        assert node.target is not None
        count = 2 if node.function.startswith("transform") or (node.function in _QUANTIFIED and len(node.arguments) == 3) else 1
        names, bodies = node.arguments[:count], node.arguments[count:]
        made, step = _STEPS[node.function]
        spent = plus(self.cost(node.target), made, 2 if node.function in ("exists_one", "existsOne") else 1)
        each = plus(step, self._within(names, [None] * count, bodies))
        size = self._size(node.target)
        if node.function not in _QUANTIFIED:
            self._sizes[id(node)] = size
        return plus(spent, times(size[1], each))


_QUANTIFIED = ("all", "exists", "exists_one", "existsOne")
# What it costs to begin with, and each step beside its body: looking whether to go on, and adding to what there is.
_STEPS = {
    "all": (0, 3),
    "exists": (0, 4),
    "exists_one": (0, 2),
    "existsOne": (0, 2),
    "filter": (_LIST, _LIST + 3),
    "map": (_LIST, _LIST + 2),
    "sortBy": (_LIST, _LIST + 2),
    "transformList": (_LIST, _LIST + 2),
    "transformMap": (_MAP, 3),
    "transformMapEntry": (_MAP, 2),
}
_Rule = Callable[[_Estimate, Call, Sequence[Node]], "int | None"]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"), _Estimate._compared),
    "_+_": _Estimate._added,
    "@in": _Estimate._contained,
    "string": _Estimate._printed,
    "bytes": _Estimate._printed,
    **dict.fromkeys(("startsWith", "endsWith", "url", "isURL", "cidr", "isIP", "isCIDR", "quantity", "isQuantity"), _Estimate._traversed),
    "ip": _Estimate._address,
    "ip.isCanonical": _Estimate._traversed_twice,
    **dict.fromkeys(("matches", "find", "findAll"), _Estimate._matched),
    "contains": _Estimate._found,
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _Estimate._folded),
    **dict.fromkeys(("lowerAscii", "upperAscii", "substring", "trim"), _Estimate._rewritten),
    "format": _Estimate._formatted,
    "replace": _Estimate._replaced,
    "split": _Estimate._split,
    "join": _Estimate._joined,
    **dict.fromkeys(("containsIP", "containsCIDR"), _Estimate._in_network),
    **dict.fromkeys(_CHEAP, lambda *_: 1),
}
