"""Rows: elements of sets and maps as the bytes that the kernel writes of them.

What belongs here: making such bytes, reading them, and sequences and mappings of elements that are kept so. What must not: messages
(bytecode.py, dump.py).

How it works: a *row* is one attribute LIST_ELEM, its inner attributes in the order and without the flags that the kernel's own dump has.
What is sent therefore comes back as it was, and two rulesets of 100,000 elements are compared by bytes alone. The key begins at byte 12
of every row. ``Rows`` and ``Packed`` are to everybody else what they stand for, a sequence and a mapping of elements, made when asked for.
A kernel that wrote a row in another way would be read all the same: ``Form.canonical``.

Not every set has rows: an interval of a single field is two elements, and what packets add has a time that runs.

Source: nf_tables_fill_setelem in the Linux kernel's net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, repeat
from operator import itemgetter
from typing import Final, overload

from podwire.nft import datatypes, userdata
from podwire.nft.assembly import CODES
from podwire.nft.datatypes import Unreadable
from podwire.nft.model import Element, Set, Verdict
from podwire.wire import netlink, nfnetlink
from podwire.wire.netlink import attributes, to_be, to_string
from podwire.wire.nfnetlink import NFTA as A

_HEAD: Final = netlink.ATTRIBUTE.pack
_PAD: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_KINDS: Final = {code & 0xFFFFFFFF: kind for kind, code in CODES.items()}
_KEY_AT: Final = 12
_OTHERWISE: Final = frozenset({"timeout", "dynamic"})


def has_rows(one: Set) -> bool:
    """Say whether a set's elements can be kept as rows."""
    return not one.flags or (one.flags.isdisjoint(_OTHERWISE) and ("interval" not in one.flags or len(one.key_types) > 1))


class Form:
    """How the elements of one set are written: everything but key, value and comment. ``form`` gives that of a set.

    ``key`` gives the key of a row, ``value`` the value of a row of a data map.
    """

    key: Callable[[bytes], bytes]
    value: Callable[[bytes], bytes]

    def __init__(self, size: int, value_size: int, *, verdicts: bool, ends: bool) -> None:
        self._ends, self._verdicts = ends, verdicts
        self.sizes = size, value_size  # of key and value, which is 0 without one
        self.key_end = _KEY_AT + size
        self.key = itemgetter(slice(_KEY_AT, self.key_end))
        self._key_pad = _PAD[size & 3]
        room = 8 + size + len(self._key_pad)
        self.key_head = _HEAD(room, A.ELEM_KEY) + _HEAD(4 + size, A.DATA_VALUE)
        self._end_head = _HEAD(room, A.ELEM_KEY_END) + _HEAD(4 + size, A.DATA_VALUE)
        self._keys_end = 4 + room * (2 if self._ends else 1)
        self._deletion = _HEAD(self._keys_end, A.LIST_ELEM)
        self.value_at = self._keys_end + 8
        self.value_end = self.value_at + value_size
        self.value = itemgetter(slice(self.value_at, self.value_end))
        self._value_pad = _PAD[value_size & 3]
        self._value_head = _HEAD(8 + value_size + len(self._value_pad), A.ELEM_DATA) + _HEAD(4 + value_size, A.DATA_VALUE)
        self._valued = value_size > 0
        self.middle = self._key_pad + (self._value_head if self._valued else b"")
        self._comment_at = self.value_end + len(self._value_pad) if self._valued else self._keys_end
        self._around: dict[int, tuple[bytes, bytes, bytes]] = {}

    def around(self, size: int) -> tuple[bytes, bytes, bytes]:
        """Give what stands before the key, before the comment and after it, where the comment has so many bytes.

        A row of a data map or a plain set is these round ``key``, ``middle`` and ``value``. Raises Unreadable for a comment too long.
        """
        found = self._around.get(size)
        if found is None:
            userdata.check_length(size)
            note, tail = self._value_pad if self._valued else b"", b""
            whole = self._comment_at
            if size:
                note += _HEAD(7 + size, A.ELEM_USERDATA) + bytes((0, size + 1))
                tail = b"\0" + _PAD[(3 + size) & 3]
                whole += 6 + size + len(tail)
            found = self._around[size] = _HEAD(whole, A.LIST_ELEM) + self.key_head, note, tail
        return found

    def write(self, key: bytes, value: bytes, text: bytes) -> bytes:
        """Write an element of a data map or a plain set (whose value is ``b""``) that has a comment. Raises Unreadable."""
        try:
            head, note, tail = self._around[len(text)]
        except KeyError:
            head, note, tail = self.around(len(text))
        return b"".join((head, key, self.middle, value, note, text, tail))

    def many(self, keys: Sequence[bytes], values: Iterable[bytes], texts: Sequence[bytes]) -> bytes:
        """Write elements as ``write``, one after the other. Raises Unreadable."""
        around = {size: self.around(size) for size in {*map(len, texts)}}
        if len(around) == 1:  # as many have names of one length
            ((head, note, tail),) = around.values()
            parts = zip(repeat(head), keys, repeat(self.middle), values, repeat(note), texts, repeat(tail))
        else:
            heads, notes, tails = zip(*map(around.__getitem__, map(len, texts)), strict=True)
            parts = zip(heads, keys, repeat(self.middle), values, notes, texts, tails)
        return b"".join(chain.from_iterable(parts))

    def size(self, text: int) -> int:
        """Give how many bytes a row at most has, whose comment has so many."""
        return self._comment_at + text + 12

    def row(self, key: bytes, value: bytes | Verdict | None = None, comment: str = "", end: bytes = b"") -> bytes:
        """Write an element. ``end`` is the last key of an interval, ``b""`` for a single key. Raises Unreadable."""
        text = comment.encode()
        if not self._ends and not self._verdicts:
            head, note, tail = self.around(len(text))
            return b"".join((head, key, self.middle, value if isinstance(value, bytes) else b"", note, text, tail))
        parts = [self.key_head, key, self._key_pad]
        if self._ends:
            parts += [self._end_head, end or key, self._key_pad]
        if isinstance(value, Verdict):
            parts.append(_verdict(value))
        if text:
            parts.append(netlink.attribute(A.ELEM_USERDATA, userdata.comment(comment)))
        inner = b"".join(parts)
        return _HEAD(4 + len(inner), A.LIST_ELEM) + inner

    def of(self, element: Element) -> bytes:
        """Write an element that is there as a value. Raises Unreadable."""
        return self.row(element.key, element.value, element.comment, element.end)

    def deletion(self, row: bytes) -> bytes:
        """Give what of a row deletes the element."""
        return self._deletion + row[4 : self._keys_end]

    def naming(self, keys: Sequence[bytes]) -> bytes:
        """Give what names elements that are no intervals."""
        before = self._deletion + self.key_head
        return before + (self._key_pad + before).join(keys) + self._key_pad if keys else b""

    def element(self, row: bytes) -> Element:
        """Read a row. Raises Unreadable, MalformedNetlink."""
        at = self._comment_at
        if (  # as the kernel writes those of data maps and plain sets
            not self._ends
            and not self._verdicts
            and row.startswith(self.key_head, 4)
            and (not self._valued or row.startswith(self._value_head, self._keys_end))
        ):
            value = row[self.value_at : self.value_end] if self._valued else None
            if len(row) == at:
                return Element(row[_KEY_AT : self.key_end], value)
            if row.startswith(_USERDATA, at + 2) and row[at + 4] == 0:
                text = str(row[at + 6 : at + 5 + row[at + 5]], "utf-8", "replace")
                return Element(row[_KEY_AT : self.key_end], value, b"", text)
        return read_element(attributes(row, 4), by_end=self._ends)[0]

    def regular(self, rows: list[bytes]) -> list[bytes]:
        """Give rows whose keys stand where they should, as those of all rows from here on do. Raises Unreadable."""
        head = self.key_head
        usual = [row for row in rows if row.startswith(head, 4)]
        return usual if len(usual) == len(rows) else [row if row.startswith(head, 4) else self.canonical(row) for row in rows]

    def canonical(self, row: bytes) -> bytes:
        """Give a row as it is written here, however it was written."""
        return self.of(self.element(row))


