"""Reading nft's language: the words, and the expressions that they make.

This is the lower half of the reader: from text to tokens, and from tokens to expressions and constants. The upper half, statements,
chains, sets and tables, is in text.py. It reads the part of the language that this project writes and that ``nft -s list ruleset``
prints for it, and refuses everything else by name and place.

The one thing to know: a constant has no type of its own; it takes that of what it is compared with or assigned to. So every
function that reads constants is given the type.

Source: nft(8).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from podwire.nft import datatypes, fields
from podwire.nft.datatypes import DataType, Unreadable
from podwire.nft.model import (
    Concatenation,
    Constant,
    Ct,
    Element,
    Expression,
    Fib,
    Hash,
    Lookup,
    Masked,
    Meta,
    Numgen,
    Payload,
    Prefix,
    Range,
    Reference,
    Set,
    Verdict,
)

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t]+|\#[^\n]*) | (?P<word>"[^"\n]*" | \n | [!<>=]= | [{}();,=<>!&|^] | [^\s{}();,="<>!&|^#]+)""",
    re.VERBOSE,
)
_TIME: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")
VERDICTS: Final = frozenset({"accept", "drop", "continue", "return", "jump", "goto"})


def milliseconds(text: str) -> int:
    """Read ``1h30m``, ``90s``, ``500ms``, or a bare number of seconds. Raises Unreadable."""
    if text.isdigit():
        return int(text) * 1000
    found = _TIME.fullmatch(text)
    if not found or not text:
        raise Unreadable(f"{text} is not a time")
    days, hours, minutes, seconds, rest = (int(part or 0) for part in found.groups())
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + rest


class Words:
    """The tokens of a text, read from left to right. Newlines are tokens, passed over unless asked for."""

    def __init__(self, text: str) -> None:
        self._words: list[tuple[str, int]] = []
        line, at = 1, 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if not found:
                raise Unreadable(f"line {line}: cannot read {text[at : at + 20]!r}")
            at = found.end()
            if found["word"]:
                self._words.append((found["word"], line))
                line += found["word"] == "\n"
        self._at = 0

    def peek(self, ahead: int = 0) -> str:
        """The next word, "" at the end; a newline is a word."""
        at = self._at + ahead
        return self._words[at][0] if at < len(self._words) else ""

    def next(self) -> str:
        """Take the next word. Raises Unreadable at the end."""
        word = self.peek()
        if not word:
            raise self.error("the text ends too early")
        self._at += 1
        return word

    def take(self, *words: str) -> bool:
        """Take these words if they come next, all of them."""
        if all(self.peek(i) == word for i, word in enumerate(words)):
            self._at += len(words)
            return True
        return False

    def expect(self, word: str) -> None:
        """Take this word. Raises Unreadable when another comes."""
        if not self.take(word):
            raise self.error(f"expected {word!r}, found {self.peek() or 'the end'!r}")

    def skip_lines(self) -> None:
        """Pass over newlines."""
        while self.peek() == "\n":
            self._at += 1

    def string(self) -> str:
        """Take a quoted string, without its quotes."""
        word = self.next()
        if not word.startswith('"'):
            raise self.error(f"expected a quoted text, found {word!r}")
        return word[1:-1]

    def number(self) -> int:
        """Take a number."""
        word = self.next()
        try:
            return int(word, 0)
        except ValueError:
            raise self.error(f"expected a number, found {word!r}") from None

    def at_end(self) -> bool:
        """Say whether the statement ends here."""
        return self.peek() in ("", "\n", ";", "}")

    def error(self, message: str) -> Unreadable:
        """Make an error that names the place."""
        at = min(self._at, len(self._words) - 1)
        line = self._words[at][1] if self._words else 1
        near = " ".join(word for word, _ in self._words[max(0, at - 3) : at + 3] if word != "\n")
        return Unreadable(f"line {line}, near '{near}': {message}")


# Expressions ----------------------------------------------------------------------------------------------------------------


def starts_expression(words: Words) -> bool:
    """Say whether an expression (and not a statement's keyword) comes next."""
    word, second = words.peek(), words.peek(1)
    if word == "ct":
        return second in fields.CT or second in fields.CT_DIRECTIONS
    return (
        word in ("meta", "fib", "numgen", "jhash", "symhash")
        or word in fields.BARE_META
        or (word in fields.PROTOCOLS and (word, second) in fields.PAYLOAD)
    )


