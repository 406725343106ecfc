"""Questions for elements by their keys as bytes, and answers of every shape."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire import nft
from podwire.nft import Element, dump, rows
from podwire.nft.fake import FakeNftables
from podwire.nft.lookup import Lookup
from podwire.wire import netlink, nfnetlink
from podwire.wire.nfnetlink import NFTA as A

T = ("ip", "some-table")
SETS = nft.table("""
    table ip some-table {
      map m { typeof ct mark . meta mark : ip daddr . th dport; size 65536; }
      set s { type inet_service; }
      map v { type mark : verdict; }
    }
""")
M, S, V = SETS.set("m"), SETS.set("s"), SETS.set("v")
KEY, VALUE = struct.Struct("=II"), struct.Struct(">IHxx")
SEQUENCE, PORT, GENERATION = 7, 4711, 0x1234
COMMENTS = st.text(st.characters(exclude_characters='"\n\0', codec="utf-8"), max_size=30)


def answer(one: nft.Set, inner: bytes, sequence: int = SEQUENCE, kind: int = nfnetlink.NEWSETELEM) -> bytes:
    """A datagram as the kernel's."""
    named = netlink.string(A.ELEMENTS_TABLE, T[1]) + netlink.string(A.ELEMENTS_SET, one.name)
    payload = nfnetlink.generic(2, GENERATION) + named + inner
    return netlink.message(nfnetlink.NFTABLES << 8 | kind, 0, sequence, payload, PORT)


def listed(*written: bytes) -> bytes:
    return netlink.attribute(A.ELEMENTS_LIST, b"".join(written))


def refusal(number: int, sequence: int = SEQUENCE) -> bytes:
    return netlink.message(netlink.ERROR, 0, sequence, struct.pack("=i", -number) + bytes(16), PORT)


@given(st.lists(st.tuples(st.integers(0, 65_535), COMMENTS), max_size=40, unique_by=lambda row: row[0]))
def test_every_answer_is_a_row(given_rows: list[tuple[int, str]]) -> None:
    for one, made in (
        (M, [Element(KEY.pack(number, 1), VALUE.pack(number, 80), comment=comment) for number, comment in given_rows]),
        (S, [Element(struct.pack(">H", number), comment=comment) for number, comment in given_rows]),
        (V, [Element(KEY.pack(number, 1)[:4], nft.Verdict("goto", "c"), comment=comment) for number, comment in given_rows]),
    ):
        lookup, form = Lookup(T, one, SEQUENCE), rows.form(one)
        written = [form.of(element) for element in made]
        told = [answer(one, listed(row)) for row in written]
        assert lookup.rows(told) == written
        assert lookup.rows(told[:3]) == written[:3], "and again, of lengths that are known"
        assert all(len(datagram) <= lookup.room for datagram in told)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=400))
def test_a_question_names_every_key(numbers: list[int]) -> None:
    for one, keys in ((M, [KEY.pack(number, 3) for number in numbers]), (S, [struct.pack(">H", number & 0xFFFF) for number in numbers])):
        [asked] = netlink.messages(Lookup(T, one, SEQUENCE).question(keys))
        assert (asked.type, asked.flags, asked.sequence) == (nfnetlink.NFTABLES << 8 | nfnetlink.GETSETELEM, netlink.REQUEST, SEQUENCE)
        assert dump.table_of(asked.payload) == T
        parts = netlink.attributes(asked.payload, 4)
        assert netlink.to_string(parts[A.ELEMENTS_SET]) == one.name
        assert [dump.element(row[4:], one).key for row in rows.split(parts[A.ELEMENTS_LIST])] == keys


def test_answers_of_another_shape_are_read_as_messages() -> None:
    made = [Element(KEY.pack(number, 1), VALUE.pack(number, 80), comment="c" * number) for number in range(4)]
    row, *others = written = [rows.form(M).of(element) for element in made]
    turned = netlink.nested(
        A.LIST_ELEM,
        netlink.nested(A.ELEM_DATA, netlink.attribute(A.DATA_VALUE, VALUE.pack(0, 80))),
        netlink.nested(A.ELEM_KEY, netlink.attribute(A.DATA_VALUE, KEY.pack(0, 1))),
    )
    flagged = netlink.nested(A.ELEMENTS_LIST, row)
    rest = [answer(M, listed(other)) for other in others]
    for inner in (listed(turned), flagged, listed(row) + netlink.string(A.ELEMENTS_SET_ID, "more"), netlink.be32(200, 1) + listed(row)):
        assert Lookup(T, M, SEQUENCE).rows([answer(M, inner), *rest]) == written
        assert Lookup(T, M, SEQUENCE).rows([*rest, answer(M, inner)]) == [*others, row]
    assert Lookup(T, M, SEQUENCE).rows([answer(M, listed(*written))]) == written, "several in one"
    assert Lookup(T, M, SEQUENCE).rows([answer(M, listed(row)) + answer(M, listed(others[0]))]) == [row, others[0]], "or in one datagram"


def test_what_answers_another_question_is_none_and_a_refusal_is_no_row() -> None:
    row = rows.form(M).of(Element(KEY.pack(1, 1), VALUE.pack(1, 80)))
    lookup = Lookup(T, M, SEQUENCE)
    others = [answer(M, listed(row), sequence=6), refusal(5, sequence=6), answer(M, listed(row), kind=nfnetlink.NEWGEN)]
    assert lookup.rows([*others, answer(M, listed(row))]) == [row]
    assert lookup.rows([answer(M, listed(row)), refusal(2)]) == [row]


def test_an_answer_that_was_cut_off_is_none() -> None:
    told = answer(M, listed(rows.form(M).of(Element(KEY.pack(1, 1), VALUE.pack(1, 80), comment="some comment"))))
    for size in range(1, len(told)):
        with pytest.raises(netlink.MalformedNetlink):
            Lookup(T, M, SEQUENCE).rows([told[:size]])


def test_a_fake_reads_the_same_with_keys_and_without() -> None:
    door = FakeNftables()
    door.apply([nft.AddTable(T), nft.AddSet(T, M), nft.AddElements(T, M, [Element(KEY.pack(1, 1), VALUE.pack(1, 80))])])
    assert door.dump([T], {"m": lambda _: [KEY.pack(2, 1)]}) == door.dump()
