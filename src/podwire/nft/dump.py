"""Netlink messages to values: what the kernel says is there.

A dump is four answers (tables, chains, sets, rules) and one for the elements of each set. The asking is in ``podwire.linux``; here the
answers become a Ruleset that compares with a wanted one. Sets that are written inside rules come as sets named ``__set0``; they end up
inside their rules again.

Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from podwire.nft import datatypes, fields, userdata
from podwire.nft.datatypes import DataType, Unreadable
from podwire.nft.disassembly import Disassembler
from podwire.nft.model import Chain, Element, Expression, Rule, Set, TableName
from podwire.nft.rows import Packed, form, has_rows, read_element, split
from podwire.wire import nfnetlink
from podwire.wire.netlink import attributes, to_be, to_string
from podwire.wire.nfnetlink import NFTA as A
from podwire.wire.nfnetlink import SetFlag

_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_FLAGS: Final = (("constant", SetFlag.CONSTANT), ("interval", SetFlag.INTERVAL), ("timeout", SetFlag.TIMEOUT), ("dynamic", SetFlag.EVAL))


def table_of(payload: bytes) -> TableName:
    """Say which table any message is about."""
    return nfnetlink.FAMILY_NAMES.get(payload[0], str(payload[0])), to_string(attributes(payload, 4)[A.TABLE_NAME])


def table_comment(payload: bytes) -> str:
    """Read the comment of a NEWTABLE message."""
    return userdata.read_comment(attributes(payload, 4).get(A.TABLE_USERDATA, b""))


def table_dormant(payload: bytes) -> bool:
    """Say whether the table of a NEWTABLE message is asleep."""
    return bool(to_be(attributes(payload, 4).get(A.TABLE_FLAGS, b"\0")) & nfnetlink.TABLE_DORMANT)


def chain(payload: bytes) -> Chain:
    """Read a NEWCHAIN message: the chain without its rules."""
    found = attributes(payload, 4)
    name, comment = to_string(found[A.CHAIN_NAME]), userdata.read_comment(found.get(A.CHAIN_USERDATA, b""))
    if A.CHAIN_HOOK not in found:
        return Chain(name, comment=comment)
    hook = attributes(found[A.CHAIN_HOOK])
    priority = int.from_bytes(hook[A.HOOK_PRIORITY], "big", signed=True)
    policy = "accept" if to_be(found[A.CHAIN_POLICY]) else "drop"
    place, device = _HOOKS[to_be(hook[A.HOOK_HOOKNUM])], to_string(hook.get(A.HOOK_DEV, b""))
    return Chain(name, (), to_string(found[A.CHAIN_TYPE]), place, priority, policy, device, comment)


def rule(payload: bytes, family: str, sets: Mapping[str, Set]) -> tuple[str, Rule]:
    """Read a NEWRULE message: the name of its chain, and the rule with its handle. ``sets`` are the table's, unnamed ones included."""
    found = attributes(payload, 4)
    statements = Disassembler(family, sets).rule(found.get(A.RULE_EXPRESSIONS, b""))
    comment = userdata.read_comment(found.get(A.RULE_USERDATA, b""))
    return to_string(found[A.RULE_CHAIN]), Rule(statements, comment, to_be(found[A.RULE_HANDLE]))


def is_inline(one: Set) -> bool:
    """Say whether a set that was read is one written inside a rule (``__set0``)."""
    return one.name.startswith("__")


# Sets ------------------------------------------------------------------------------------------------------------------------


