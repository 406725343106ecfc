"""CEL's grammar: from text to a tree.

Here: words, numbers, texts, operators by their precedence. Not here: names and types (``check.py``), values.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

LIMIT = 250  # levels of nesting


class SyntaxFault(Exception):
    """A text that is no expression. ``position`` is where."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


@dataclass(frozen=True, slots=True)
class Literal:
    position: int
    value: Any
    kind: str  # int, uint, double, string, bytes, bool, null_type


@dataclass(frozen=True, slots=True)
class Name:
    position: int
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """``operand.field``; ``operand.?field`` is optional."""

    position: int
    operand: Node
    field: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A function, a member function (with a target), or an operator by its name: ``_+_``, ``_[_]``, ``!_``, ``_?_:_``."""

    position: int
    function: str
    arguments: tuple[Node, ...]
    target: Node | None = None


@dataclass(frozen=True, slots=True)
class ListOf:
    position: int
    items: tuple[Node, ...]
    optional: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class MapOf:
    position: int
    entries: tuple[tuple[Node, Node, bool], ...]


@dataclass(frozen=True, slots=True)
class StructOf:
    """``Type.name{field: value}``."""

    position: int
    name: str
    fields: tuple[tuple[str, Node, bool], ...]


Node = Literal | Name | Select | Call | ListOf | MapOf | StructOf

_TOKEN = re.compile(
    r"""(?P<blank>\s+|//[^\n]*)
      | (?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)|\d+[uU]?)
      | (?P<text>(?:[rR][bB]|[bB][rR]|[rRbB])?(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<quoted>`[A-Za-z0-9_.\-/ ]+`)
      | (?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "?": "?", '"': '"', "'": "'", "`": "`"}
_RESERVED = frozenset(
    "as break const continue else for function if import let loop package namespace return var void while".split()  # noqa: SIM905
)
KEYWORDS = _RESERVED | {"true", "false", "null", "in"}  # what no name may be
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))

Token = tuple[str, str, int]


