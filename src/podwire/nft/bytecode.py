"""Changes to netlink messages.

``encode`` makes one transaction out of a list of changes: begin, messages, end, as one datagram, and remembers which message came
from which change, so that a refusal can be told in the change's own words. ``elements`` is the fast path: the attributes of many
elements, ready to be sent to any number of kernels. Reading is in dump.py.

Laws that the bytes keep (each found by measuring, docs say where):
- an attribute's length has sixteen bits, so many elements go as several messages;
- sets and maps carry user data, without which the nft program cannot list them;
- the fields of a concatenation are padded to four bytes, a single field is not;
- a single-field interval is two elements, its first value and (marked as an end) the one after its last; an interval in a
  concatenation is one element with two keys.

Source: linux/netfilter/nf_tables.h, the kernel's net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from podwire.nft import userdata
from podwire.nft.assembly import Assembler, verdict_data
from podwire.nft.changes import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    Change,
    DeleteChain,
    DeleteElements,
    DeleteRule,
    DeleteSet,
    DeleteTable,
    FlushChain,
    FlushSet,
)
from podwire.nft.datatypes import DataType, Unreadable, length
from podwire.nft.model import Chain, Element, Expression, Set, Verdict
from podwire.wire import netlink, nfnetlink
from podwire.wire.netlink import attribute, be32, be64, nested, string
from podwire.wire.nfnetlink import NFTA as A
from podwire.wire.nfnetlink import SetFlag

ELEMENTS_LIMIT: Final = 48_000  # bytes of elements in one message; the attribute's own limit is 65,535
BATCH_LIMIT: Final = 200_000  # bytes in one transaction; an ordinary user's socket takes 212,992

_PIECE: Final = 512  # elements that may well fit into one message
_HOOKS: Final = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4, "ingress": 5}
_CREATE: Final = netlink.REQUEST | netlink.CREATE
_SET_FLAGS: Final = {"constant": SetFlag.CONSTANT, "interval": SetFlag.INTERVAL, "timeout": SetFlag.TIMEOUT, "dynamic": SetFlag.EVAL}


_name = lru_cache(maxsize=512)(string)  # of tables and sets, in every message


@dataclass(slots=True)
class Transaction:
    """What goes to the kernel as one datagram.

    ``origins[n]`` is the index of the change that the message with sequence ``first + n`` came from. ``last`` is the sequence of
    the one message that asks for an acknowledgement; when it comes without an error all is done.
    """

    first: int
    origins: list[int] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.first + len(self.origins) - 1

    @property
    def datagram(self) -> bytes:
        return b"".join((nfnetlink.begin(self.first - 1), *self.parts, nfnetlink.end(self.last + 1)))

    def origin(self, sequence: int) -> int | None:
        """The index of the change that a message's sequence number stands for; None for the brackets round the transaction."""
        at = sequence - self.first
        return self.origins[at] if 0 <= at < len(self.origins) else None


def encode(changes: Sequence[Change], sequence: int = 1) -> Transaction:
    """Encode changes as one transaction whose messages are numbered from ``sequence + 1``. Raises Unreadable for what cannot be said."""
    return _Encoder(sequence + 1).encode(changes)


