"""Rules to the kernel's instructions.

A rule in the kernel is a list of instructions over sixteen registers of four bytes: load a field, compare a register, look a key
up. A key of several fields lies in neighbouring registers, each field padded to whole registers. Nothing in a register outlives
its rule, so every statement may begin at register 0.

What text leaves unsaid is added here: before ``tcp dport`` the comparison ``meta l4proto tcp``, in the family inet before ``ip saddr`` the
comparison ``meta nfproto ipv4``.

Source: linux/netfilter/nf_tables.h; ``nft --debug=netlink`` shows the same instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from podwire.nft import datatypes, fields
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
    Rule,
    Set,
    Statement,
    Unknown,
    Update,
    Verdict,
    VerdictMap,
)
from podwire.nft.statements import USUAL_REJECT, payloads
from podwire.wire.netlink import attribute, be16, be32, be64, nested, string, u8
from podwire.wire.nfnetlink import NFTA as A

REGISTERS: Final = 16
CODES: Final = {"drop": 0, "accept": 1, "continue": -1, "jump": -3, "goto": -4, "return": -5}
NAT_FLAGS: Final = {"random": 4, "persistent": 8, "fully-random": 16}
UNITS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
LEVELS: Final = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
OPERATIONS: Final = ("add", "update", "delete")
COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
REJECT_TYPES: Final = {"icmp": 0, "icmpv6": 0, "tcp reset": 1, "icmpx": 2}
_WORD: Final = 4
_VERDICT_REGISTER: Final = 0

SetNamer = Callable[[Set, tuple[Expression, ...]], tuple[str, int]]
"""Given a set written inside a rule and the fields that it is looked up by: a name and an id for it in the transaction."""


def register(number: int) -> int:
    """The kernel's number of the n-th register of four bytes."""
    if number >= REGISTERS:
        raise Unreadable("a rule needs more than sixteen registers")
    return 8 + number


def verdict_data(verdict: Verdict) -> bytes:
    """The attributes of a verdict, as they stand in an immediate or in an element."""
    parts = [be32(A.VERDICT_CODE, CODES[verdict.kind] & 0xFFFFFFFF)]
    if verdict.chain:
        parts.append(string(A.VERDICT_CHAIN, verdict.chain))
    return nested(A.DATA_VERDICT, *parts)


def _data(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(A.DATA_VALUE, data))


def _words(size: int) -> int:
    return (size + 3) // _WORD


