"""CEL checked and compiled: a tree with types becomes a closure over a frame of values.

A frame is a list: what may still be spent, then the variables. Each name has its place in it from the start, so that evaluating is
calling closures and nothing is looked up by name. What is wrong with types is found here; where types are not known (``dyn``), functions
find it when they are called.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podwire.apiserver.cel import comprehensions, functions, libraries, syntax
from podwire.apiserver.cel.comprehensions import Frame, Run
from podwire.apiserver.cel.fields import field_of_other, optional_field, reader, unescaped
from podwire.apiserver.cel.functions import FUNCTIONS, Overload
from podwire.apiserver.cel.syntax import Call, ListOf, Literal, MapOf, Name, Node, Select, StructOf, SyntaxFault
from podwire.apiserver.cel.types import (
    BOOL,
    DURATION,
    DYN,
    NAMES,
    STRING,
    TIMESTAMP,
    TYPE,
    Type,
    fits,
    joined,
    list_of,
    map_of,
    optional_of,
)
from podwire.apiserver.cel.types import INT as INTEGER
from podwire.apiserver.cel.values import NONE, CostExceeded, Fault, Made, Optional, Uint, no_overload

PER_CALL_LIMIT = 1_000_000  # of one expression, in units of work: as upstream
_LITERALS = {one.name: one for one in NAMES.values()}
_NAMED_TYPES = {
    **NAMES,
    "google.protobuf.Timestamp": TIMESTAMP,
    "google.protobuf.Duration": DURATION,
    "list": Type("list"),
    "map": Type("map"),
}
assert libraries  # it has put its functions into the table


Structs = Callable[[str], Type | None]
_OF_PATCHES = ("jsonpatch.escapeKey",)  # functions for those who make patches alone


def no_structs(_name: str) -> Type | None:
    """Know no types of objects to make."""
    return None


class Rejected(Exception):
    """An expression that does not compile. The text is the whole message, with the place pointed out."""


@dataclass(frozen=True)
class Program:
    """A compiled expression. ``uses`` are the variables that it names."""

    type: Type
    uses: frozenset[str]
    _names: tuple[str, ...]
    _size: int
    _run: Run

    def evaluate(self, values: Mapping[str, Any], budget: int = PER_CALL_LIMIT) -> tuple[Any, int]:
        """Give the value, and what it cost. Raises Fault; CostExceeded when it would cost more than the budget."""
        frame: Frame = [None] * self._size
        frame[0] = limit = min(budget, PER_CALL_LIMIT)
        for place, name in enumerate(self._names, 1):
            frame[place] = values.get(name)
        try:
            value = self._run(frame)
        except RecursionError:
            raise Fault("expression recursion limit exceeded") from None
        return value, limit - frame[0] + 1


@dataclass(frozen=True)
class Checked:
    """An expression with what was found out about its parts, by the ``id`` of their nodes: types, and the overloads that fit."""

    node: Node
    types: Mapping[int, Type]
    overloads: Mapping[int, Sequence[Overload]]


def check_text(text: str, variables: Mapping[str, Type]) -> Checked:
    """Check an expression that compiles. Raises Rejected."""
    compiler = _Compiler(variables, no_structs)
    try:
        node = syntax.parse(text)
        compiler.node(node)
    except SyntaxFault as fault:
        raise Rejected(_pointed(text, fault)) from None
    return Checked(node, compiler.types, compiler.overloads)


def compile_text(text: str, variables: Mapping[str, Type], wanted: Type | None = None, structs: Structs = no_structs) -> Program:
    """Compile an expression over variables of known types. ``structs`` gives the types of objects that it may make. Raises Rejected."""
    try:
        compiler = _Compiler(variables, structs)
        kind, run = compiler.node(syntax.parse(text))
    except SyntaxFault as fault:
        raise Rejected(_pointed(text, fault)) from None
    except RecursionError:
        raise Rejected(f"ERROR: <input>:-1:0: expression recursion limit exceeded: {syntax.LIMIT}") from None
    if wanted is not None and not fits(wanted, kind):
        raise Rejected(f"must evaluate to {wanted} but got {kind}")
    return Program(kind, frozenset(compiler.uses), tuple(variables), compiler.size, run)


def _pointed(text: str, fault: SyntaxFault) -> str:
    before = text[: fault.position]
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1)
    shown = text.split("\n")[line - 1]
    return f"ERROR: <input>:{line}:{column + 1}: {fault.message}\n | {shown}\n | {'.' * column}^"


# Compiling ---------------------------------------------------------------------------------------------------------------

# How many arguments each takes at least, the names of its variables among them.
_MACROS = {
    **dict.fromkeys(("all", "exists", "exists_one", "existsOne", "map", "filter", "sortBy", "optMap", "optFlatMap"), 2),
    **dict.fromkeys(("transformList", "transformMap", "transformMapEntry"), 3),
}
_TWO_VARIABLES = ("all", "exists", "exists_one", "existsOne")


class _Compiler:
    """One expression. ``scope`` knows each name's place and type."""

    def __init__(self, variables: Mapping[str, Type], structs: Structs) -> None:
        self._structs = structs
        self.scope = {name: (place, kind) for place, (name, kind) in enumerate(variables.items(), 1)}
        self._given = frozenset(variables)
        self.size = len(variables) + 1
        self.uses: set[str] = set()
        self.types: dict[int, Type] = {}
        self.overloads: dict[int, list[Overload]] = {}

    def node(self, node: Node) -> tuple[Type, Run]:
        kind, run = self._node(node)
        self.types[id(node)] = kind
        return kind, run

    def _node(self, node: Node) -> tuple[Type, Run]:
        match node:
            case Literal():
                value = Uint(node.value) if node.kind == "uint" else node.value
                return _LITERALS[node.kind], lambda _frame: value
            case Name():
                return self._name(node)
            case Select():
                return self._select(node)
            case ListOf():
                return self._list(node)
            case MapOf():
                return self._map(node)
            case StructOf():
                return self._struct(node)
        return self._call(node)

    def _name(self, node: Name) -> tuple[Type, Run]:
        found = self.scope.get(node.name)
        if found is None:
            named = _NAMED_TYPES.get(node.name)
            if named is None:
                raise SyntaxFault(node.position, f"undeclared reference to '{node.name}' (in container '')")
            return TYPE, lambda _frame: named
        place, kind = found
        if node.name in self._given and place <= len(self._given):
            self.uses.add(node.name)
        read = reader(kind)
        if read is None:
            return kind, lambda frame: frame[place]
        return kind, lambda frame: read(frame[place])

    # Fields

    def _select(self, node: Select) -> tuple[Type, Run]:
        if isinstance(node.operand, Name):
            whole = f"{node.operand.name}.{node.field}"
            if whole in self._given and not node.optional and self.scope.get(node.operand.name, (0,))[0] <= len(self._given):
                return self._name(Name(node.position, whole))
            named = _NAMED_TYPES.get(whole) if node.operand.name not in self.scope else None
            if named is not None:
                return TYPE, lambda _frame: named
        kind, operand = self.node(node.operand)
        found, field = self._field(node, kind)
        read = reader(found)
        if node.optional or kind.name == "optional_type":
            return optional_of(found), optional_field(operand, field, read)

        def run(frame: Frame) -> Any:
            value = operand(frame)
            if type(value) is not dict:
                return field_of_other(value, field)
            try:
                return value[field] if read is None else read(value[field])
            except KeyError:
                raise Fault(f"no such key: {field}") from None

        return found, run

    def _field(self, node: Select, kind: Type) -> tuple[Type, str]:
        if kind.name == "optional_type":
            kind = kind.of[0]
        if kind.fields is not None:
            found = kind.fields.get(node.field)
            if found is None:
                raise SyntaxFault(node.position, f"undefined field '{node.field}'")
            return found, unescaped(node.field)
        if kind.name == "map":
            return kind.of[1], node.field
        if kind.name in ("dyn", "type"):
            return DYN, node.field
        raise SyntaxFault(node.position, f"type '{kind}' does not support field selection")

    def _has(self, node: Call) -> tuple[Type, Run]:
        if len(node.arguments) != 1 or not isinstance(node.arguments[0], Select):
            raise SyntaxFault(node.position, "invalid argument to has() macro")
        select = node.arguments[0]
        kind, operand = self.node(select.operand)
        _, field = self._field(select, kind)

        def run(frame: Frame) -> bool:
            value = operand(frame)
            if type(value) is Optional:
                value = value.value if value.there else {}
            if type(value) is not dict:
                raise no_overload()
            return field in value

        return BOOL, run

    # Lists and maps

    def _list(self, node: ListOf) -> tuple[Type, Run]:
        made = [self.node(item) for item in node.items]
        kinds = [kind.of[0] if optional and kind.of else kind for (kind, _), optional in zip(made, node.optional, strict=True)]
        kind = _all_joined(kinds)
        runs = [run for _, run in made]
        if not any(node.optional):
            return list_of(kind), lambda frame: [run(frame) for run in runs]
        marked = list(zip(runs, node.optional, strict=True))

        def run_all(frame: Frame) -> list[Any]:
            values = ((run(frame), optional) for run, optional in marked)
            return [value.value if optional else value for value, optional in values if not optional or value.there]

        return list_of(kind), run_all

    def _map(self, node: MapOf) -> tuple[Type, Run]:
        made = [(self.node(key), self.node(value), optional) for key, value, optional in node.entries]
        key_type = _all_joined([key[0] for key, _, _ in made])
        value_type = _all_joined([value[0].of[0] if optional and value[0].of else value[0] for _, value, optional in made])

        def run(frame: Frame) -> dict[Any, Any]:
            found: dict[Any, Any] = {}
            for (_, key), (_, value), optional in made:
                name, one = key(frame), value(frame)
                if optional:
                    if not one.there:
                        continue
                    one = one.value
                if isinstance(name, list | dict):
                    raise Fault("unsupported key type")
                if name in found:
                    raise Fault(f"duplicate key in map literal: {name}")
                found[name] = one
            return found

        return map_of(key_type, value_type), run

    def _struct(self, node: StructOf) -> tuple[Type, Run]:
        kind = self._structs(node.name)
        if kind is None or kind.fields is None:
            raise SyntaxFault(node.position, f"undeclared reference to '{node.name}' (in container '')")
        parts: list[tuple[str, Run, bool]] = []
        for name, value, optional in node.fields:
            wanted = kind.fields.get(name)
            if wanted is None:
                raise SyntaxFault(node.position, f"undefined field '{name}'")
            found, run = self.node(value)
            if optional and found.name == "optional_type":
                found = found.of[0]
            if not fits(wanted, found):
                raise SyntaxFault(node.position, f"expected type of field '{name}' is '{wanted}' but provided type is '{found}'")
            parts.append((unescaped(name), run, optional))

        def make(frame: Frame) -> Made:
            values = ((name, run(frame), optional) for name, run, optional in parts)
            return Made(
                node.name, {name: value.value if optional else value for name, value, optional in values if not optional or value.there}
            )

        return kind, make

    # Calls

    def _call(self, node: Call) -> tuple[Type, Run]:
        match node.function:
            case "_&&_" | "_||_":
                return self._logic(node)
            case "_?_:_":
                return self._choice(node)
            case "has" if node.target is None:
                return self._has(node)
        if node.target is not None:
            if isinstance(node.target, Name) and node.target.name not in self.scope:
                if (node.target.name, node.function) == ("cel", "bind"):
                    return self._bind(node)
                whole = f"{node.target.name}.{node.function}"
                if whole in FUNCTIONS:
                    return self._function(node, whole, node.arguments, member=False)
            if node.function in _MACROS and self._is_macro(node):
                return self._macro(node)
            return self._function(node, node.function, (node.target, *node.arguments), member=True)
        return self._function(node, node.function, node.arguments, member=False)

    def _function(self, node: Call, name: str, arguments: Sequence[Node], *, member: bool) -> tuple[Type, Run]:
        function = FUNCTIONS.get(name)
        if function is None or (name in _OF_PATCHES and self._structs is no_structs):
            raise SyntaxFault(node.position, f"undeclared reference to '{name}' (in container '')")
        made = [self.node(argument) for argument in arguments]
        kinds = [kind for kind, _ in made]
        fitting = [
            one for one in function.overloads if one.member == member and len(one.takes) == len(kinds) and all(map(fits, one.takes, kinds))
        ]
        if name in ("_==_", "_!=_") and not _comparable(*kinds):
            fitting = []
        if not fitting:
            raise SyntaxFault(node.position, f"found no matching overload for '{name}' applied to '{_applied(kinds, member=member)}'")
        self.overloads[id(node)] = fitting
        results = {one.gives(kinds) if callable(one.gives) else one.gives for one in fitting}
        kind = results.pop() if len(results) == 1 else DYN
        return kind, _calling(function, [run for _, run in made])

    def _logic(self, node: Call) -> tuple[Type, Run]:
        (left_type, left), (right_type, right) = (self.node(argument) for argument in node.arguments)
        if not (fits(BOOL, left_type) and fits(BOOL, right_type)):
            applied = _applied([left_type, right_type], member=False)
            raise SyntaxFault(node.position, f"found no matching overload for '{node.function}' applied to '{applied}'")
        decisive = node.function == "_||_"

        def run(frame: Frame) -> Any:
            try:
                first = left(frame)
                if first is decisive:
                    return decisive
                fault = None if first is not decisive and type(first) is bool else no_overload()
            except CostExceeded:
                raise
            except Fault as raised:
                fault = raised
            # What is wrong on one side does not matter when the other decides.
            second = right(frame)
            if type(second) is not bool:
                raise no_overload()
            if fault is not None and second is not decisive:
                raise fault
            return second

        return BOOL, run

    def _choice(self, node: Call) -> tuple[Type, Run]:
        (test_type, test), (yes_type, yes), (no_type, no) = (self.node(argument) for argument in node.arguments)
        if not fits(BOOL, test_type) or not (fits(yes_type, no_type) or fits(no_type, yes_type)):
            applied = _applied([test_type, yes_type, no_type], member=False)
            raise SyntaxFault(node.position, f"found no matching overload for '_?_:_' applied to '{applied}'")

        def run(frame: Frame) -> Any:
            found = test(frame)
            if type(found) is not bool:
                raise no_overload()
            return yes(frame) if found else no(frame)

        return joined(yes_type, no_type), run

    # Macros

    def _is_macro(self, node: Call) -> bool:
        least, count = _MACROS[node.function], len(node.arguments)
        more = count == least + 1 and node.function in ("map", *_TWO_VARIABLES, "transformList", "transformMap", "transformMapEntry")
        return (count == least or more) and isinstance(node.arguments[0], Name)

    def _variable(self, node: Node, kind: Type) -> int:
        if not isinstance(node, Name):
            raise SyntaxFault(node.position, "argument is not an identifier")
        place = self.size
        self.size += 1
        self.scope[node.name] = (place, kind)
        return place

    def _bind(self, node: Call) -> tuple[Type, Run]:
        name, value, body = node.arguments
        kind, worth = self.node(value)
        before = dict(self.scope)
        place = self._variable(name, kind)
        result, run = self.node(body)
        self.scope = before

        def bound(frame: Frame) -> Any:
            frame[place] = worth(frame)
            return run(frame)

        return result, bound

    def _macro(self, node: Call) -> tuple[Type, Run]:
        assert node.target is not None
        kind, many = self.node(node.target)
        if node.function in ("optMap", "optFlatMap"):
            return self._optional_macro(node, kind, many)
        if kind.name not in ("list", "map", "dyn") and kind.fields is None:
            raise SyntaxFault(
                node.position, f"expression of type '{kind}' cannot be range of a comprehension (must be list, map, or dynamic)"
            )
        before = dict(self.scope)
        names = 2 if node.function.startswith("transform") or (node.function in _TWO_VARIABLES and len(node.arguments) == 3) else 1
        keys = DYN if kind.name == "dyn" else STRING if kind.fields is not None else kind.of[0] if kind.name == "map" else INTEGER
        items = kind.of[-1] if kind.of else DYN
        if names == 2:
            places = [self._variable(node.arguments[0], keys), self._variable(node.arguments[1], items)]
        else:
            places = [self._variable(node.arguments[0], items if kind.name == "list" else keys)]
        bodies = [self.node(argument) for argument in node.arguments[names:]]
        self.scope = before
        pairs = comprehensions.steps(many, places)
        return comprehensions.MAKERS[node.function](node, kind, items, bodies, pairs)

    def _optional_macro(self, node: Call, kind: Type, many: Run) -> tuple[Type, Run]:
        before = dict(self.scope)
        place = self._variable(node.arguments[0], kind.of[0] if kind.name == "optional_type" else DYN)
        result, body = self.node(node.arguments[1])
        self.scope = before
        flat = node.function == "optFlatMap"

        def run(frame: Frame) -> Optional:
            found = many(frame)
            if type(found) is not Optional:
                raise no_overload()
            if not found.there:
                return NONE
            frame[place] = found.value
            value = body(frame)
            return value if flat else Optional(value, True)

        return result if flat else optional_of(result), run