def declaration(payload: bytes) -> Set:
    """Read a NEWSET message: the set without its elements. Raises Unreadable for types that are not known here."""
    found = attributes(payload, 4)
    bits = to_be(found.get(A.SET_FLAGS, b"\0"))
    flags = frozenset(name for name, bit in _FLAGS if bits & bit)
    typeof_key, typeof_value, comment = userdata.read_set(found.get(A.SET_USERDATA, b""))
    key_types = _types(typeof_key, to_be(found[A.SET_KEY_TYPE]), to_be(found[A.SET_KEY_LEN]))
    value_types: tuple[DataType, ...] = ()
    if bits & SetFlag.MAP:
        number = to_be(found[A.SET_DATA_TYPE])
        verdicts = number == nfnetlink.DATA_TYPE_VERDICT
        value_types = (datatypes.datatype("verdict"),) if verdicts else _types(typeof_value, number, to_be(found[A.SET_DATA_LEN]))
    size = to_be(attributes(found.get(A.SET_DESC, b"")).get(A.DESC_SIZE, b"\0"))
    return Set(
        to_string(found[A.SET_NAME]),
        key_types,
        value_types,
        flags,
        size,
        to_be(found.get(A.SET_TIMEOUT, b"\0")),
        typeof_key,
        typeof_value,
        comment=comment,
    )


def _types(examples: tuple[Expression, ...], number: int, size: int) -> tuple[DataType, ...]:
    if examples:
        return tuple(kind for example in examples for kind in fields.types_of(example))
    numbers: list[int] = []
    while number:
        numbers.insert(0, number & 0x3F)
        number >>= 6
    if numbers == [4]:
        return (datatypes.integer(size),)
    if any(one not in datatypes.BY_NUMBER for one in numbers):
        raise Unreadable(f"a set of types that are not known here ({numbers})")
    return tuple(datatypes.BY_NUMBER[one] for one in numbers)


def with_elements(one: Set, payloads: Iterable[bytes]) -> Set:
    """Put the elements that NEWSETELEM messages tell of, all of the set's, into the set."""
    found = elements(payloads, one)
    return replace(one, elements=found) if found else one


def count(payload: bytes) -> int | None:
    """Say how many elements a NEWSET message counts. Older kernels do not."""
    counted = attributes(payload, 4).get(A.SET_COUNT)
    return None if counted is None else to_be(counted)


def is_whole(payload: bytes, one: Set) -> bool:
    """Say whether as many elements were read as the NEWSET message counts. Of a kernel that does not count it is taken to be so."""
    counted = count(payload)
    return counted is None or bool(one.flags & {"interval", "timeout", "dynamic"}) or len(one.elements) == counted


def element(data: bytes, one: Set) -> Element:
    """Read the attributes of one element. Of a single-field interval it is its first value alone."""
    return read_element(attributes(data), by_end="interval" in one.flags)[0]


def elements(payloads: Iterable[bytes], one: Set) -> Mapping[bytes, Element]:
    """Read the NEWSETELEM messages of a set, all of them. Raises Unreadable, MalformedNetlink."""
    cut = (split(attributes(payload, 4).get(A.ELEMENTS_LIST, b"")) for payload in payloads)
    if has_rows(one):
        regular = form(one).regular
        return Packed(one, [row for rows in cut for row in regular(rows)])
    rows = [row for some in cut for row in some]
    interval, single = "interval" in one.flags, len(one.key_types) == 1
    found = [read_element(attributes(row, 4), by_end=interval and not single) for row in rows]
    return _intervals(found) if interval and single else {element.key: element for element, _ in found}


def _intervals(found: list[tuple[Element, bool]]) -> dict[bytes, Element]:
    # At one value an end comes before the start of the next interval.
    ordered = sorted(found, key=lambda pair: (pair[0].key, not pair[1]))
    result: dict[bytes, Element] = {}
    for at, (element, is_end) in enumerate(ordered):
        if is_end:
            continue
        size = len(element.key)
        after = ordered[at + 1][0].key if at + 1 < len(ordered) else None
        last = (int.from_bytes(after, "big") - 1).to_bytes(size, "big") if after is not None else b"\xff" * size
        end = b"" if last == element.key else last
        result[element.key] = Element(element.key, element.value, end, element.comment, element.timeout_ms)
    return result
