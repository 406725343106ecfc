"""Netlink messages to values: what the kernel says is there.

A dump is four answers (tables, chains, sets, rules) and one for the elements of each set. The asking is in ``podwire.linux``; here the
answers become a Ruleset that compares with a wanted one. Sets that are written inside rules come as sets named ``__set0``; they end up
inside their rules again.

Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from podwire.nft import datatypes, fields, userdata
from podwire.nft.assembly import CODES
from podwire.nft.datatypes import DataType, Unreadable
from podwire.nft.disassembly import Disassembler
from podwire.nft.model import Chain, Element, Expression, Rule, Set, TableName, Verdict
from podwire.wire import netlink, nfnetlink
from podwire.wire.netlink import attributes, to_be, to_string
from podwire.wire.nfnetlink import NFTA as A
from podwire.wire.nfnetlink import SetFlag

_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_CODES: Final = {code & 0xFFFFFFFF: kind for kind, code in CODES.items()}
_FLAGS: Final = (("constant", SetFlag.CONSTANT), ("interval", SetFlag.INTERVAL), ("timeout", SetFlag.TIMEOUT), ("dynamic", SetFlag.EVAL))


def table_of(payload: bytes) -> TableName:
    """Say which table any message is about."""
    return nfnetlink.FAMILY_NAMES.get(payload[0], str(payload[0])), to_string(attributes(payload, 4)[A.TABLE_NAME])


def table_comment(payload: bytes) -> str:
    """Read the comment of a NEWTABLE message."""
    return userdata.read_comment(attributes(payload, 4).get(A.TABLE_USERDATA, b""))


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


def is_whole(payload: bytes, one: Set) -> bool:
    """Say whether as many elements were read as the NEWSET message counts. Older kernels do not count; then it is taken to be so."""
    count = attributes(payload, 4).get(A.SET_COUNT)
    return count is None or bool(one.flags & {"interval", "timeout", "dynamic"}) or len(one.elements) == to_be(count)


def element(data: bytes, one: Set) -> Element:
    """Read the attributes of one element. Of a single-field interval it is its first value alone."""
    return _element(attributes(data), by_end="interval" in one.flags)[0]


def elements(payloads: Iterable[bytes], one: Set) -> dict[bytes, Element]:
    """Read the NEWSETELEM messages of a set, all of them."""
    single = "interval" in one.flags and len(one.key_types) == 1
    if not one.flags and not one.is_verdict_map:
        return _plain(payloads, one)
    found: list[tuple[Element, bool]] = []
    for payload in payloads:
        nest = attributes(payload, 4).get(A.ELEMENTS_LIST, b"")
        for _, data in netlink.attribute_list(nest):
            found.append(_element(attributes(data), by_end=not single))
    if single:
        return _intervals(found)
    return {element.key: element for element, _ in found}


def _plain(payloads: Iterable[bytes], one: Set) -> dict[bytes, Element]:
    """The fast path: single keys, data values, comments, in the order in which the kernel writes them; anything else the slow way."""
    key_size, value_size = datatypes.length(one.key_types), datatypes.length(one.value_types) if one.is_map else 0
    key_head = _HEAD(_padded(8 + key_size), A.ELEM_KEY) + _HEAD(4 + key_size, A.DATA_VALUE)
    value_head = _HEAD(_padded(8 + value_size), A.ELEM_DATA) + _HEAD(4 + value_size, A.DATA_VALUE) if value_size else b""
    rest_at = 4 + _padded(8 + key_size) + (_padded(8 + value_size) if value_size else 0)
    shape = f"=H2x8s{key_size}s{-key_size % 4}x{len(value_head)}s{value_size}s"  # of an element, up to its comment
    unpack, least = struct.Struct(shape).unpack_from, struct.calcsize(shape)
    found: dict[bytes, Element] = {}
    userdata_kind = int(A.ELEM_USERDATA)
    for payload in payloads:
        data = attributes(payload, 4).get(A.ELEMENTS_LIST, b"")
        at, end = 0, len(data)
        while at < end:
            size, head, key, middle, value = unpack(data, at) if end - at >= least else (_SIZE(data, at)[0], b"", b"", b"", b"")
            if size < 4 or at + size > end:
                raise netlink.MalformedNetlink(f"an element at byte {at} says {size} bytes where {end - at} are left")
            rest = at + rest_at
            comment = size > rest_at + 6 and data[rest + 2] == userdata_kind and not data[rest + 4]
            if head == key_head and middle == value_head and (comment or size == rest_at):
                text = str(data[rest + 6 : rest + 5 + data[rest + 5]], "utf-8", "replace") if comment else ""
                found[key] = Element(key, value if value_size else None, b"", text)
            else:
                element = _element(attributes(data[at + 4 : at + size]), by_end=False)[0]
                found[element.key] = element
            at += size + 3 & ~3
    return found


_HEAD: Final = netlink.ATTRIBUTE.pack
_SIZE: Final = struct.Struct("=H").unpack_from


def _padded(size: int) -> int:
    return size + 3 & ~3


def _element(found: dict[int, bytes], *, by_end: bool) -> tuple[Element, bool]:
    flags = to_be(found.get(A.ELEM_FLAGS, b"\0"))
    if flags & nfnetlink.ELEM_CATCHALL or A.ELEM_KEY not in found:
        raise Unreadable("a set with an element for everything else is not known here")
    key = attributes(found[A.ELEM_KEY])[A.DATA_VALUE]
    value: bytes | Verdict | None = None
    if A.ELEM_DATA in found:
        data = attributes(found[A.ELEM_DATA])
        value = data[A.DATA_VALUE] if A.DATA_VALUE in data else verdict(data[A.DATA_VERDICT])
    end = attributes(found[A.ELEM_KEY_END])[A.DATA_VALUE] if by_end and A.ELEM_KEY_END in found else b""
    comment = userdata.read_comment(found[A.ELEM_USERDATA]) if A.ELEM_USERDATA in found else ""
    timeout = to_be(found.get(A.ELEM_TIMEOUT, b"\0"))
    return Element(key, value, b"" if end == key else end, comment, timeout), bool(flags & nfnetlink.ELEM_INTERVAL_END)


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


def verdict(data: bytes) -> Verdict:
    """Read the attributes of a verdict."""
    found = attributes(data)
    code = to_be(found[A.VERDICT_CODE])
    if code not in _CODES:
        raise Unreadable(f"the verdict {code} is not known here")
    return Verdict(_CODES[code], to_string(found.get(A.VERDICT_CHAIN, b"")))