class Assembler:
    """The instructions of one rule, as they grow. ``set_name`` takes in the sets that are written inside it."""

    def __init__(self, family: str, set_name: SetNamer) -> None:
        self._family = family
        self._set_name = set_name
        self._nfproto = {"ip": fields.IPV4, "ip6": fields.IPV6}.get(family)
        self._l4proto: int | None = None
        self.parts: list[bytes] = []

    def rule(self, rule: Rule) -> bytes:
        """Assemble a rule: the attribute RULE_EXPRESSIONS. Raises Unreadable for what has no instructions."""
        for statement in rule.statements:
            self._statement(statement)
        return nested(A.RULE_EXPRESSIONS, *self.parts)

    def _emit(self, name: str, *parts: bytes) -> None:
        self.parts.append(nested(A.LIST_ELEM, string(A.EXPR_NAME, name), nested(A.EXPR_DATA, *parts)))

    # Statements

    def _statement(self, statement: Statement) -> None:
        for field in payloads(statement):
            self._depend(fields.PROTOCOLS[field.protocol])
        match statement:
            case Match():
                self._match(statement)
            case Verdict():
                data = nested(A.IMMEDIATE_DATA, verdict_data(statement))
                self._emit("immediate", be32(A.IMMEDIATE_DREG, _VERDICT_REGISTER), data)
            case VerdictMap(key, held):
                self._load(key, 0)
                self._lookup(held, key, 0, be32(A.LOOKUP_DREG, _VERDICT_REGISTER))
            case Assign(target, value):
                self._load(value, 0)
                self._assign(target)
            case Counter(packets, size):
                self._emit("counter", be64(A.COUNTER_BYTES, size), be64(A.COUNTER_PACKETS, packets))
            case Nat():
                self._nat(statement)
            case Masquerade():
                self._own_address(statement)
            case Reject():
                self._reject(statement)
            case Log():
                self._log(statement)
            case Limit():
                self._emit("limit", *_limit(statement))
            case Update():
                self._update(statement)
            case Notrack():
                self._emit("notrack")
            case Unknown(name):
                raise Unreadable(f"the statement {name} is not known here and cannot be written")

    def _depend(self, header: fields.Protocol) -> None:
        if header.nfproto is not None and self._nfproto != header.nfproto:
            if self._nfproto is not None:
                raise Unreadable(f"{header.name} in a table of the family {self._family}")
            self._compare_byte("nfproto", header.nfproto)
            self._nfproto = header.nfproto
        if header.l4proto is not None and self._l4proto != header.l4proto:
            self._compare_byte("l4proto", header.l4proto)
            self._l4proto = header.l4proto

    def _compare_byte(self, key: str, value: int) -> None:
        self._load(Meta(key), 0)
        self._compare("==", bytes((value,)))

    def _compare(self, operator: str, data: bytes) -> None:
        code = COMPARISONS.index(operator)
        self._emit("cmp", be32(A.CMP_SREG, register(0)), be32(A.CMP_OP, code), _data(A.CMP_DATA, data))

    def _match(self, statement: Match) -> None:
        left, right, operator = statement.left, statement.right, statement.operator
        self._load(left, 0)
        match right:
            case Set() | Reference():
                self._lookup(right, left, 0, be32(A.LOOKUP_FLAGS, 1) if operator == "!=" else b"")
            case Constant(kind, data) if operator in ("&", "!"):
                self._bitwise(data, bytes(kind.size))
                self._compare("!=" if operator == "&" else "==", bytes(kind.size))
            case Constant(kind, data):
                ordered = operator not in ("==", "!=")
                self._compare(operator, self._comparable(kind, data) if ordered else data)
            case Prefix(kind, data, bits):
                mask = ((1 << 8 * kind.size) - (1 << (8 * kind.size - bits))).to_bytes(kind.size, "big")
                self._bitwise(mask, bytes(kind.size))
                self._compare(operator, data)
            case Range(kind, low, high):
                self._match_range(operator, kind, low, high)
            case _:
                raise Unreadable(f"a comparison with {right}")
        self._learn(statement)

    def _match_range(self, operator: str, kind: DataType, low: bytes, high: bytes) -> None:
        first, last = self._comparable(kind, low), self._comparable(kind, high, convert=False)
        if operator == "!=":
            bounds = (_data(A.RANGE_FROM, first), _data(A.RANGE_TO, last))
            self._emit("range", be32(A.RANGE_SREG, register(0)), be32(A.RANGE_OP, 1), *bounds)
        else:
            self._compare(">=", first)
            self._compare("<=", last)

    def _comparable(self, kind: DataType, data: bytes, *, convert: bool = True) -> bytes:
        """Order is by bytes from the left: a host-order number is turned round, in the register and in the constant."""
        if not kind.host_order:
            return data
        if convert:
            registers = (be32(A.BYTEORDER_SREG, register(0)), be32(A.BYTEORDER_DREG, register(0)))
            sizes = (be32(A.BYTEORDER_LEN, kind.size), be32(A.BYTEORDER_SIZE, kind.size))
            self._emit("byteorder", *registers, be32(A.BYTEORDER_OP, 1), *sizes)
        return kind.to_int(data).to_bytes(kind.size, "big")

    def _learn(self, statement: Match) -> None:
        if statement.operator == "==" and isinstance(statement.right, Constant):
            if statement.left == Meta("l4proto"):
                self._l4proto = statement.right.data[0]
            elif statement.left == Meta("nfproto"):
                self._nfproto = statement.right.data[0]

    def _assign(self, target: Meta | Ct) -> None:
        if isinstance(target, Meta):
            self._emit("meta", be32(A.META_KEY, fields.META[target.key][0]), be32(A.META_SREG, register(0)))
        else:
            self._emit("ct", be32(A.CT_KEY, fields.CT[target.key][0]), be32(A.CT_SREG, register(0)))

    def _nat(self, statement: Nat) -> None:
        family = fields.IPV4 if statement.family == "ip" else fields.IPV6
        parts = [be32(A.NAT_TYPE, 0 if statement.kind == "snat" else 1), be32(A.NAT_FAMILY, family)]
        if statement.address is not None:
            parts += self._bounds(statement.address, 0, A.NAT_ADDR_MIN, A.NAT_ADDR_MAX)
        if statement.with_port:
            parts.append(be32(A.NAT_PROTO_MIN, register(1 if statement.family == "ip" else 4)))
        if statement.port is not None:
            parts += self._bounds(statement.port, 8, A.NAT_PROTO_MIN, A.NAT_PROTO_MAX)
        self._emit("nat", *parts, *_nat_flags(A.NAT_FLAGS, statement.flags))

    def _bounds(self, value: Expression, at: int, low: int, high: int) -> list[bytes]:
        if isinstance(value, Range):
            self._immediate(value.low, at)
            self._immediate(value.high, at + 4)
            return [be32(low, register(at)), be32(high, register(at + 4))]
        self._load(value, at)
        return [be32(low, register(at))]

    def _own_address(self, statement: Masquerade) -> None:
        low, high, flags = A.MASQ_PROTO_MIN, A.MASQ_PROTO_MAX, A.MASQ_FLAGS
        if statement.kind == "redirect":
            low, high, flags = A.REDIR_PROTO_MIN, A.REDIR_PROTO_MAX, A.REDIR_FLAGS
        parts = self._bounds(statement.port, 0, low, high) if statement.port is not None else []
        self._emit("masq" if statement.kind == "masquerade" else "redir", *parts, *_nat_flags(flags, statement.flags))

    def _reject(self, statement: Reject) -> None:
        how, code = (statement.how, statement.code) if statement.how else USUAL_REJECT[self._family]
        if how == "tcp reset" and self._l4proto != 6:
            self._depend(fields.PROTOCOLS["tcp"])
        if how in ("icmp", "icmpv6"):
            self._depend(fields.PROTOCOLS["ip" if how == "icmp" else "ip6"])
        number = datatypes.datatype(f"{how}_code").symbols[code] if code else 0
        self._emit("reject", be32(A.REJECT_TYPE, REJECT_TYPES[how]), u8(A.REJECT_CODE, number))

    def _log(self, statement: Log) -> None:
        parts = [string(A.LOG_PREFIX, statement.prefix)] if statement.prefix else []
        if statement.group is not None:
            parts.append(be16(A.LOG_GROUP, statement.group))
        if statement.snaplen:
            parts.append(be32(A.LOG_SNAPLEN, statement.snaplen))
        if statement.queue_threshold:
            parts.append(be16(A.LOG_QTHRESHOLD, statement.queue_threshold))
        if statement.level:
            parts.append(be32(A.LOG_LEVEL, LEVELS.index(statement.level)))
        self._emit("log", *parts)

    def _update(self, statement: Update) -> None:
        size = self._load(statement.key, 0)
        parts = [
            string(A.DYNSET_NAME, statement.set),
            be32(A.DYNSET_OP, OPERATIONS.index(statement.operation)),
            be32(A.DYNSET_SREG_KEY, register(0)),
        ]
        if statement.value is not None:
            self._load(statement.value, _words(size))
            parts.append(be32(A.DYNSET_SREG_DATA, register(_words(size))))
        if statement.timeout_ms:
            parts.append(be64(A.DYNSET_TIMEOUT, statement.timeout_ms))
        if len(statement.statements) > 1:
            raise Unreadable("one statement at most beside an element that a packet adds")
        for inner in statement.statements:
            kept, self.parts = self.parts, []
            self._statement(inner)
            (encoded,), self.parts = self.parts, kept
            parts += [be32(A.DYNSET_FLAGS, 2), attribute(A.DYNSET_EXPR | 0x8000, encoded[4:])]
        self._emit("dynset", *parts)

    # Expressions: each loads its value into registers from ``at`` on and says how many bytes it takes there

    def _load(self, e: Expression, at: int) -> int:
        match e:
            case Payload(protocol, name):
                field = fields.payload(protocol, name)
                where = (be32(A.PAYLOAD_BASE, fields.PROTOCOLS[protocol].base), be32(A.PAYLOAD_OFFSET, field.offset))
                self._emit("payload", be32(A.PAYLOAD_DREG, register(at)), *where, be32(A.PAYLOAD_LEN, field.type.size))
            case Meta(key):
                self._emit("meta", be32(A.META_KEY, fields.META[key][0]), be32(A.META_DREG, register(at)))
            case Ct(key, direction):
                way = u8(A.CT_DIRECTION, fields.CT_DIRECTIONS[direction]) if direction else b""
                self._emit("ct", be32(A.CT_KEY, fields.CT[key][0]), be32(A.CT_DREG, register(at)), way)
            case Fib(inputs, result):
                bits = sum(fields.FIB_INPUTS[name] for name in inputs)
                parts = (be32(A.FIB_RESULT, fields.FIB_RESULTS[result][0]), be32(A.FIB_FLAGS, bits))
                self._emit("fib", be32(A.FIB_DREG, register(at)), *parts)
            case Numgen(mode, modulus, offset):
                parts = (be32(A.NG_MODULUS, modulus), be32(A.NG_TYPE, 0 if mode == "inc" else 1))
                self._emit("numgen", be32(A.NG_DREG, register(at)), *parts, be32(A.NG_OFFSET, offset))
            case Hash():
                self._hash(e, at)
            case Concatenation(parts):
                start = at
                for part in parts:
                    at += _words(self._load(part, at))
                return (at - start) * _WORD
            case Masked(source, mask, xor):
                self._load(source, at)
                self._bitwise(mask, xor, at)
            case Constant(_, data):
                self._immediate(data, at)
            case Lookup(key, held):
                self._load(key, at)
                self._lookup(held, key, at, be32(A.LOOKUP_DREG, register(at)))
                return _WORD
            case _:
                raise Unreadable(f"{e} is no value")
        return sum(kind.size for kind in fields.types_of(e))

    def _hash(self, e: Hash, at: int) -> None:
        parts = [be32(A.HASH_DREG, register(at)), be32(A.HASH_MODULUS, e.modulus)]
        if e.offset:
            parts.append(be32(A.HASH_OFFSET, e.offset))
        if e.source is None:
            self._emit("hash", *parts, be32(A.HASH_TYPE, 1))
            return
        size = self._load(e.source, at + 4)
        parts += [be32(A.HASH_SREG, register(at + 4)), be32(A.HASH_LEN, _words(size) * _WORD), be32(A.HASH_TYPE, 0)]
        if e.seed is not None:
            parts.append(be32(A.HASH_SEED, e.seed))
        self._emit("hash", *parts)

    def _immediate(self, data: bytes, at: int) -> None:
        self._emit("immediate", be32(A.IMMEDIATE_DREG, register(at)), _data(A.IMMEDIATE_DATA, data))

    def _bitwise(self, mask: bytes, xor: bytes, at: int = 0) -> None:
        registers = (be32(A.BITWISE_SREG, register(at)), be32(A.BITWISE_DREG, register(at)))
        self._emit("bitwise", *registers, be32(A.BITWISE_LEN, len(mask)), _data(A.BITWISE_MASK, mask), _data(A.BITWISE_XOR, xor))

    def _lookup(self, held: Reference | Set, key: Expression, at: int, *parts: bytes) -> None:
        if isinstance(held, Reference):
            name = string(A.LOOKUP_SET, held.name)
        else:
            examples = key.parts if isinstance(key, Concatenation) else (key,)
            text, number = self._set_name(held, examples)
            name = string(A.LOOKUP_SET, text) + be32(A.LOOKUP_SET_ID, number)
        self._emit("lookup", name, be32(A.LOOKUP_SREG, register(at)), *parts)


def _nat_flags(kind: int, flags: frozenset[str]) -> list[bytes]:
    return [be32(kind, sum(NAT_FLAGS[flag] for flag in flags))] if flags else []


def _limit(statement: Limit) -> tuple[bytes, ...]:
    return (
        be64(A.LIMIT_RATE, statement.rate),
        be64(A.LIMIT_UNIT, UNITS[statement.unit]),
        be32(A.LIMIT_BURST, statement.burst),
        be32(A.LIMIT_TYPE, 0 if statement.kind == "packets" else 1),
        be32(A.LIMIT_FLAGS, int(statement.over)),
    )
