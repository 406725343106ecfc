"""The kernel's instructions back to rules.

The instructions of a rule are followed from the first to the last, with sixteen registers that hold not values but the
expressions that would have been loaded; a comparison, a look-up or a verdict then makes a statement out of what its register holds.
An instruction that is not known here ends the reading of its rule with the statement Unknown, so that a table in which somebody else
wrote still reads.

Source: linux/netfilter/nf_tables.h; the inverse of assembly.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from podwire.nft import datatypes, fields
from podwire.nft.assembly import CODES, COMPARISONS, LEVELS, NAT_FLAGS, OPERATIONS, UNITS
from podwire.nft.datatypes import DataType, Unreadable
from podwire.nft.model import (
    Assign,
    Concatenation,
    Constant,
    Counter,
    Ct,
    Expression,
    Fib,
    Hash,
    Limit,
    Log,
    Lookup,
    Masked,
    Masquerade,
    Match,
    Meta,
    Nat,
    Notrack,
    Numgen,
    Payload,
    Prefix,
    Range,
    Reference,
    Reject,
    Set,
    Statement,
    Unknown,
    Update,
    Verdict,
    VerdictMap,
)
from podwire.nft.statements import canonical
from podwire.wire.netlink import attribute_list, attributes, to_be, to_string
from podwire.wire.nfnetlink import NFTA as A

_RAW: Final = datatypes.DataType("raw", 0, 0)  # of a constant whose type is not known before it is used
_CODES: Final = {code & 0xFFFFFFFF: kind for kind, code in CODES.items()}
_UNIT_NAMES: Final = {seconds: name for name, seconds in UNITS.items()}
_REJECT_CODE: Final = {"ip": "icmp_code", "ip6": "icmpv6_code"}
_ADDRESS: Final = {fields.IPV4: ("ip", datatypes.datatype("ipv4_addr")), fields.IPV6: ("ip6", datatypes.datatype("ipv6_addr"))}
_PORT: Final = datatypes.datatype("inet_service")

Attributes = dict[int, bytes]


class Disassembler:
    """Reads one rule. ``sets`` are the table's by name, those written inside rules included, with their elements."""

    def __init__(self, family: str, sets: Mapping[str, Set]) -> None:
        self._family = family
        self._sets = sets
        self._registers: dict[int, tuple[Expression, int]] = {}  # first register -> what is in it, and its bytes
        self._turned: set[int] = set()  # registers turned to network order
        self._nfproto = {"ip": fields.IPV4, "ip6": fields.IPV6}.get(family)
        self._l4proto: int | None = None
        self._read: list[Statement] = []

    def rule(self, data: bytes) -> tuple[Statement, ...]:
        """Read the attribute RULE_EXPRESSIONS."""
        for _, item in attribute_list(data):
            found = attributes(item)
            name = to_string(found[A.EXPR_NAME])
            try:
                self._instruction(name, attributes(found.get(A.EXPR_DATA, b"")))
            except (Unreadable, KeyError, IndexError, ValueError):
                self._read.append(Unknown(name))
                break
        return canonical(tuple(self._read), self._family)

    def _instruction(self, name: str, found: Attributes) -> None:
        if name not in _INSTRUCTIONS:
            raise Unreadable(name)
        _INSTRUCTIONS[name](self, found)

    # Registers

    def _put(self, at: int, e: Expression, size: int) -> None:
        self._registers[at] = (e, size)
        self._turned.discard(at)

    def _get(self, found: Attributes, kind: int) -> Expression:
        return self._registers[_register(found[kind])][0]

    def _gather(self, at: int, size: int) -> Expression:
        """What lies in the registers from ``at`` on, ``size`` bytes of it: one field, or several side by side."""
        parts: list[Expression] = []
        left = size
        while left > 0:
            e, taken = self._registers[at]
            parts.append(e)
            at += (taken + 3) // 4
            left -= taken if not parts[1:] and taken == size else (taken + 3) & ~3
        return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))

    # Loads

    def payload(self, found: Attributes) -> None:
        base, offset, size = (to_be(found[kind]) for kind in (A.PAYLOAD_BASE, A.PAYLOAD_OFFSET, A.PAYLOAD_LEN))
        field = fields.PAYLOAD_AT[self._header(base), offset]
        e: Expression = Payload(field.protocol, field.name)
        if size < field.type.size and field.name in ("saddr", "daddr"):
            # nft loads only the bytes that a prefix of whole bytes compares
            e = Masked(e, b"\xff" * size + bytes(field.type.size - size), bytes(field.type.size))
        elif size > field.type.size:
            following = fields.PAYLOAD_AT[field.protocol, offset + field.type.size]
            e = Concatenation((e, Payload(following.protocol, following.name)))
        elif size != field.type.size:
            raise Unreadable("part of a field")
        self._put(_register(found[A.PAYLOAD_DREG]), e, size)

    def _header(self, base: int) -> str:
        if base == fields.NETWORK and self._nfproto is not None:
            return _ADDRESS[self._nfproto][0]
        if base == fields.TRANSPORT:
            known = fields.PROTOCOL_BY_L4.get(self._l4proto) if self._l4proto is not None else None
            return known.name if known else "th"
        raise Unreadable("a header that is not known here")

    def meta(self, found: Attributes) -> None:
        target = Meta(fields.META_BY_NUMBER[to_be(found[A.META_KEY])])
        if A.META_SREG in found:
            self._assign(target, _register(found[A.META_SREG]))
        else:
            self._put(_register(found[A.META_DREG]), target, fields.META[target.key][1].size)

    def ct(self, found: Attributes) -> None:
        key = fields.CT_BY_NUMBER[to_be(found[A.CT_KEY])]
        if A.CT_SREG in found:
            self._assign(Ct(key), _register(found[A.CT_SREG]))
            return
        direction = ("original", "reply")[found[A.CT_DIRECTION][0]] if A.CT_DIRECTION in found else ""
        self._put(_register(found[A.CT_DREG]), Ct(key, direction), fields.CT[key][1].size)

    def _assign(self, target: Meta | Ct, at: int) -> None:
        (kind,) = fields.types_of(target)
        self._read.append(Assign(target, _typed(self._registers[at][0], kind)))

    def fib(self, found: Attributes) -> None:
        bits, result = to_be(found[A.FIB_FLAGS]), to_be(found[A.FIB_RESULT])
        name = next(name for name, (number, _) in fields.FIB_RESULTS.items() if number == result)
        inputs = tuple(name for name, bit in fields.FIB_INPUTS.items() if bits & bit)
        if bits != sum(fields.FIB_INPUTS[name] for name in inputs):
            raise Unreadable("fib")
        self._put(_register(found[A.FIB_DREG]), Fib(inputs, name), fields.FIB_RESULTS[name][1].size)

    def numgen(self, found: Attributes) -> None:
        mode = "random" if to_be(found[A.NG_TYPE]) else "inc"
        self._put(_register(found[A.NG_DREG]), Numgen(mode, to_be(found[A.NG_MODULUS]), to_be(found[A.NG_OFFSET])), 4)

    def hash(self, found: Attributes) -> None:
        source, seed = None, None
        if not to_be(found.get(A.HASH_TYPE, b"\0")):
            source = self._gather(_register(found[A.HASH_SREG]), to_be(found[A.HASH_LEN]))
            seed = to_be(found[A.HASH_SEED]) if A.HASH_SEED in found else None
        offset = to_be(found.get(A.HASH_OFFSET, b"\0"))
        self._put(_register(found[A.HASH_DREG]), Hash(source, to_be(found[A.HASH_MODULUS]), seed, offset), 4)

    def bitwise(self, found: Attributes) -> None:
        if to_be(found.get(A.BITWISE_OP, b"\0")):
            raise Unreadable("bitwise")
        source = self._get(found, A.BITWISE_SREG)
        mask, xor = _value(found[A.BITWISE_MASK]), _value(found[A.BITWISE_XOR])
        self._put(_register(found[A.BITWISE_DREG]), Masked(source, mask, xor), len(mask))

    def byteorder(self, found: Attributes) -> None:
        at = _register(found[A.BYTEORDER_DREG])
        self._registers[at] = self._registers[_register(found[A.BYTEORDER_SREG])]
        self._turned.add(at)

    def immediate(self, found: Attributes) -> None:
        data = attributes(found[A.IMMEDIATE_DATA])
        if A.DATA_VERDICT in data:
            self._read.append(_verdict(data[A.DATA_VERDICT]))
        else:
            value = data[A.DATA_VALUE]
            self._put(_register(found[A.IMMEDIATE_DREG]), Constant(_RAW, value), len(value))

    # Comparisons

    def cmp(self, found: Attributes) -> None:
        at = _register(found[A.CMP_SREG])
        left, operator = self._registers[at][0], COMPARISONS[to_be(found[A.CMP_OP])]
        data = _value(found[A.CMP_DATA])
        if isinstance(left, Concatenation):
            self._compare_parts(left, operator, data)
            return
        (kind,) = fields.types_of(left)
        if at in self._turned:
            data = kind.from_int(int.from_bytes(data, "big"))
        self._add(_comparison(left, operator, kind, data))

    def _compare_parts(self, left: Concatenation, operator: str, data: bytes) -> None:
        at = 0
        for part in left.parts:
            (kind,) = fields.types_of(part)
            self._add(Match(part, Constant(kind, data[at : at + kind.size]), operator))
            at += kind.size

    def _add(self, statement: Match) -> None:
        before = self._read[-1] if self._read else None
        if (
            statement.operator == "<="
            and isinstance(before, Match)
            and before.operator == ">="
            and before.left == statement.left
            and isinstance(before.right, Constant)
            and isinstance(statement.right, Constant)
        ):
            self._read[-1] = Match(statement.left, Range(statement.right.type, before.right.data, statement.right.data))
            return
        if statement.operator == "==" and isinstance(statement.right, Constant):
            if statement.left == Meta("l4proto"):
                self._l4proto = statement.right.data[0]
            elif statement.left == Meta("nfproto"):
                self._nfproto = statement.right.data[0]
        self._read.append(statement)

    def range(self, found: Attributes) -> None:
        at = _register(found[A.RANGE_SREG])
        left = self._registers[at][0]
        (kind,) = fields.types_of(left)
        ends = [_value(found[A.RANGE_FROM]), _value(found[A.RANGE_TO])]
        if at in self._turned:
            ends = [kind.from_int(int.from_bytes(end, "big")) for end in ends]
        self._read.append(Match(left, Range(kind, ends[0], ends[1]), "!=" if to_be(found[A.RANGE_OP]) else "=="))

    def lookup(self, found: Attributes) -> None:
        name, at = to_string(found[A.LOOKUP_SET]), _register(found[A.LOOKUP_SREG])
        one = self._sets[name]
        key = self._gather(at, datatypes.length(one.key_types))
        held = self._held(one, key)
        if A.LOOKUP_DREG not in found:
            inverted = to_be(found.get(A.LOOKUP_FLAGS, b"\0")) & 1
            self._read.append(Match(key, held, "!=" if inverted else "=="))
        elif one.is_verdict_map:
            self._read.append(VerdictMap(key, held))
        else:
            self._put(_register(found[A.LOOKUP_DREG]), Lookup(key, held), datatypes.length(one.value_types))

    def _held(self, one: Set, key: Expression) -> Reference | Set:
        if not one.name.startswith("__"):
            return Reference(one.name)
        flags = frozenset({"interval"}) if "interval" in one.flags else frozenset()
        return Set("", fields.types_of(key, self._sets), one.value_types, flags, elements=one.elements)

    def dynset(self, found: Attributes) -> None:
        one = self._sets[to_string(found[A.DYNSET_NAME])]
        key = self._gather(_register(found[A.DYNSET_SREG_KEY]), datatypes.length(one.key_types))
        value = None
        if A.DYNSET_SREG_DATA in found:
            value = self._gather(_register(found[A.DYNSET_SREG_DATA]), datatypes.length(one.value_types))
        inner: tuple[Statement, ...] = ()
        if A.DYNSET_EXPR in found:
            outer, self._read = self._read, []
            nest = attributes(found[A.DYNSET_EXPR])
            self._instruction(to_string(nest[A.EXPR_NAME]), attributes(nest.get(A.EXPR_DATA, b"")))
            inner, self._read = tuple(self._read), outer
        elif A.DYNSET_EXPRESSIONS in found:
            raise Unreadable("dynset")
        timeout = to_be(found.get(A.DYNSET_TIMEOUT, b"\0"))
        operation = OPERATIONS[to_be(found[A.DYNSET_OP])]
        self._read.append(Update(operation, one.name, key, value, timeout, inner))

    # What else a rule does

    def nat(self, found: Attributes) -> None:
        family, kind = _ADDRESS[to_be(found[A.NAT_FAMILY])]
        address = self._bounds(found, A.NAT_ADDR_MIN, A.NAT_ADDR_MAX, kind)
        with_port = isinstance(address, Lookup) and A.NAT_PROTO_MIN in found
        port = None if with_port else self._bounds(found, A.NAT_PROTO_MIN, A.NAT_PROTO_MAX, _PORT)
        name = "dnat" if to_be(found[A.NAT_TYPE]) else "snat"
        self._read.append(Nat(name, family, address, port, with_port, _nat_flags(found.get(A.NAT_FLAGS, b"\0"))))

    def _bounds(self, found: Attributes, low: int, high: int, kind: DataType) -> Expression | None:
        if low not in found:
            return None
        first = _typed(self._get(found, low), kind)
        if high not in found or found[high] == found[low]:
            return first
        last = _typed(self._get(found, high), kind)
        if not isinstance(first, Constant) or not isinstance(last, Constant):
            raise Unreadable("nat")
        return Range(kind, first.data, last.data)

    def masq(self, found: Attributes) -> None:
        port = self._bounds(found, A.MASQ_PROTO_MIN, A.MASQ_PROTO_MAX, _PORT)
        self._read.append(Masquerade("masquerade", port, _nat_flags(found.get(A.MASQ_FLAGS, b"\0"))))

    def redir(self, found: Attributes) -> None:
        port = self._bounds(found, A.REDIR_PROTO_MIN, A.REDIR_PROTO_MAX, _PORT)
        self._read.append(Masquerade("redirect", port, _nat_flags(found.get(A.REDIR_FLAGS, b"\0"))))

    def reject(self, found: Attributes) -> None:
        kind, code = to_be(found[A.REJECT_TYPE]), found.get(A.REJECT_CODE, b"\0")
        if kind == 1:
            self._read.append(Reject("tcp reset"))
            return
        if kind == 2:
            how = "icmpx"
        elif self._nfproto is not None:
            how = "icmp" if self._nfproto == fields.IPV4 else "icmpv6"
        else:
            raise Unreadable("reject")
        self._read.append(Reject(how, datatypes.datatype(f"{how}_code").format(code)))

    def log(self, found: Attributes) -> None:
        level = LEVELS[to_be(found[A.LOG_LEVEL])] if A.LOG_LEVEL in found else ""
        self._read.append(
            Log(
                to_string(found.get(A.LOG_PREFIX, b"")),
                to_be(found[A.LOG_GROUP]) if A.LOG_GROUP in found else None,
                to_be(found.get(A.LOG_SNAPLEN, b"\0")),
                to_be(found.get(A.LOG_QTHRESHOLD, b"\0")),
                "" if level == "warn" else level,
            )
        )

    def limit(self, found: Attributes) -> None:
        over = bool(to_be(found.get(A.LIMIT_FLAGS, b"\0")) & 1)
        kind = "bytes" if to_be(found[A.LIMIT_TYPE]) else "packets"
        unit = _UNIT_NAMES[to_be(found[A.LIMIT_UNIT])]
        self._read.append(Limit(to_be(found[A.LIMIT_RATE]), unit, to_be(found[A.LIMIT_BURST]), over, kind))

    def counter(self, found: Attributes) -> None:
        self._read.append(Counter(to_be(found[A.COUNTER_PACKETS]), to_be(found[A.COUNTER_BYTES])))

    def notrack(self, _found: Attributes) -> None:
        self._read.append(Notrack())