def _all_joined(kinds: Sequence[Type]) -> Type:
    if not kinds:
        return DYN
    found = kinds[0]
    for kind in kinds[1:]:
        found = joined(found, kind)
    return found


def _applied(kinds: Sequence[Type], *, member: bool) -> str:
    if member:
        return f"{kinds[0]}.({', '.join(map(str, kinds[1:]))})"
    return f"({', '.join(map(str, kinds))})"


def _comparable(one: Type, other: Type) -> bool:
    return fits(one, other) or fits(other, one) or "null_type" in (one.name, other.name)


def _calling(function: functions.Function, runs: list[Run]) -> Run:
    work, cost = function.work, function.cost

    def guarded(frame: Frame, values: list[Any]) -> Any:
        if function.weighs:
            frame[0] -= len(values[0]) // 10 if type(values[0]) in (str, list, bytes) else 0
        frame[0] -= cost if isinstance(cost, int) else cost(*values)
        if frame[0] < 0:
            raise CostExceeded
        try:
            return work(*values)
        except (TypeError, AttributeError):
            raise no_overload() from None

    match runs:
        case [one]:
            return lambda frame: guarded(frame, [one(frame)])
        case [one, other]:
            return lambda frame: guarded(frame, [one(frame), other(frame)])
    return lambda frame: guarded(frame, [run(frame) for run in runs])
