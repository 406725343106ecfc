"""Reading nft's language: statements and rules.

One function for each statement, called by its first word from one table; what begins with an expression is a comparison, an
assignment or a verdict map. A rule that is read comes out in one form: what nft would leave out of a listing (a dependency that
another word already says, the usual way to refuse) is left out here too, so that rules compare by value.

Source: nft(8), STATEMENTS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from podwire.nft import datatypes, fields
from podwire.nft.datatypes import DataType
from podwire.nft.language import (
    VERDICTS,
    Words,
    constant,
    expression,
    milliseconds,
    reference_or_set,
    starts_expression,
    value,
    verdict,
)
from podwire.nft.model import (
    Assign,
    Concatenation,
    Constant,
    Counter,
    Ct,
    Expression,
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
    Payload,
    Prefix,
    Range,
    Reference,
    Reject,
    Rule,
    Set,
    Statement,
    Update,
    VerdictMap,
)


class Scope(NamedTuple):
    """What a rule is read in: the family of its table, and the table's sets as far as they are known."""

    family: str
    sets: Mapping[str, Set] | None


Reader: TypeAlias = Callable[[Words, Scope], Statement]
_ADDRESS: Final = {"ip": datatypes.datatype("ipv4_addr"), "ip6": datatypes.datatype("ipv6_addr")}
_PORT: Final = datatypes.datatype("inet_service")
_NAT_FLAGS: Final = frozenset({"random", "fully-random", "persistent"})
_COMPARISONS: Final = frozenset({"==", "!=", "<", ">", "<=", ">="})
_REJECT_CODES: Final = {"icmp": "icmp_code", "icmpv6": "icmpv6_code", "icmpx": "icmpx_code"}
USUAL_REJECT: Final = {"ip": ("icmp", "port-unreachable"), "ip6": ("icmpv6", "port-unreachable"), "inet": ("icmpx", "port-unreachable")}
_LEVELS: Final = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_BYTE_UNITS: Final = {"bytes": 1, "kbytes": 1024, "mbytes": 1024 * 1024}


def read_rule(words: Words, scope: Scope) -> Rule:
    """Read one rule up to the end of its line, ``;`` or ``}``. Raises Unreadable."""
    statements: list[Statement] = []
    comment = ""
    while not words.at_end():
        if words.take("comment"):
            comment = words.string()
            break
        statements.append(_statement(words, scope))
    if not statements:
        raise words.error("an empty rule")
    return Rule(canonical(tuple(statements), scope.family), comment)


def _statement(words: Words, scope: Scope) -> Statement:
    if starts_expression(words):
        return _with_expression(words, scope.sets)
    word = words.peek()
    if word in VERDICTS:
        return verdict(words)
    if word not in _READERS:
        raise words.error(f"unknown statement {word}")
    return _READERS[words.next()](words, scope)


def _with_expression(words: Words, sets: Mapping[str, Set] | None) -> Statement:
    left = expression(words)
    if words.take("set"):
        if not isinstance(left, Meta | Ct):
            raise words.error("only meta and ct keys can be set")
        return Assign(left, value(words, fields.types_of(left), sets))
    kinds = fields.types_of(left, sets)
    if words.take("vmap"):
        return VerdictMap(left, reference_or_set(words, kinds, (datatypes.datatype("verdict"),)))
    if words.peek() == "map":
        raise words.error("a look-up cannot be compared: nft cannot list it; carry the value in a mark")
    return _match(words, left, kinds)


def _match(words: Words, left: Expression, kinds: tuple[DataType, ...]) -> Match:
    operator = words.next() if words.peek() in _COMPARISONS else ""
    if words.take("!"):
        operator = "!"
    if words.peek().startswith("@") or words.peek() == "{":
        return Match(left, reference_or_set(words, kinds), operator or "==")
    if len(kinds) != 1:
        raise words.error("several fields are compared with a set: write `{ ... }` or `@name`")
    (kind,) = kinds
    right = constant(words, kind)
    if words.take("/"):
        mask = constant(words, kind)
        if not isinstance(mask, Constant):
            raise words.error("a mask is needed here")
        return Match(Masked(left, mask.data, bytes(kind.size)), right, operator or "==")
    if not operator and kind.flags and isinstance(right, Constant) and not isinstance(left, Masked):
        operator = "&"
    return Match(left, right, operator or "==")


def _counter(words: Words, _scope: Scope) -> Statement:
    if not words.take("packets"):
        return Counter()
    packets = words.number()
    words.expect("bytes")
    return Counter(packets, words.number())