def parse(text: str) -> Node:
    """Read an expression. Raises SyntaxFault."""
    parser = _Parser(_tokens(text), len(text))
    node = parser.expression()
    kind, found, position = parser.token
    if kind != "end":
        raise SyntaxFault(position, f"Syntax error: extraneous input '{found}' expecting <EOF>")
    return node


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise SyntaxFault(position, f"Syntax error: token recognition error at: '{text[position]}'")
        kind = match.lastgroup or ""
        if kind != "blank":
            tokens.append((kind, match.group(), position))
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent over tokens."""

    def __init__(self, tokens: list[Token], end: int) -> None:
        self._tokens = [*tokens, ("end", "<EOF>", end)]
        self._at = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += token[0] != "end"
        return token

    def _sign(self, *signs: str) -> str:
        kind, text, _ = self.token
        if (kind == "sign" or (kind == "name" and text == "in")) and text in signs:
            self._next()
            return text
        return ""

    def _expect(self, sign: str) -> int:
        _, text, position = self.token
        if not self._sign(sign):
            raise SyntaxFault(position, f"Syntax error: mismatched input '{text}' expecting '{sign}'")
        return position

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > LIMIT:
            raise SyntaxFault(self.token[2], f"expression recursion limit exceeded: {LIMIT}")
        node = self._binary(0)
        position = self.token[2]
        if self._sign("?"):
            yes = self._binary(0)
            self._expect(":")
            node = Call(position, "_?_:_", (node, yes, self.expression()))
        self._depth -= 1
        return node

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        node = self._binary(level + 1)
        while True:
            position = self.token[2]
            sign = self._sign(*_LEVELS[level])
            if not sign:
                return node
            node = Call(position, "@in" if sign == "in" else f"_{sign}_", (node, self._binary(level + 1)))

    def _unary(self) -> Node:
        position = self.token[2]
        sign = self._sign("!", "-")
        if not sign:
            return self._member()
        kind, text, _ = self.token
        if sign == "-" and kind == "number" and not text.endswith(("u", "U")):
            self._next()
            return self._suffixes(_number(text, position, negative=True))
        self._depth += 1
        if self._depth > LIMIT:
            raise SyntaxFault(position, f"expression recursion limit exceeded: {LIMIT}")
        operand = self._unary()
        self._depth -= 1
        return Call(position, f"{sign}_", (operand,))

    def _member(self) -> Node:
        return self._suffixes(self._primary())

    def _suffixes(self, node: Node) -> Node:
        while True:
            position = self.token[2]
            if self._sign("."):
                optional = bool(self._sign("?"))
                kind, text, place = self._next()
                if kind not in ("name", "quoted") or (kind == "name" and text == "in"):
                    raise SyntaxFault(place, f"Syntax error: no viable alternative at input '.{text}'")
                place = self.token[2]
                if not optional and self._sign("("):
                    node = Call(place, text, self._list(")"), node)
                else:
                    node = Select(position, node, text.strip("`"), optional)
            elif self._sign("["):
                optional = bool(self._sign("?"))
                index = self.expression()
                self._expect("]")
                node = Call(position, "_[?_]" if optional else "_[_]", (node, index))
            elif self.token[1] == "{" and (name := _qualified(node)):
                self._next()
                node = self._struct_of(position, name)
            else:
                return node

    def _list(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._sign(end):
            items.append(self.expression())
            if not self._sign(","):
                self._expect(end)
                break
        return tuple(items)

    def _primary(self) -> Node:
        kind, text, position = self._next()
        match kind:
            case "number":
                return _number(text, position)
            case "text":
                return _text(text, position)
            case "name":
                return self._named(text, position)
        match text:
            case "(":
                node = self.expression()
                self._expect(")")
                return node
            case "[":
                return self._list_of(position)
            case "{":
                return self._map_of(position)
            case ".":
                kind, text, position = self._next()
                if kind == "name":
                    return self._named(text, position)
        raise SyntaxFault(position, f"Syntax error: mismatched input '{text}' expecting an expression")

    def _named(self, name: str, position: int) -> Node:
        if name in ("true", "false"):
            return Literal(position, name == "true", "bool")
        if name == "null":
            return Literal(position, None, "null_type")
        if name in _RESERVED or name == "in":
            raise SyntaxFault(position, f"reserved identifier: {name}")
        place = self.token[2]
        if self._sign("("):
            return Call(place, name, self._list(")"))
        return Name(position, name)

    def _list_of(self, position: int) -> Node:
        items: list[Node] = []
        optional: list[bool] = []
        while not self._sign("]"):
            optional.append(bool(self._sign("?")))
            items.append(self.expression())
            if not self._sign(","):
                self._expect("]")
                break
        return ListOf(position, tuple(items), tuple(optional))

    def _struct_of(self, position: int, name: str) -> Node:
        fields: list[tuple[str, Node, bool]] = []
        while not self._sign("}"):
            optional = bool(self._sign("?"))
            kind, text, place = self._next()
            if kind not in ("name", "quoted"):
                raise SyntaxFault(place, f"Syntax error: mismatched input '{text}' expecting a field")
            self._expect(":")
            fields.append((text.strip("`"), self.expression(), optional))
            if not self._sign(","):
                self._expect("}")
                break
        return StructOf(position, name, tuple(fields))

    def _map_of(self, position: int) -> Node:
        entries: list[tuple[Node, Node, bool]] = []
        while not self._sign("}"):
            optional = bool(self._sign("?"))
            key = self.expression()
            self._expect(":")
            entries.append((key, self.expression(), optional))
            if not self._sign(","):
                self._expect("}")
                break
        return MapOf(position, tuple(entries))


def _qualified(node: Node) -> str:
    """Give the name that a chain of names is, ``""`` for anything else."""
    match node:
        case Name(name=name):
            return name
        case Select(operand=operand, field=field, optional=False):
            above = _qualified(operand)
            return f"{above}.{field}" if above else ""
    return ""


def _number(text: str, position: int, *, negative: bool = False) -> Literal:
    sign = -1 if negative else 1
    if text[-1] in "uU":
        value = int(text[:-1], 0) if text.lower().startswith("0x") else int(text[:-1])
        if value >= 1 << 64:
            raise SyntaxFault(position, "invalid uint literal")
        return Literal(position, value, "uint")
    if text.lower().startswith("0x") or text.isdigit():
        value = sign * (int(text, 16) if text.lower().startswith("0x") else int(text))
        if not -(1 << 63) <= value < 1 << 63:
            raise SyntaxFault(position, "invalid int literal")
        return Literal(position, value, "int")
    return Literal(position, sign * float(text), "double")


def _text(text: str, position: int) -> Literal:
    start = next(index for index, sign in enumerate(text) if sign in "\"'")
    prefix, body = text[:start].lower(), text[start:]
    quote = body[:3] if body[:3] in ('"""', "'''") else body[0]
    body = body[len(quote) : -len(quote)]
    if "r" not in prefix:
        body = _unescaped(body, position, octets="b" in prefix)
    if "b" in prefix:
        return Literal(position, body.encode("latin-1") if "r" not in prefix else body.encode(), "bytes")
    return Literal(position, body, "string")


def _unescaped(body: str, position: int, *, octets: bool) -> str:
    out: list[str] = []
    index = 0
    while index < len(body):
        sign = body[index]
        index += 1
        if sign != "\\":
            out.append(sign if not octets else sign.encode().decode("latin-1"))
            continue
        sign = body[index]
        index += 1
        if sign in _ESCAPES:
            out.append(_ESCAPES[sign])
            continue
        length = {"x": 2, "X": 2, "u": 4, "U": 8}.get(sign, 3 if sign in "0123" else 0)
        digits = body[index - (length == 3) : index - (length == 3) + length]
        try:
            out.append(chr(int(digits, 8 if length == 3 else 16)) if length else "")
        except (ValueError, OverflowError):
            length = 0
        if not length:
            raise SyntaxFault(position, f"Syntax error: token recognition error at: '\\{sign}'")
        index += length - (length == 3)
    return "".join(out)