class _Encoder:
    def __init__(self, first: int) -> None:
        self._transaction = Transaction(first)
        self._inline = 0

    def encode(self, changes: Sequence[Change]) -> Transaction:
        done = self._transaction
        for index, change in enumerate(changes):
            before = len(done.parts)
            self._change(change)
            done.origins += [index] * (len(done.parts) - before)
        if done.parts:
            done.parts[-1] = netlink.flagged(done.parts[-1], netlink.ACK)
        return done

    def _message(self, kind: int, flags: int, table: tuple[str, str], *parts: bytes) -> None:
        done, name = self._transaction, _name(A.TABLE_NAME, table[1])  # the table's name is attribute 1 of every message
        sequence = done.first + len(done.parts)
        done.parts.append(nfnetlink.message(nfnetlink.NFTABLES, kind, flags, sequence, nfnetlink.FAMILIES[table[0]], name, *parts))

    def _change(self, change: Change) -> None:
        match change:
            case AddElements(table, one, elements_):
                for nest in elements(one, elements_):
                    self._message(nfnetlink.NEWSETELEM, _CREATE, table, _name(A.ELEMENTS_SET, one.name), nest)
            case DeleteElements(table, one, elements_):
                for nest in elements(one, elements_, keys_only=True):
                    self._message(nfnetlink.DELSETELEM, netlink.REQUEST, table, _name(A.ELEMENTS_SET, one.name), nest)
            case FlushSet(table, name):
                self._message(nfnetlink.DELSETELEM, netlink.REQUEST, table, string(A.ELEMENTS_SET, name))
            case AddTable(table, comment):
                note = attribute(A.TABLE_USERDATA, userdata.comment(comment)) if comment else b""
                self._message(nfnetlink.NEWTABLE, _CREATE, table, be32(A.TABLE_FLAGS, 0), note)
            case DeleteTable(table):
                self._message(nfnetlink.DELTABLE, netlink.REQUEST, table)
            case AddChain(table, chain):
                self._message(nfnetlink.NEWCHAIN, _CREATE, table, *_chain(chain))
            case DeleteChain(table, name):
                self._message(nfnetlink.DELCHAIN, netlink.REQUEST, table, string(A.CHAIN_NAME, name))
            case FlushChain(table, name):
                self._message(nfnetlink.DELRULE, netlink.REQUEST, table, string(A.RULE_CHAIN, name))
            case DeleteRule(table, name, handle):
                self._message(nfnetlink.DELRULE, netlink.REQUEST, table, string(A.RULE_CHAIN, name), be64(A.RULE_HANDLE, handle))
            case AddSet(table, one):
                self._message(nfnetlink.NEWSET, _CREATE, table, *_declaration(one, one.name, self._next_id()))
            case DeleteSet(table, name):
                self._message(nfnetlink.DELSET, netlink.REQUEST, table, string(A.SET_NAME, name))
            case AddRule():
                self._rule(change)

    def _rule(self, change: AddRule) -> None:
        def name(one: Set, examples: tuple[Expression, ...]) -> tuple[str, int]:
            number = self._next_id()
            text = "__map%d" if one.is_map else "__set%d"  # the kernel puts in a number that is free
            self._message(nfnetlink.NEWSET, _CREATE, change.table, *_declaration(one, text, number, examples))
            for nest in elements(one, tuple(one.elements.values())):
                parts = (string(A.ELEMENTS_SET, text), be32(A.ELEMENTS_SET_ID, number), nest)
                self._message(nfnetlink.NEWSETELEM, _CREATE, change.table, *parts)
            return text, number

        expressions = Assembler(change.table[0], name).rule(change.rule)
        comment = change.rule.comment
        note = attribute(A.RULE_USERDATA, userdata.comment(comment)) if comment else b""
        flags = _CREATE | netlink.APPEND
        self._message(nfnetlink.NEWRULE, flags, change.table, string(A.RULE_CHAIN, change.chain), expressions, note)

    def _next_id(self) -> int:
        self._inline += 1
        return self._inline


def _chain(chain: Chain) -> Iterator[bytes]:
    yield string(A.CHAIN_NAME, chain.name)
    if chain.hook:
        device = string(A.HOOK_DEV, chain.device) if chain.device else b""
        place = be32(A.HOOK_HOOKNUM, _HOOKS[chain.hook])
        yield nested(A.CHAIN_HOOK, place, be32(A.HOOK_PRIORITY, chain.priority & 0xFFFFFFFF), device)
        yield be32(A.CHAIN_POLICY, int(chain.policy == "accept"))
        yield string(A.CHAIN_TYPE, chain.type)
    if chain.comment:
        yield attribute(A.CHAIN_USERDATA, userdata.comment(chain.comment))