def _nat(kind: str) -> Reader:
    def read(words: Words, scope: Scope) -> Statement:
        explicit = words.next() if words.peek() in _ADDRESS else ""
        target = explicit or scope.family
        if target not in _ADDRESS:
            raise words.error(f"{kind} in the family {scope.family} must say ip or ip6")
        words.take("addr", ".", "port")
        words.expect("to")
        address, port, with_port = _target(words, target, scope.sets, assume_port=bool(explicit) and scope.family != "inet")
        return Nat(kind, target, address, port, with_port, _nat_flags(words))

    return read


def _target(words: Words, family: str, sets: Mapping[str, Set] | None, *, assume_port: bool) -> tuple[Expression, Expression | None, bool]:
    kind = _ADDRESS[family]
    if starts_expression(words):
        source = expression(words)
        if not words.take("map"):
            return source, None, False
        if words.peek() == "{":
            with_port = _values_have_ports(words)
            return (
                Lookup(source, reference_or_set(words, fields.types_of(source), (kind, _PORT) if with_port else (kind,))),
                None,
                with_port,
            )
        held = Reference(words.next()[1:])
        known = (sets or {}).get(held.name)
        with_port = len(known.value_types) > 1 if known else assume_port
        return Lookup(source, held), None, with_port
    text, port = words.next(), None
    if text.startswith("["):
        text, _, rest = text[1:].partition("]")
        port = _port(words, rest[1:]) if rest else None
    elif family == "ip" and ":" in text:
        text, _, rest = text.partition(":")
        port = _port(words, rest)
    return constant(Words(text), kind), port, False


def _values_have_ports(words: Words) -> bool:
    ahead = 0
    while words.peek(ahead) not in (":", "}", ""):
        ahead += 1
    return words.peek(ahead + 2) == "."


def _port(words: Words, text: str) -> Constant | Range:
    read = constant(Words(text), _PORT)
    if isinstance(read, Prefix):
        raise words.error(f"{text} is no port")
    return read


def _nat_flags(words: Words) -> frozenset[str]:
    flags = set()
    while words.peek() in _NAT_FLAGS:
        flags.add(words.next())
        words.take(",")
    return frozenset(flags)


def _own_address(kind: str) -> Reader:
    def read(words: Words, _scope: Scope) -> Statement:
        port = _port(words, words.next().removeprefix(":")) if words.take("to") else None
        return Masquerade(kind, port, _nat_flags(words))

    return read


def _reject(words: Words, _scope: Scope) -> Statement:
    if not words.take("with"):
        return Reject()
    if words.take("tcp"):
        words.expect("reset")
        return Reject("tcp reset")
    how = words.next()
    if how not in _REJECT_CODES:
        raise words.error(f"reject with {how} is unknown")
    words.take("type")
    code = words.next()
    if code not in datatypes.datatype(_REJECT_CODES[how]).symbols:
        raise words.error(f"unknown {how} code {code}")
    return Reject(how, code)


def _log(words: Words, _scope: Scope) -> Statement:
    read: dict[str, object] = {}
    names = {"prefix": "prefix", "group": "group", "snaplen": "snaplen", "queue-threshold": "queue_threshold", "level": "level"}
    while words.peek() in names:
        name = words.next()
        read[names[name]] = words.string() if name == "prefix" else words.next() if name == "level" else words.number()
    if read.get("level", "warn") not in _LEVELS:
        raise words.error(f"unknown log level {read['level']}")
    if read.get("level") == "warn":
        del read["level"]
    return Log(**read)  # type: ignore[arg-type]


def _limit(words: Words, _scope: Scope) -> Statement:
    words.expect("rate")
    over = words.take("over")
    words.take("until")
    text, factor, kind = words.next(), 1, "packets"
    if "/" not in text:
        count, text = text, words.next()
        unit, _, per = text.partition("/")
        if unit not in _BYTE_UNITS:
            raise words.error(f"{unit} is no unit of a rate")
        factor, kind = _BYTE_UNITS[unit], "bytes"
    else:
        count, _, per = text.partition("/")
    if per not in ("second", "minute", "hour", "day") or not count.isdigit():
        raise words.error("a rate is NUMBER/second, minute, hour or day")
    burst = 5 if kind == "packets" else 0
    if words.take("burst"):
        burst = words.number() * _BYTE_UNITS.get(words.next(), 1)
    return Limit(int(count) * factor, per, burst, over, kind)


def _update(operation: str) -> Reader:
    def read(words: Words, scope: Scope) -> Statement:
        name = words.next()
        if not name.startswith("@"):
            raise words.error(f"{operation} needs @set")
        words.expect("{")
        key = expression(words)
        timeout = milliseconds(words.next()) if words.take("timeout") else 0
        inner: list[Statement] = []
        while words.peek() in ("counter", "limit"):
            inner.append(_READERS[words.next()](words, scope))
        data = expression(words) if words.take(":") else None
        words.expect("}")
        return Update(operation, name[1:], key, data, timeout, tuple(inner))

    return read


