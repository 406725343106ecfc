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
from podwire.nft.rows import Columns, Rows, form, has_rows
from podwire.wire import netlink, nfnetlink
from podwire.wire.netlink import attribute, be32, be64, nested, string
from podwire.wire.nfnetlink import NFTA as A
from podwire.wire.nfnetlink import SetFlag

ELEMENTS_LIMIT: Final = 48_000  # bytes of elements in one message; the attribute's own limit is 65,535
BATCH_LIMIT: Final = 200_000  # bytes in one transaction; an ordinary user's socket takes 212,992

_HOOKS: Final = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4, "ingress": 5}
_CREATE: Final = netlink.REQUEST | netlink.CREATE
_SET_FLAGS: Final = {"constant": SetFlag.CONSTANT, "interval": SetFlag.INTERVAL, "timeout": SetFlag.TIMEOUT, "dynamic": SetFlag.EVAL}


_name = lru_cache(maxsize=512)(string)  # of tables, in every message


@lru_cache(maxsize=512)
def _of_set(table: tuple[str, str], name: str) -> bytes:
    """What every message about elements of a set begins with."""
    return nfnetlink.generic(nfnetlink.FAMILIES[table[0]]) + string(A.ELEMENTS_TABLE, table[1]) + string(A.ELEMENTS_SET, name)


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
    first = sequence + 1
    origins: list[int] = []
    parts: list[bytes] = []
    done = Transaction(first, origins, parts)
    encoder: _Encoder | None = None
    for index, change in enumerate(changes):
        if type(change) is AddElements or type(change) is DeleteElements:
            elements_ = change.elements
            if type(elements_) is Rows and len(elements_.rows) == 1:  # as most
                parts.append(_of_one(change, elements_, first + len(parts)))
                origins.append(index)
                continue
        if encoder is None:
            encoder = _Encoder(done)
        encoder.change(change)
        origins += [index] * (len(parts) - len(origins))
    if parts:
        parts[-1] = netlink.flagged(parts[-1], netlink.ACK)
    return done


_ADD: Final = nfnetlink.NFTABLES << 8 | nfnetlink.NEWSETELEM
_DELETE: Final = nfnetlink.NFTABLES << 8 | nfnetlink.DELSETELEM


def exchange(changes: Sequence[Change], sequence: int = 1) -> bytes | None:
    """Encode one element that goes and one that comes in the same set, both rows, as the most transactions are. None for anything else.

    It is the datagram that ``encode`` gives, whose last message has the number ``sequence + 2``.
    """
    gone, came = changes
    if type(gone) is not DeleteElements or type(came) is not AddElements or gone.set is not came.set or gone.table != came.table:
        return None
    before, after = gone.elements, came.elements
    if type(before) is not Rows or type(after) is not Rows or not len(before.rows) == 1 == len(after.rows):
        return None
    old, new, head = before.form.deletion(before.rows[0]), after.rows[0], _of_set(gone.table, gone.set.name)
    room = 20 + len(head)
    return b"".join(
        (
            nfnetlink.begin(sequence),
            _HEADER(room + len(old), _DELETE, netlink.REQUEST, sequence + 1, 0),
            head,
            _LIST(4 + len(old), _ELEMENTS),
            old,
            _HEADER(room + len(new), _ADD, _ADD_FLAGS, sequence + 2, 0),
            head,
            _LIST(4 + len(new), _ELEMENTS),
            new,
            nfnetlink.end(sequence + 3),
        )
    )


def _of_one(change: AddElements | DeleteElements, rows: Rows, sequence: int) -> bytes:
    """The message about an element that is a row."""
    row = rows.rows[0]
    kind, flags = _ADD, _CREATE
    if type(change) is DeleteElements:
        kind, flags, row = _DELETE, netlink.REQUEST, rows.form.deletion(row)
    head, size = _of_set(change.table, change.set.name), len(row) + 4
    return b"".join((_HEADER(16 + len(head) + size, kind, flags, sequence, 0), head, _LIST(size, _ELEMENTS), row))


_HEADER: Final = netlink.HEADER.pack
_LIST: Final = netlink.ATTRIBUTE.pack
_ELEMENTS: Final = A.ELEMENTS_LIST | netlink.NESTED
_ADD_FLAGS: Final = _CREATE | netlink.ACK


class _Encoder:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._inline = 0

    def _message(self, kind: int, flags: int, table: tuple[str, str], *parts: bytes) -> None:
        done, name = self._transaction, _name(A.TABLE_NAME, table[1])  # the table's name is attribute 1 of every message
        sequence = done.first + len(done.parts)
        done.parts.append(nfnetlink.message(nfnetlink.NFTABLES, kind, flags, sequence, nfnetlink.FAMILIES[table[0]], name, *parts))

    def _elements(self, kind: int, flags: int, table: tuple[str, str], one: Set, nests: Iterator[bytes]) -> None:
        parts, first, head = self._transaction.parts, self._transaction.first, _of_set(table, one.name)
        kind |= nfnetlink.NFTABLES << 8
        for nest in nests:
            parts.append(netlink.message(kind, flags, first + len(parts), head + nest))

    def change(self, change: Change) -> None:
        match change:
            case AddElements(table, one, elements_):
                self._elements(nfnetlink.NEWSETELEM, _CREATE, table, one, elements(one, elements_))
            case DeleteElements(table, one, elements_):
                self._elements(nfnetlink.DELSETELEM, netlink.REQUEST, table, one, elements(one, elements_, keys_only=True))
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
    """Encode elements as attributes ELEMENTS_LIST, each at most 48,000 bytes long. Those that are rows already cost next to nothing."""
    if isinstance(wanted, Columns):
        if not keys_only:
            data = b"".join([one.data for one in wanted.columns])
            if 0 < len(data) <= ELEMENTS_LIMIT:
                return iter((nested(A.ELEMENTS_LIST, data),))
        wanted = Rows(wanted.form, wanted.rows)
    if isinstance(wanted, Rows):
        rows = wanted.rows
        return _nests([*map(wanted.form.deletion, rows)] if keys_only else rows)
    if not has_rows(one):
        return _nests([*_others(one, wanted, keys_only)])
    written = form(one)
    rows = [*map(written.of, wanted)]
    return _nests([*map(written.deletion, rows)] if keys_only else rows)


def _nests(rows: Sequence[bytes]) -> Iterator[bytes]:
    if not rows:
        return
    whole = b"".join(rows) if len(rows) > 1 else rows[0]
    if len(whole) <= ELEMENTS_LIMIT:
        yield nested(A.ELEMENTS_LIST, whole)
        return
    half = len(rows) // 2
    yield from _nests(rows[:half])
    yield from _nests(rows[half:])


def _others(one: Set, wanted: Sequence[Element], keys_only: bool) -> Iterator[bytes]:
    """Those that are no rows: single-field intervals, and what is to time out."""
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
