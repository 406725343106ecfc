"""Printing: values to the text that ``nft -s list ruleset`` (1.0.6) prints for them.

The text is the canonical form of a ruleset: logs, errors, tests and people see this and nothing else. It reads back (text.py), and the nft
program loads it. Elements come in the order in which that program sorts them.

Source: nft(8), and the program's own listings, with which the tests compare.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Final

from podwire.nft import datatypes, fields
from podwire.nft.datatypes import DataType
from podwire.nft.model import (
    Assign,
    Chain,
    Concatenation,
    Constant,
    Counter,
    Ct,
    Element,
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
    Ruleset,
    Set,
    Statement,
    Table,
    Unknown,
    Update,
    Verdict,
    VerdictMap,
)

_PER_LINE: Final = {"ipv4_addr": 2, "inet_service": 5, "mark": 5, "inet_proto": 5, "integer": 5, "nf_proto": 5, "uid": 5, "gid": 5}
_PRIORITIES: Final = (("raw", -300), ("mangle", -150), ("dstnat", -100), ("filter", 0), ("security", 50), ("srcnat", 100))
_ONLY_ON: Final = {"dstnat": "prerouting", "srcnat": "postrouting"}
_FLAG_ORDER: Final = ("constant", "dynamic", "interval", "timeout")
_NAT_FLAG_ORDER: Final = ("random", "fully-random", "persistent")


def render(ruleset: Ruleset) -> str:
    """Print a ruleset exactly as ``nft -s list ruleset`` does."""
    return "".join(render_table(table) for table in ruleset.tables)


def render_table(table: Table) -> str:
    """Print one table."""
    blocks = [_set(one) for one in table.sets] + [_chain(chain, table.family) for chain in table.chains]
    head = "\tflags dormant\n" * table.dormant + (f'\tcomment "{table.comment}"\n' if table.comment else "")
    if head and blocks:
        head += "\n"
    return f"table {table.family} {table.name} {{\n{head}" + "\n".join(blocks) + "}\n"


# Chains and rules ------------------------------------------------------------------------------------------------------------


def render_rule(rule: Rule, family: str = "ip") -> str:
    """Print one rule."""
    text = " ".join(render_statement(statement, family) for statement in rule.statements)
    return f'{text} comment "{rule.comment}"' if rule.comment else text


def _chain(chain: Chain, family: str) -> str:
    lines = [f'\t\tcomment "{chain.comment}"'] if chain.comment else []
    if chain.hook:
        device = f' device "{chain.device}"' if chain.device else ""
        priority = render_priority(chain.priority, chain.hook)
        lines.append(f"\t\ttype {chain.type} hook {chain.hook}{device} priority {priority}; policy {chain.policy};")
    lines += [f"\t\t{render_rule(rule, family)}" for rule in chain.rules]
    return f"\tchain {chain.name} {{\n" + "".join(line + "\n" for line in lines) + "\t}\n"


def render_priority(priority: int, hook: str) -> str:
    """Print a priority by its nearest name, as nft does: ``dstnat - 10``."""
    for name, number in _PRIORITIES:
        offset = priority - number
        if abs(offset) <= 10 and _ONLY_ON.get(name, hook) == hook:
            return name if not offset else f"{name} {'+' if offset > 0 else '-'} {abs(offset)}"
    return str(priority)


def render_statement(statement: Statement, family: str = "ip") -> str:
    """Print one statement."""
    match statement:
        case Match():
            return _match(statement)
        case Verdict(kind, chain):
            return f"{kind} {chain}" if chain else kind
        case VerdictMap(key, held):
            return f"{render_expression(key)} vmap {_held(held)}"
        case Assign(target, value):
            return f"{render_expression(target)} set {render_expression(value)}"
        case Counter():
            return "counter"
        case Nat():
            return _nat(statement, family)
        case Masquerade(kind, port, flags):
            return kind + (f" to :{render_expression(port)}" if port else "") + _nat_flags(flags)
        case Reject(how, code):
            return "reject" + (f" with {how}" if how else "") + (f" {code}" if code else "")
        case Log():
            return _log(statement)
        case Limit():
            return _limit(statement)
        case Update():
            return _update(statement, family)
        case Notrack():
            return "notrack"
        case Unknown(name):
            return f"# {name}"


def _match(statement: Match) -> str:
    left, right, operator = statement.left, statement.right, statement.operator
    if isinstance(left, Masked) and isinstance(right, Constant) and right.type.flags and operator in ("==", "!="):
        sign = "" if operator == "==" else "!= "
        return f"{render_expression(left.source)} {sign}{render_expression(right)} / {right.type.format(left.mask)}"
    plain = operator == "&" or (operator == "==" and not (isinstance(right, Constant) and (right.type.flags or isinstance(left, Masked))))
    sign = "" if plain else f"{operator} "
    text = _held(right) if isinstance(right, Set | Reference) else render_expression(right)
    return f"{render_expression(left)} {sign}{text}"


def _held(held: Reference | Set) -> str:
    if isinstance(held, Reference):
        return f"@{held.name}"
    return "{ " + ", ".join(render_elements(held)) + " }"


def _nat(statement: Nat, family: str) -> str:
    shown = f" {statement.family}" if family == "inet" or statement.with_port else ""
    target = render_expression(statement.address) if statement.address else ""
    if statement.port:
        target = (f"[{target}]" if statement.family == "ip6" else target) + f":{render_expression(statement.port)}"
    return f"{statement.kind}{shown} to {target}" + _nat_flags(statement.flags)


def _nat_flags(flags: frozenset[str]) -> str:
    return "".join(f"{',' if i else ' '}{flag}" for i, flag in enumerate(flag for flag in _NAT_FLAG_ORDER if flag in flags))


def _log(statement: Log) -> str:
    parts = ["log"]
    if statement.prefix:
        parts.append(f'prefix "{statement.prefix}"')
    if statement.group is not None:
        parts.append(f"group {statement.group}")
    if statement.snaplen:
        parts.append(f"snaplen {statement.snaplen}")
    if statement.queue_threshold:
        parts.append(f"queue-threshold {statement.queue_threshold}")
    if statement.level:
        parts.append(f"level {statement.level}")
    return " ".join(parts)


def _limit(statement: Limit) -> str:
    over = "over " if statement.over else ""
    if statement.kind == "packets":
        burst = f" burst {statement.burst} packets" if statement.burst not in (0, 5) else ""
        return f"limit rate {over}{statement.rate}/{statement.unit}{burst}"
    burst = f" burst {_byte_unit(statement.burst)}" if statement.burst else ""
    return f"limit rate {over}{_byte_unit(statement.rate)}/{statement.unit}{burst}"


def _byte_unit(number: int) -> str:
    for unit in ("bytes", "kbytes"):
        if number % 1024 or not number:
            return f"{number} {unit}"
        number //= 1024
    return f"{number} mbytes"


def _update(statement: Update, family: str) -> str:
    parts = [render_expression(statement.key)]
    if statement.timeout_ms:
        parts.append(f"timeout {render_time(statement.timeout_ms)}")
    parts += [render_statement(inner, family) for inner in statement.statements]
    if statement.value is not None:
        parts.append(f": {render_expression(statement.value)}")
    return f"{statement.operation} @{statement.set} {{ {' '.join(parts)} }}"


def render_time(milliseconds: int) -> str:
    """Print a time: ``1h30m``."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"), (rest, "ms"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


# Expressions -----------------------------------------------------------------------------------------------------------------


def render_expression(e: Expression) -> str:
    """Print one expression."""
    match e:
        case Payload(protocol, field):
            return f"{protocol} {field}"
        case Meta(key):
            return key if key in fields.BARE_META else f"meta {key}"
        case Ct(key, direction):
            return f"ct {direction} {key}" if direction else f"ct {key}"
        case Fib(inputs, result):
            return f"fib {' . '.join(inputs)} {result}"
        case Numgen(mode, modulus, offset):
            return f"numgen {mode} mod {modulus}" + (f" offset {offset}" if offset else "")
        case Hash(source, modulus, seed, offset):
            head = "symhash" if source is None else f"jhash {render_expression(source)}"
            return f"{head} mod {modulus}" + (f" seed {seed:#x}" if seed is not None else "") + (f" offset {offset}" if offset else "")
        case Concatenation(parts):
            return " . ".join(render_expression(part) for part in parts)
        case Masked():
            return _masked(e)
        case Constant(kind, data):
            return kind.format(data)
        case Prefix(kind, data, bits):
            return f"{kind.format(data)}/{bits}"
        case Range(kind, low, high):
            return f"{kind.format(low)}-{kind.format(high)}"
        case Reference(name):
            return f"@{name}"
        case Lookup(key, held):
            return f"{render_expression(key)} map {_held(held)}"


def _masked(e: Masked) -> str:
    (kind,) = fields.types_of(e.source)
    ones = (1 << 8 * kind.size) - 1
    mask, xor = kind.to_int(e.mask), kind.to_int(e.xor)
    both = ~mask & xor & ones  # bits that are set whatever they were
    mask, xor = mask | both, xor & ~both
    text = render_expression(e.source)
    if mask != ones or (not both and not xor):
        text += f" & {_bits(kind, mask)}"
    if xor:
        text += f" ^ {_bits(kind, xor)}"
    if both:
        text += f" | {_bits(kind, both)}"
    return text


def _bits(kind: DataType, number: int) -> str:
    return kind.format(kind.from_int(number))


# Sets ------------------------------------------------------------------------------------------------------------------------


def _set(one: Set) -> str:
    by_example = bool(one.typeof_key)
    keys = " . ".join(map(render_expression, one.typeof_key) if by_example else (kind.name for kind in one.key_types))
    if one.is_map:
        shown = by_example and one.typeof_value
        keys += " : " + " . ".join(map(render_expression, one.typeof_value) if shown else (kind.name for kind in one.value_types))
    lines = [f"\t\t{'typeof' if by_example else 'type'} {keys}"]
    if one.size:
        lines.append(f"\t\tsize {one.size}")
    flags = [flag for flag in _FLAG_ORDER if flag in one.flags]
    if flags and not (flags == ["timeout"] and one.timeout_ms):
        lines.append(f"\t\tflags {','.join(flags)}")
    if one.timeout_ms:
        lines.append(f"\t\ttimeout {render_time(one.timeout_ms)}")
    if one.comment:
        lines.append(f'\t\tcomment "{one.comment}"')
    if one.elements:
        lines.append(f"\t\telements = {{ {_lines(one)} }}")
    return f"\t{'map' if one.is_map else 'set'} {one.name} {{\n" + "".join(line + "\n" for line in lines) + "\t}\n"


def _lines(one: Set) -> str:
    per_line = _PER_LINE.get(one.key_types[0].name, 1) if len(one.key_types) == 1 else 1
    texts = list(render_elements(one))
    rows = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return ",\n\t\t\t     ".join(rows)


def render_elements(one: Set) -> Iterable[str]:
    """Print the elements of a set in nft's order."""
    for element in sorted(one.elements.values(), key=_order(one.key_types)):
        yield render_element(one, element)


def _order(types: tuple[DataType, ...]) -> Callable[[Element], int]:
    if len(types) == 1:
        kind = types[0]
        return lambda element: kind.to_int(element.key)

    def concatenated(element: Element) -> int:
        # nft joins the fields without padding and reads the result as one number in the host's order.
        return int.from_bytes(b"".join(datatypes.unpack(types, element.key)), datatypes.HOST)

    return concatenated


def render_element(one: Set, element: Element) -> str:
    """Print one element."""
    text = _key(one.key_types, element)
    if element.timeout_ms:
        text += f" timeout {render_time(element.timeout_ms)}"
    if element.comment:
        text += f' comment "{element.comment}"'
    if element.value is None:
        return text
    if isinstance(element.value, Verdict):
        return f"{text} : {render_statement(element.value)}"
    return f"{text} : {_fields(one.value_types, element.value)}"


def _fields(types: tuple[DataType, ...], data: bytes) -> str:
    if len(types) == 1:
        return types[0].format(data)
    return " . ".join(kind.format(field) for kind, field in zip(types, datatypes.unpack(types, data), strict=True))


def _key(types: tuple[DataType, ...], element: Element) -> str:
    if not element.end:
        return _fields(types, element.key)
    ends = zip(types, datatypes.unpack(types, element.key), datatypes.unpack(types, element.end), strict=True)
    return " . ".join(interval(kind, low, high) for kind, low, high in ends)


@functools.lru_cache(maxsize=1024)
def interval(kind: DataType, low: bytes, high: bytes) -> str:
    """Print one field of an interval: a value, a prefix where it is one (addresses), a range."""
    if low == high:
        return kind.format(low)
    if kind.kind in ("ipv4", "ipv6"):
        first, last = int.from_bytes(low, "big"), int.from_bytes(high, "big")
        size = last - first + 1
        if size & (size - 1) == 0 and first % size == 0:
            return f"{kind.format(low)}/{8 * kind.size - size.bit_length() + 1}"
    return f"{kind.format(low)}-{kind.format(high)}"