def _notrack(_words: Words, _scope: Scope) -> Statement:
    return Notrack()


_READERS: Final[Mapping[str, Reader]] = {
    "counter": _counter,
    "dnat": _nat("dnat"),
    "snat": _nat("snat"),
    "masquerade": _own_address("masquerade"),
    "redirect": _own_address("redirect"),
    "reject": _reject,
    "log": _log,
    "limit": _limit,
    "add": _update("add"),
    "update": _update("update"),
    "delete": _update("delete"),
    "notrack": _notrack,
}


# One form ------------------------------------------------------------------------------------------------------------------


def canonical(statements: tuple[Statement, ...], family: str) -> tuple[Statement, ...]:
    """Give the statements in the form in which nft lists them, so that rules that mean the same compare as equal.

    ``meta l4proto tcp`` goes when a later field says tcp, and makes ``th dport`` into ``tcp dport``; likewise ``meta nfproto ipv4`` in the
    family inet before ``ip saddr``; the usual ``reject`` loses its code; and a reset in the family inet names its protocol.
    """
    result: list[Statement] = []
    l4: int | None = None  # where in the result the l4proto comparison stands that is not yet used
    l4_is: int | None = None
    nf: int | None = None
    for statement in statements:
        number = _compared_with(statement, "l4proto")
        if number is not None:
            l4, l4_is = len(result), number
        nfproto = _compared_with(statement, "nfproto")
        if nfproto is not None and family == "inet":
            nf = len(result)
        named = _name_transport(statement, l4_is)
        headers = {fields.PROTOCOLS[p.protocol] for p in payloads(named)}
        if l4 is not None and any(h.l4proto is not None for h in headers):
            result[l4] = _GONE
            l4 = None
        if nf is not None and any(h.nfproto is not None for h in headers):
            result[nf] = _GONE
            nf = None
        l4_is = next((h.l4proto for h in headers if h.l4proto is not None), l4_is)
        if isinstance(named, Reject):
            l4, nf = _reject_form(named, family, result, l4, nf, l4_is)
        else:
            result.append(named)
    return tuple(statement for statement in result if statement is not _GONE)


_GONE: Final = Counter(-1, -1)


def _reject_form(
    statement: Reject, family: str, result: list[Statement], l4: int | None, nf: int | None, l4_is: int | None
) -> tuple[int | None, int | None]:
    if statement.how == "tcp reset":
        if family == "inet" and l4_is != 6:
            result.append(Match(Meta("l4proto"), Constant(datatypes.datatype("inet_proto"), b"\x06")))
        elif family != "inet" and l4 is not None and l4_is == 6:
            result[l4], l4 = _GONE, None
    if nf is not None and statement.how in ("icmp", "icmpv6"):
        result[nf], nf = _GONE, None
    usual = (statement.how, statement.code) == USUAL_REJECT.get(family)
    result.append(Reject() if usual else statement)
    return l4, nf


def _compared_with(statement: Statement, key: str) -> int | None:
    if (
        isinstance(statement, Match)
        and statement.left == Meta(key)
        and statement.operator == "=="
        and isinstance(statement.right, Constant)
    ):
        return statement.right.data[0]
    return None


def _name_transport(statement: Statement, l4proto: int | None) -> Statement:
    header = fields.PROTOCOL_BY_L4.get(l4proto) if l4proto is not None else None
    if header is None or header.name not in ("tcp", "udp", "sctp"):
        return statement

    def named(e: Expression) -> Expression:
        match e:
            case Payload("th", field):
                return Payload(header.name, field)
            case Concatenation(parts):
                return Concatenation(tuple(named(part) for part in parts))
            case Masked(source, mask, xor):
                return Masked(named(source), mask, xor)
        return e

    match statement:
        case Match(left, right, operator):
            return Match(named(left), right, operator)
        case VerdictMap(key, held):
            return VerdictMap(named(key), held)
    return statement


def payloads(statement: Statement) -> tuple[Payload, ...]:
    """All packet fields that a statement reads, from left to right."""
    match statement:
        case Match(left) | VerdictMap(left):
            return _in(left)
        case Assign(_, source):
            return _in(source)
        case Nat(_, _, address, port):
            return _in(address) + _in(port)
        case Update(_, _, key, data):
            return _in(key) + _in(data)
    return ()


def _in(e: Expression | None) -> tuple[Payload, ...]:
    match e:
        case Payload():
            return (e,)
        case Concatenation(parts):
            return tuple(found for part in parts for found in _in(part))
        case Masked(source) | Lookup(source) | Hash(source):
            return _in(source)
    return ()