def expression(words: Words) -> Expression:
    """Read an expression: parts joined by ``.``, bit operations with constants, and a trailing ``map``."""
    parts = [_primary(words)]
    while words.take("."):
        parts.append(_primary(words))
    read = parts[0] if len(parts) == 1 else Concatenation(tuple(parts))
    return masked(words, read)


def masked(words: Words, source: Expression) -> Expression:
    """Read ``& mask``, ``| bits``, ``^ bits`` after an expression, folded into one mask and one exclusive-or."""
    if words.peek() not in ("&", "|", "^"):
        return source
    kind = one_type(words, source)
    ones = (1 << 8 * kind.size) - 1
    mask, xor = ones, 0
    while words.peek() in ("&", "|", "^"):
        operator = words.next()
        value = kind.to_int(_bits(words, kind))
        if operator == "&":
            mask, xor = mask & value, xor & value
        elif operator == "|":
            mask, xor = mask & ~value & ones, xor | value
        else:
            xor ^= value
    return Masked(source, kind.from_int(mask), kind.from_int(xor))


def one_type(words: Words, source: Expression) -> DataType:
    """The type of an expression of one field. Raises Unreadable."""
    try:
        (kind,) = fields.types_of(source)
    except (ValueError, Unreadable):
        raise words.error("a value in one field is needed here") from None
    return kind


def _bits(words: Words, kind: DataType) -> bytes:
    if not words.take("("):
        return value_in(words, kind, words.next())
    number = kind.to_int(value_in(words, kind, words.next()))
    while words.take("|"):
        number |= kind.to_int(value_in(words, kind, words.next()))
    words.expect(")")
    return kind.from_int(number)


def _primary(words: Words) -> Expression:
    word = words.next()
    match word:
        case "meta":
            key = words.next()
            if key not in fields.META:
                raise words.error(f"unknown meta key {key}")
            return Meta(key)
        case "ct":
            return _ct(words)
        case "fib":
            return _fib(words)
        case "numgen":
            mode = words.next()
            if mode not in ("random", "inc"):
                raise words.error(f"numgen is random or inc, not {mode}")
            words.expect("mod")
            return Numgen(mode, words.number(), words.number() if words.take("offset") else 0)
        case "jhash" | "symhash":
            return _hash(words, word)
    if word in fields.BARE_META:
        return Meta(word)
    if word in fields.PROTOCOLS:
        field = words.next()
        if (word, field) not in fields.PAYLOAD:
            raise words.error(f"unknown field {word} {field}")
        return Payload(word, field)
    raise words.error(f"{word!r} is no expression")


def _ct(words: Words) -> Ct:
    direction = words.next() if words.peek() in fields.CT_DIRECTIONS else ""
    key = words.next()
    if key in ("ip", "ip6"):
        key = f"{key} {words.next()}"
    if key not in fields.CT or (key in fields.CT_DIRECTED) != bool(direction):
        raise words.error(f"unknown ct key {direction} {key}".replace("  ", " "))
    return Ct(key, direction)


def _fib(words: Words) -> Fib:
    inputs = [words.next()]
    while words.take("."):
        inputs.append(words.next())
    result = words.next()
    if result not in fields.FIB_RESULTS or any(name not in fields.FIB_INPUTS for name in inputs):
        raise words.error("unknown fib expression")
    return Fib(tuple(inputs), result)


def _hash(words: Words, name: str) -> Hash:
    source = expression(words) if name == "jhash" else None
    words.expect("mod")
    modulus = words.number()
    seed = words.number() if words.take("seed") else None
    return Hash(source, modulus, seed, words.number() if words.take("offset") else 0)


# Constants and what holds them ----------------------------------------------------------------------------------------------


def value_in(words: Words, kind: DataType, text: str) -> bytes:
    """Read one constant of a type; errors name the place."""
    try:
        return kind.parse(text)
    except Unreadable as error:
        raise words.error(str(error)) from None


def constant(words: Words, kind: DataType, *, in_set: bool = False) -> Constant | Prefix | Range:
    """Read a constant, a prefix (addresses) or a range; outside of sets and for types made of bits also ``a,b``."""
    text = words.next()
    if kind.kind in ("ipv4", "ipv6") and "/" in text:
        return _prefix(words, kind, text)
    if "-" in text and text not in kind.symbols and kind.kind != "name":
        low, _, high = text.partition("-")
        return Range(kind, value_in(words, kind, low), value_in(words, kind, high))
    if kind.flags and not in_set:
        while words.take(","):
            text += "," + words.next()
    return Constant(kind, value_in(words, kind, text))


