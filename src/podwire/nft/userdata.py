"""User data: what the kernel keeps for the nft program and does not read itself.

Comments of tables, chains, rules, sets and elements, and of sets how their keys and values are to be printed: the byte order, and
for a declaration by example (``typeof``) the expressions. Without it nft 1.0.6 prints host-order numbers swapped, or ends.

The form is a list of type (1 byte), length (1 byte), value; numbers inside are four bytes in host order.

Source: libnftnl's include/libnftnl/udata.h and nftables' src/mnl.c, as seen in what the program itself writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from podwire.nft import fields
from podwire.nft.datatypes import DataType, Unreadable
from podwire.nft.model import Ct, Expression, Fib, Meta, Payload, Set

COMMENT_LIMIT: Final = 127  # bytes; nft refuses to load a longer one
_COMMENT, _SET_COMMENT = 0, 7
_KEY_ORDER, _VALUE_ORDER, _MERGE, _KEY_TYPEOF, _VALUE_TYPEOF, _VALUE_INTERVAL = 0, 1, 2, 3, 4, 6
_NO_ORDER, _HOST_ORDER, _BIG_ENDIAN = 0, 1, 2
_KIND, _DATA = 0, 1
_PAYLOAD, _META, _CT, _CONCATENATION, _FIB = 7, 9, 12, 13, 26
_NO_DIRECTION: Final = 0xFFFFFFFF
_U32 = struct.Struct("=I")


def _item(kind: int, value: bytes) -> bytes:
    return bytes((kind, len(value))) + value


def _number(kind: int, value: int) -> bytes:
    return _item(kind, _U32.pack(value))


def _items(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 2 <= len(data):
        kind, size = data[at], data[at + 1]
        found[kind] = data[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def comment(text: str, kind: int = _COMMENT) -> bytes:
    """Encode a comment. Raises Unreadable when it is longer than 127 bytes or holds a quote or a newline."""
    data = text.encode()
    if len(data) > COMMENT_LIMIT or b'"' in data or b"\n" in data:
        raise Unreadable(f"a comment has at most {COMMENT_LIMIT} bytes, no quote and no newline: {text}")
    return _item(kind, data + b"\0")


def check_length(size: int) -> None:
    """Refuse a comment of so many bytes if it is too long. Raises Unreadable."""
    if size > COMMENT_LIMIT:
        raise Unreadable(f"a comment has at most {COMMENT_LIMIT} bytes, not {size}")


def clip(text: str) -> str:
    """Make any text fit to be a comment: quotes and newlines go, and what is beyond 127 bytes."""
    plain = text.replace('"', "'").replace("\n", " ")
    return plain.encode()[:COMMENT_LIMIT].decode(errors="ignore")


def read_comment(data: bytes) -> str:
    """Decode the comment of a table, chain, rule or element; "" if there is none."""
    return _items(data).get(_COMMENT, b"").rstrip(b"\0").decode(errors="replace")


# Sets ------------------------------------------------------------------------------------------------------------------------


def of_set(one: Set, typeof_key: tuple[Expression, ...] = ()) -> bytes:
    """Encode what nft needs to print a set. ``typeof_key`` serves for a set written inside a rule, which declares nothing."""
    examples = one.typeof_key or typeof_key
    parts = [_number(_KEY_ORDER, _order(one.key_types))]
    if one.is_map:
        parts.append(_number(_VALUE_ORDER, _NO_ORDER if one.is_verdict_map else _order(one.value_types)))
    if not one.name and "interval" in one.flags:
        parts.append(_number(_MERGE, 1))
    parts.append(_typeof(_KEY_TYPEOF, one.key_types, examples))
    if one.is_map:
        parts.append(_typeof(_VALUE_TYPEOF, one.value_types, one.typeof_value))
        parts.append(_number(_VALUE_INTERVAL, 0))
    if one.comment:
        parts.append(comment(one.comment, _SET_COMMENT))
    return b"".join(parts)


def _order(types: tuple[DataType, ...]) -> int:
    if len(types) > 1:
        return _NO_ORDER
    return _HOST_ORDER if types[0].host_order else _BIG_ENDIAN


def _typeof(kind: int, types: tuple[DataType, ...], examples: tuple[Expression, ...]) -> bytes:
    encoded = [_expression(example) for example in examples]
    if not encoded or None in encoded:
        return _item(kind, _number(_KIND, _CONCATENATION) + _item(_DATA, b"")) if len(types) > 1 else b""
    known = [one for one in encoded if one is not None]
    if len(known) == 1:
        return _item(kind, known[0])
    inner = b"".join(_item(i, one) for i, one in enumerate(known))
    return _item(kind, _number(_KIND, _CONCATENATION) + _item(_DATA, inner))


def _expression(e: Expression) -> bytes | None:
    match e:
        case Payload(protocol, name):
            field = fields.payload(protocol, name)
            data = _number(0, fields.PROTOCOLS[protocol].number) + _number(1, field.number)
            return _number(_KIND, _PAYLOAD) + _item(_DATA, data)
        case Meta(key):
            return _number(_KIND, _META) + _item(_DATA, _number(0, fields.META[key][0]))
        case Ct(key, direction):
            data = _number(0, fields.CT[key][0]) + _number(1, fields.CT_DIRECTIONS[direction] if direction else _NO_DIRECTION)
            return _number(_KIND, _CT) + _item(_DATA, data)
        case Fib(inputs, result):
            data = _number(0, fields.FIB_RESULTS[result][0]) + _number(1, sum(fields.FIB_INPUTS[name] for name in inputs))
            return _number(_KIND, _FIB) + _item(_DATA, data)
    return None


def read_set(data: bytes) -> tuple[tuple[Expression, ...], tuple[Expression, ...], str]:
    """Decode a set's user data: the examples of its key and of its value (empty where it names types), its comment.

    Raises Unreadable for an example that is not known here.
    """
    items = _items(data)
    note = items.get(_SET_COMMENT, b"").rstrip(b"\0").decode(errors="replace")
    return _read_typeof(items.get(_KEY_TYPEOF)), _read_typeof(items.get(_VALUE_TYPEOF)), note


def _read_typeof(data: bytes | None) -> tuple[Expression, ...]:
    if data is None:
        return ()
    items = _items(data)
    kind, inner = _read_number(items.get(_KIND)), items.get(_DATA, b"")
    if kind == _CONCATENATION:
        parts = _items(inner)
        return tuple(_read_expression(parts[i]) for i in sorted(parts))
    return () if kind not in (_PAYLOAD, _META, _CT, _FIB) else (_read_expression(data),)


def _read_number(data: bytes | None) -> int:
    return _U32.unpack(data)[0] if data is not None and len(data) == 4 else -1


def _read_expression(data: bytes) -> Expression:
    items = _items(data)
    kind, inner = _read_number(items.get(_KIND)), _items(items.get(_DATA, b""))
    first, second = _read_number(inner.get(0)), _read_number(inner.get(1))
    try:
        match kind:
            case 7:
                protocol = fields.PROTOCOL_BY_NUMBER[first].name
                return Payload(protocol, fields.PAYLOAD_BY_NUMBER[protocol, second].name)
            case 9:
                return Meta(fields.META_BY_NUMBER[first])
            case 12:
                return Ct(fields.CT_BY_NUMBER[first], {0: "original", 1: "reply"}.get(second, ""))
            case 26:
                return Fib(_names(fields.FIB_INPUTS.items(), second), _names(((n, r[0]) for n, r in fields.FIB_RESULTS.items()), first)[0])
    except (KeyError, IndexError):
        pass
    raise Unreadable(f"a set declared by an example that is not known here (kind {kind}, {first}, {second})")


def _names(pairs: Iterable[tuple[str, int]], bits: int) -> tuple[str, ...]:
    return tuple(name for name, number in pairs if number & bits == number)