_USERDATA: Final = int(A.ELEM_USERDATA).to_bytes(2, "little" if netlink.ATTRIBUTE.pack(1, 0)[0] else "big")


@lru_cache(maxsize=64)
def _form(size: int, value_size: int, verdicts: bool, ends: bool) -> Form:
    return Form(size, value_size, verdicts=verdicts, ends=ends)


def form(one: Set) -> Form:
    """Give how the elements of a set are written."""
    value_size = datatypes.length(one.value_types) if one.is_map and not one.is_verdict_map else 0
    return _form(datatypes.length(one.key_types), value_size, one.is_verdict_map, "interval" in one.flags)


def _verdict(verdict: Verdict) -> bytes:
    inner = netlink.be32(A.VERDICT_CODE, CODES[verdict.kind] & 0xFFFFFFFF)
    if verdict.chain:
        inner += netlink.string(A.VERDICT_CHAIN, verdict.chain)
    return _HEAD(8 + len(inner), A.ELEM_DATA) + _HEAD(4 + len(inner), A.DATA_VERDICT) + inner


# Many of them ------------------------------------------------------------------------------------------------------------------


class Rows(Sequence[Element]):
    """Elements of a set, kept as rows."""

    __slots__ = ("form", "rows")

    def __init__(self, form: Form, rows: Sequence[bytes]) -> None:
        self.form, self.rows = form, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Element: ...
    @overload
    def __getitem__(self, at: slice) -> list[Element]: ...
    def __getitem__(self, at: int | slice) -> Element | list[Element]:
        if isinstance(at, slice):
            return [self.form.element(row) for row in self.rows[at]]
        return self.form.element(self.rows[at])

    def __repr__(self) -> str:
        return repr(list(self))


class Column:
    """Rows of one set one after the other, and their keys. ``values`` are those of a data map, if they are at hand."""

    __slots__ = ("data", "keys", "values")

    def __init__(self, keys: Sequence[bytes], data: bytes, values: Sequence[bytes] = ()) -> None:
        self.keys, self.data, self.values = keys, data, values

    def rows(self) -> list[bytes]:
        """Give them one by one."""
        return split(self.data)