def _prefix(words: Words, kind: DataType, text: str) -> Prefix | Constant:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise words.error(str(error)) from None
    if network.prefixlen == network.max_prefixlen:
        return Constant(kind, network.network_address.packed)
    return Prefix(kind, network.network_address.packed, network.prefixlen)


def verdict(words: Words) -> Verdict:
    """Read ``accept``, ``jump name``..."""
    kind = words.next()
    if kind not in VERDICTS:
        raise words.error(f"{kind} is no verdict")
    return Verdict(kind, words.next() if kind in ("jump", "goto") else "")


def bounds(value: Constant | Prefix | Range) -> tuple[bytes, bytes]:
    """The first and last value that a constant, prefix or range stands for."""
    match value:
        case Prefix(kind, data, bits):
            low = int.from_bytes(data, "big")
            return data, (low | ((1 << (8 * kind.size - bits)) - 1)).to_bytes(kind.size, "big")
        case Range(_, low_bytes, high):
            return low_bytes, high
        case Constant(_, data):
            return data, data


def elements(words: Words, key_types: tuple[DataType, ...], value_types: tuple[DataType, ...]) -> tuple[dict[bytes, Element], bool]:
    """Read ``{ key : value, ... }`` up to the closing brace. Also says whether any key is an interval."""
    words.expect("{")
    found: dict[bytes, Element] = {}
    interval = False
    words.skip_lines()
    while not words.take("}"):
        element = _element(words, key_types, value_types)
        found[element.key] = element
        interval = interval or bool(element.end)
        words.skip_lines()
        if words.take(","):
            words.skip_lines()
    return found, interval


def _element(words: Words, key_types: tuple[DataType, ...], value_types: tuple[DataType, ...]) -> Element:
    parts: list[Constant | Prefix | Range] = []
    for i, kind in enumerate(key_types):
        if i:
            words.expect(".")
        parts.append(constant(words, kind, in_set=True))
    ends = [bounds(part) for part in parts]
    low = datatypes.pack(key_types, tuple(end[0] for end in ends))
    high = datatypes.pack(key_types, tuple(end[1] for end in ends))
    timeout, comment = 0, ""
    while words.peek() in ("timeout", "expires", "comment"):
        match words.next():
            case "timeout":
                timeout = milliseconds(words.next())
            case "expires":
                words.next()
            case _:
                comment = words.string()
    value: bytes | Verdict | None = None
    if value_types:
        words.expect(":")
        value = _element_value(words, value_types)
    return Element(low, value, b"" if low == high else high, comment, timeout)


def _element_value(words: Words, value_types: tuple[DataType, ...]) -> bytes | Verdict:
    if value_types[0].kind == "verdict":
        return verdict(words)
    values = []
    for i, kind in enumerate(value_types):
        if i:
            words.expect(".")
        values.append(value_in(words, kind, words.next()))
    return datatypes.pack(value_types, tuple(values))


def inline_set(words: Words, key_types: tuple[DataType, ...], value_types: tuple[DataType, ...] = ()) -> Set:
    """Read a set or map that is written inside a rule."""
    found, interval = elements(words, key_types, value_types)
    if not found:
        raise words.error("an empty set inside a rule")
    return Set("", key_types, value_types, flags=frozenset({"interval"}) if interval else frozenset(), elements=found)


def reference_or_set(words: Words, key_types: tuple[DataType, ...], value_types: tuple[DataType, ...] = ()) -> Reference | Set:
    """Read ``@name`` or ``{ ... }``."""
    if words.peek().startswith("@"):
        return Reference(words.next()[1:])
    return inline_set(words, key_types, value_types)


def value(words: Words, kinds: tuple[DataType, ...], sets: Mapping[str, Set] | None) -> Expression:
    """Read what is assigned or translated to: a constant of these types, an expression, or a look-up in a map of such values."""
    if not starts_expression(words):
        return constant(words, kinds[0])
    source = expression(words)
    if not words.take("map"):
        return source
    if isinstance(source, Lookup):
        raise words.error("a look-up fed by a look-up cannot be listed by nft; carry the value in a mark")
    return Lookup(source, reference_or_set(words, fields.types_of(source, sets), kinds))