def _declaration(one: Set, name: str, number: int, examples: tuple[Expression, ...] = ()) -> Iterator[bytes]:
    flags = sum(_SET_FLAGS[flag] for flag in one.flags)
    joined = len(one.key_types) > 1 and "interval" in one.flags
    flags |= SetFlag.MAP * one.is_map | SetFlag.CONCAT * joined
    flags |= 0 if one.name else SetFlag.ANONYMOUS | SetFlag.CONSTANT
    yield string(A.SET_NAME, name)
    yield be32(A.SET_FLAGS, flags)
    yield be32(A.SET_KEY_TYPE, _type_number(one.key_types))
    yield be32(A.SET_KEY_LEN, length(one.key_types))
    if one.is_map:
        yield be32(A.SET_DATA_TYPE, nfnetlink.DATA_TYPE_VERDICT if one.is_verdict_map else _type_number(one.value_types))
        yield be32(A.SET_DATA_LEN, 16 if one.is_verdict_map else length(one.value_types))
    size = one.size if one.name else len(one.elements)
    lengths = [nested(A.LIST_ELEM, be32(A.FIELD_LEN, kind.size)) for kind in one.key_types] if joined else []
    concat = nested(A.DESC_CONCAT, *lengths) if lengths else b""
    if (size and not (not one.name and "interval" in one.flags)) or concat:
        yield nested(A.SET_DESC, be32(A.DESC_SIZE, size) if size else b"", concat)
    yield be32(A.SET_ID, number)
    if one.timeout_ms:
        yield be64(A.SET_TIMEOUT, one.timeout_ms)
    yield attribute(A.SET_USERDATA, userdata.of_set(one, examples))


def _type_number(types: tuple[DataType, ...]) -> int:
    number = 0
    for kind in types:
        number = number << 6 | kind.number
    return number & 0xFFFFFFFF


# Elements --------------------------------------------------------------------------------------------------------------------


def elements(one: Set, wanted: Sequence[Element], *, keys_only: bool = False) -> Iterator[bytes]:
    """Encode elements as attributes ELEMENTS_LIST, each at most 48,000 bytes long: about half a microsecond an element."""
    plain = _is_plain(one)
    if plain:  # measured once, not element by element
        if len(wanted) == 1:  # as most
            yield nested(A.ELEMENTS_LIST, b"".join(_plain(wanted, keys_only)))
            return
        for start in range(0, len(wanted), _PIECE):
            yield from _plain_nests(wanted[start : start + _PIECE], keys_only)
        return
    parts: list[bytes] = []
    size = 0
    for part in _any(one, wanted, keys_only):
        size += len(part)
        if size > ELEMENTS_LIMIT:
            yield nested(A.ELEMENTS_LIST, *parts)
            parts, size = [], len(part)
        parts.append(part)
    if parts:
        yield nested(A.ELEMENTS_LIST, *parts)


def _plain_nests(wanted: Sequence[Element], keys_only: bool) -> Iterator[bytes]:
    whole = b"".join(_plain(wanted, keys_only))
    if len(whole) <= ELEMENTS_LIMIT:
        yield nested(A.ELEMENTS_LIST, whole)
        return
    half = len(wanted) // 2
    yield from _plain_nests(wanted[:half], keys_only)
    yield from _plain_nests(wanted[half:], keys_only)


def _is_plain(one: Set) -> bool:
    return not one.is_verdict_map and (not one.flags or not one.flags & {"interval", "timeout", "dynamic"})


_PAD: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_HEAD = netlink.ATTRIBUTE.pack
_NEST: Final = netlink.NESTED