_COLUMN: Final = 24_000  # bytes of rows in one column: two are a message


def cut(text: bytes, longest: int) -> bytes:
    """Cut a comment at so many bytes, but not within a letter: what is no text could not be written again as it is read."""
    if len(text) <= longest:
        return text
    return text[:longest] if text.isascii() else text[:longest].decode(errors="ignore").encode()


def columns(form: Form, keys: Sequence[bytes], values: Sequence[bytes], texts: Sequence[bytes], longest: int) -> list[Column]:
    """Write elements of a data map, or a plain set, whose values are none. Comments are cut at ``longest`` bytes. Raises Unreadable."""
    if not keys:
        return []
    size = max(map(len, texts))
    if size > longest:
        texts, size = [cut(text, longest) for text in texts], longest
    step = _COLUMN // form.size(size)
    if len(keys) <= step:
        return [Column(keys, form.many(keys, values or repeat(b""), texts), values)]
    found: list[Column] = []
    for start in range(0, len(keys), step):
        some, theirs = keys[start : start + step], values[start : start + step]
        found.append(Column(some, form.many(some, theirs or repeat(b""), texts[start : start + step]), theirs))
    return found


def as_columns(form: Form, rows: Sequence[bytes]) -> list[Column]:
    """Put rows of a set together."""
    end, step = form.key_end, _COLUMN // max(map(len, rows), default=1)
    pieces = [rows[start : start + step] for start in range(0, len(rows), step)]
    return [Column([row[_KEY_AT:end] for row in piece], b"".join(piece)) for piece in pieces]


class Columns(Sequence[Element]):
    """Elements of a set, kept as columns."""

    __slots__ = ("columns", "form")

    def __init__(self, one: Set, columns: Sequence[Column]) -> None:
        self.form, self.columns = form(one), columns

    def __len__(self) -> int:
        return sum(len(one.keys) for one in self.columns)

    @property
    def rows(self) -> list[bytes]:
        """Give their rows one by one."""
        return [row for one in self.columns for row in one.rows()]

    @overload
    def __getitem__(self, at: int) -> Element: ...
    @overload
    def __getitem__(self, at: slice) -> list[Element]: ...
    def __getitem__(self, at: int | slice) -> Element | list[Element]:
        return Rows(self.form, self.rows)[at]

    def __iter__(self) -> Iterator[Element]:
        return map(self.form.element, self.rows)

    def __repr__(self) -> str:
        return repr(list(self))


class Packed(Mapping[bytes, Element]):
    """The elements of a set by key, kept as rows, of which ``by_key`` has one for each key, in the order in which they came."""

    __slots__ = ("by_key", "form")

    def __init__(self, one: Set, rows: Iterable[bytes]) -> None:
        self.form = form(one)
        held = rows if isinstance(rows, list) else list(rows)
        self.by_key: dict[bytes, bytes] = dict(zip(map(self.form.key, held), held, strict=True))

    def put(self, rows: Sequence[bytes]) -> None:
        """Put more of them."""
        self.by_key.update(zip(map(self.form.key, rows), rows, strict=True))

    def holds(self, rows: Column) -> bool:
        """Say whether all of these rows are there, to the byte."""
        try:
            return b"".join(map(self.by_key.__getitem__, rows.keys)) == rows.data
        except KeyError:
            return False

    def __getitem__(self, key: bytes) -> Element:
        return self.form.element(self.by_key[key])

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.by_key)

    def __len__(self) -> int:
        return len(self.by_key)

    def __repr__(self) -> str:
        return repr(dict(self))


def packed(one: Set) -> Packed:
    """Give the elements of a set as rows, which those that were read from a kernel are already."""
    held = one.elements
    return held if isinstance(held, Packed) else Packed(one, map(form(one).of, held.values()))


def split(data: bytes) -> list[bytes]:
    """Cut a list of elements into rows. Raises MalformedNetlink."""
    into: list[bytes] = []
    at, end, size_of = 0, len(data), _SIZE
    while at < end:
        size = size_of(data, at)[0] if end - at >= 4 else 0
        if size < 4 or at + size > end:
            raise netlink.MalformedNetlink(f"an element at byte {at} says {size} bytes where {end - at} are left")
        into.append(data[at : at + size])
        at += size + 3 & ~3
    return into


_SIZE: Final = struct.Struct("=H").unpack_from


def read_element(found: Mapping[int, bytes], *, by_end: bool) -> tuple[Element, bool]:
    """Read the attributes of an element, and whether it is the end of an interval. Raises Unreadable."""
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


def verdict(data: bytes) -> Verdict:
    """Read the attributes of a verdict. Raises Unreadable."""
    found = attributes(data)
    code = to_be(found[A.VERDICT_CODE])
    if code not in _KINDS:
        raise Unreadable(f"the verdict {code} is not known here")
    return Verdict(_KINDS[code], to_string(found.get(A.VERDICT_CHAIN, b"")))