_INSTRUCTIONS: Final[Mapping[str, Callable[[Disassembler, Attributes], None]]] = {
    name: getattr(Disassembler, name)
    for name in (
        "payload", "meta", "ct", "fib", "numgen", "hash", "bitwise", "byteorder", "immediate", "cmp", "range", "lookup", "dynset",
        "nat", "masq", "redir", "reject", "log", "limit", "counter", "notrack",
    )
}  # fmt: skip


def _register(data: bytes) -> int:
    number = to_be(data)
    return (number - 1) * 4 if number < 8 else number - 8


def _value(data: bytes) -> bytes:
    return attributes(data)[A.DATA_VALUE]


def _verdict(data: bytes) -> Verdict:
    found = attributes(data)
    return Verdict(_CODES[to_be(found[A.VERDICT_CODE])], to_string(found.get(A.VERDICT_CHAIN, b"")))


def _typed(e: Expression, kind: DataType) -> Expression:
    return Constant(kind, e.data[: kind.size]) if isinstance(e, Constant) and e.type is _RAW else e


def _comparison(left: Expression, operator: str, kind: DataType, data: bytes) -> Match:
    if isinstance(left, Masked) and not any(left.xor) and operator in ("==", "!="):
        data = data.ljust(kind.size, b"\0")
        if kind.flags and not any(data):
            return Match(left.source, Constant(kind, left.mask), "&" if operator == "!=" else "!")
        bits = _prefix_length(left.mask) if kind.kind in ("ipv4", "ipv6") else None
        if bits is not None:
            return Match(left.source, Prefix(kind, data, bits), operator)
    return Match(left, Constant(kind, data), operator)


def _prefix_length(mask: bytes) -> int | None:
    number, size = int.from_bytes(mask, "big"), 8 * len(mask)
    bits = number.bit_count()
    return bits if number == (1 << size) - (1 << (size - bits)) else None


def _nat_flags(data: bytes) -> frozenset[str]:
    bits = to_be(data)
    return frozenset(name for name, bit in NAT_FLAGS.items() if bits & bit)