class _Layout:
    """How the elements of one shape are written: everything but key, value and comment, by the comment's length."""

    def __init__(self, key_size: int, value_size: int) -> None:
        key_pad, value_pad = _PAD[key_size & 3], _PAD[value_size & 3]
        self._key_head = _HEAD(8 + key_size + len(key_pad), A.ELEM_KEY | _NEST) + _HEAD(4 + key_size, A.DATA_VALUE)
        self.middle = key_pad
        if value_size:
            self.middle += _HEAD(8 + value_size + len(value_pad), A.ELEM_DATA | _NEST) + _HEAD(4 + value_size, A.DATA_VALUE)
        self._value_pad = value_pad
        self._size = 4 + len(self._key_head) + key_size + len(self.middle) + value_size + len(value_pad)
        self.around = {0: (_HEAD(self._size, A.LIST_ELEM | _NEST) + self._key_head, value_pad, b"")}

    def with_comment(self, size: int) -> tuple[bytes, bytes, bytes]:
        """What comes before the key, between value and comment, and after the comment. Raises Unreadable for a comment too long."""
        userdata.check_length(size)
        note = self._value_pad + _HEAD(7 + size, A.ELEM_USERDATA) + bytes((0, size + 1))
        tail = b"\0" + _PAD[(3 + size) & 3]
        whole = self._size - len(self._value_pad) + len(note) + size + len(tail)
        found = self.around[size] = _HEAD(whole, A.LIST_ELEM | _NEST) + self._key_head, note, tail
        return found


_layout = lru_cache(maxsize=64)(_Layout)


def _plain(wanted: Sequence[Element], keys_only: bool) -> list[bytes]:
    """The fast path: single keys, data values, comments. All lengths but the comment's are those of the first element.

    Gives the bytes of all of them in pieces, which are joined once.
    """
    if not wanted:
        return []
    first = wanted[0]
    valued = isinstance(first.value, bytes) and not keys_only
    layout = _layout(len(first.key), len(first.value) if valued else 0)  # type: ignore[arg-type]
    middle, around = layout.middle, layout.around
    if keys_only:
        head, pad, _ = around[0]
        return [head + element.key + middle + pad for element in wanted]
    parts: list[bytes] = []
    for element in wanted:
        text = element.comment.encode()
        size = len(text)
        head, note, tail = around[size] if size in around else layout.with_comment(size)
        if valued:
            parts += (head, element.key, middle, element.value, note, text, tail)  # type: ignore[arg-type]
        else:
            parts += (head, element.key, middle, note, text, tail)
    return parts


def _any(one: Set, wanted: Sequence[Element], keys_only: bool) -> Iterator[bytes]:
    joined = len(one.key_types) > 1
    interval = "interval" in one.flags
    for element in wanted:
        parts = [_value(A.ELEM_KEY, element.key)]
        if interval and joined:
            parts.append(_value(A.ELEM_KEY_END, element.end or element.key))
        if not keys_only:
            parts += _rest(element)
        yield nested(A.LIST_ELEM, *parts)
        if interval and not joined:
            yield from _interval_end(one, element)


def _interval_end(one: Set, element: Element) -> Iterator[bytes]:
    kind = one.key_types[0]
    size = len(element.key)
    after = int.from_bytes(element.end or element.key, "big") + 1
    if kind.host_order:
        raise Unreadable(f"{one.name}: intervals of {kind.name} are not known here")
    if after >> 8 * size == 0:  # an interval up to the last value has no end
        yield nested(A.LIST_ELEM, _value(A.ELEM_KEY, after.to_bytes(size, "big")), be32(A.ELEM_FLAGS, nfnetlink.ELEM_INTERVAL_END))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(A.DATA_VALUE, data))


def _rest(element: Element) -> Iterator[bytes]:
    if isinstance(element.value, Verdict):
        yield nested(A.ELEM_DATA, verdict_data(element.value))
    elif element.value is not None:
        yield _value(A.ELEM_DATA, element.value)
    if element.timeout_ms:
        yield be64(A.ELEM_TIMEOUT, element.timeout_ms)
    if element.comment:
        yield attribute(A.ELEM_USERDATA, userdata.comment(element.comment))
