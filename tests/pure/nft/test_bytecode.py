"""Changes as bytes: sizes, the fast path against the slow one, and what is refused before it is sent."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire import nft
from podwire.nft import AddElements, AddRule, DeleteElements, Element, Unreadable, bytecode, dump, rows
from podwire.nft.commands import render_change
from podwire.nft.difference import batches, difference
from podwire.wire import netlink

T = ("ip", "t")
LAYOUT = nft.table("table ip t { map m { typeof ct mark . meta mark : ip daddr . th dport; size 65536; } set s { type inet_service; } }")
M, S = LAYOUT.set("m"), LAYOUT.set("s")
KEY, VALUE = struct.Struct("=II"), struct.Struct(">IHxx")


def backends(count: int, comment: str = "") -> list[Element]:
    return [Element(KEY.pack(i, i % 7), VALUE.pack(0x0A040000 + i, 8080), comment=comment and f"{comment}-{i}") for i in range(count)]


COMMENTS = st.text(st.characters(exclude_characters='"\n\0', codec="utf-8"), max_size=30)
V = nft.table("table ip t { chain c { } chain long-name { } map v { type mark : verdict; } }").set("v")
R = nft.table("table ip t { set r { type ipv4_addr . inet_service . ipv4_addr; flags interval; } }").set("r")


@given(st.lists(st.tuples(st.integers(0, 65_535), COMMENTS), max_size=40, unique_by=lambda row: row[0]))
def test_rows_say_the_same_as_elements_and_are_read_as_such(given_rows: list[tuple[int, str]]) -> None:
    chains = ("c", "long-name", "")
    for one, made in (
        (M, [Element(KEY.pack(number, 1), VALUE.pack(number, 80), comment=comment) for number, comment in given_rows]),
        (S, [Element(struct.pack(">H", number), comment=comment) for number, comment in given_rows]),
        (V, [Element(KEY.pack(number, 1)[:4], nft.Verdict("goto" if chains[number % 3] else "drop", chains[number % 3]), comment=comment)
             for number, comment in given_rows]),
        (R, [Element(R.key(number, 80, number), end=R.key(number, 80, number + number % 2) if number % 2 else b"", comment=comment)
             for number, comment in given_rows]),
    ):  # fmt: skip
        form = rows.form(one)
        packed = [form.of(element) for element in made]
        assert [form.element(row) for row in packed] == made
        assert [dump.element(row[4:], one) for row in packed] == made, "as any reader of netlink reads them"
        assert [form.key(row) for row in packed] == [element.key for element in made]
        assert all(form.canonical(row) == row for row in packed)
        for change in (AddElements, DeleteElements):
            assert bytecode.encode([change(T, one, rows.Rows(form, packed))]).parts == bytecode.encode([change(T, one, made)]).parts
        assert rows.split(b"".join(packed)) == packed
        held = rows.Packed(one, packed)
        assert held == {element.key: element for element in made}
        together = rows.as_columns(form, packed)
        assert [row for column in together for row in column.rows()] == packed
        assert list(rows.Columns(one, together)) == made
        assert (
            bytecode.encode([AddElements(T, one, rows.Columns(one, together))]).parts == bytecode.encode([AddElements(T, one, made)]).parts
        )
        assert all(map(held.holds, together))
        assert all(map(held.holds, rows.as_columns(form, packed[1:])))
        if made:
            assert not all(map(rows.Packed(one, packed[1:]).holds, together))
            other = form.of(msgspec.structs.replace(made[0], comment="of nobody here"))
            assert not all(map(held.holds, rows.as_columns(form, [other, *packed[1:]])))


@given(st.lists(st.tuples(st.integers(0, 65_535), COMMENTS), max_size=400, unique_by=lambda row: row[0]), st.integers(10, 40))
def test_columns_are_what_their_rows_are_one_by_one(given_rows: list[tuple[int, str]], longest: int) -> None:
    texts = [comment.encode() for _, comment in given_rows]
    short = [text[:longest].decode(errors="ignore").encode() for text in texts]
    for one, keys, values in (
        (M, [KEY.pack(number, 1) for number, _ in given_rows], [VALUE.pack(number, 80) for number, _ in given_rows]),
        (S, [struct.pack(">H", number) for number, _ in given_rows], []),
    ):
        form = rows.form(one)
        found = rows.columns(form, keys, values, texts, longest)
        assert [key for column in found for key in column.keys] == keys
        assert [row for column in found for row in column.rows()] == [
            form.write(key, values[at] if values else b"", short[at]) for at, key in enumerate(keys)
        ]
        assert all(len(column.data) <= bytecode.ELEMENTS_LIMIT // 2 for column in found)


def test_a_comment_too_long_and_a_list_cut_short_are_refused() -> None:
    with pytest.raises(Unreadable, match="127"):
        rows.form(M).of(Element(KEY.pack(1, 1), VALUE.pack(1, 1), comment="x" * 128))
    whole = rows.form(M).of(Element(KEY.pack(1, 1), VALUE.pack(1, 1), comment="x"))
    for size in range(1, len(whole)):
        with pytest.raises(netlink.MalformedNetlink):
            rows.split(whole[:size])


def test_many_elements_go_as_messages_below_the_attributes_limit() -> None:
    transaction = bytecode.encode([AddElements(T, M, backends(10_000, "default/web"))])
    sizes = [len(part) for part in transaction.parts]
    assert max(sizes) < 65_535
    assert sum(sizes) > 600_000
    assert {transaction.origin(sequence) for sequence in range(transaction.first, transaction.last + 1)} == {0}


@pytest.mark.parametrize("limit", [5_000, 50_000, 200_000])
@pytest.mark.parametrize("comment", ["", "default/web", "wäb"])
def test_batches_keep_to_their_limit_and_to_their_order(limit: int, comment: str) -> None:
    elements = backends(5_000, comment)
    replaced = [Element(e.key, VALUE.pack(1, 1), comment=e.comment) for e in elements]
    changes = [AddElements(T, M, elements), DeleteElements(T, M, elements), AddElements(T, M, replaced), DeleteElements(T, M, replaced)]
    cut = list(batches(changes, limit))
    assert max(len(bytecode.encode(batch).datagram) for batch in cut) <= limit
    flat = [(type(change), element) for batch in cut for change in batch for element in change.elements]
    assert sorted(str(one) for one in flat) == sorted(str((type(change), element)) for change in changes for element in change.elements)
    for batch in cut:  # what is deleted to be replaced is replaced in the same transaction
        gone = [e.key for c in batch if isinstance(c, DeleteElements) for e in c.elements if e.value != VALUE.pack(1, 1)]
        added = [e.key for c in batch if isinstance(c, AddElements) for e in c.elements if e.value == VALUE.pack(1, 1)]
        assert gone == added


def test_a_small_difference_is_one_transaction() -> None:
    want = nft.Ruleset((nft.table("table ip t { set s { type mark; } chain c { ct mark @s drop } }"),))
    assert len(difference(nft.Ruleset(), want)) == 1
    assert difference(want, want) == []


@given(st.integers(0, 65_535), COMMENTS, COMMENTS, st.integers(1, 2**31))
def test_an_exchange_is_the_datagram_of_both_changes(number: int, gone: str, came: str, sequence: int) -> None:
    def row(one: nft.Set, comment: str, port: int) -> rows.Rows:
        value = VALUE.pack(number, port) if one is M else None
        key = KEY.pack(number, 1) if one is M else struct.pack(">H", number)
        return rows.Rows(rows.form(one), [rows.form(one).row(key, value, comment)])

    for one in (M, S):
        before, after = DeleteElements(T, one, row(one, gone, 80)), AddElements(T, one, row(one, came, 81))
        whole = bytecode.encode([before, after], sequence)
        assert bytecode.exchange([before, after], sequence) == whole.datagram
        assert whole.last == sequence + 2
        two = rows.Rows(after.elements.form, [*after.elements.rows] * 2)
        others = [
            [after, before],
            [before, before],
            [before, AddElements(("ip", "other"), one, after.elements)],
            [before, AddElements(T, one, two)],
            [before, AddElements(T, one, backends(1) if one is M else [Element(b"\0\1")])],
            [before, AddElements(T, S if one is M else M, after.elements)],
            [before, nft.AddTable(T)],
        ]
        assert [bytecode.exchange(other, sequence) for other in others] == [None] * len(others)


def test_every_message_but_the_last_goes_without_acknowledgement() -> None:
    transaction = bytecode.encode([nft.AddTable(T), AddElements(T, M, backends(3)), nft.FlushSet(T, "m")], 10)
    found = list(netlink.messages(transaction.datagram))
    assert [message.flags & netlink.ACK for message in found] == [0, 0, 0, netlink.ACK, 0]
    assert [message.sequence for message in found] == [10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (AddElements(T, M, [Element(KEY.pack(1, 1), VALUE.pack(1, 1), comment="x" * 128)]), "at most 127 bytes"),
        (AddRule(T, "c", nft.rule("accept", family="ip").__class__((nft.Unknown("xt"),))), "xt is not known"),
        (AddRule(("ip6", "t"), "c", nft.rule("ip saddr 10.0.0.1 drop")), "ip in a table of the family ip6"),
    ],
)
def test_what_cannot_be_said_is_refused(change: nft.Change, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        bytecode.encode([change])


def test_changes_print_as_commands() -> None:
    shown = [
        render_change(nft.AddChain(T, nft.Chain("c", type="nat", hook="prerouting", priority=-100))),
        render_change(AddRule(T, "c", nft.rule("ct mark 7 drop"))),
        render_change(AddElements(T, S, [S.element((port,)) for port in (80, 81, 82, 83, 84)])),
        render_change(DeleteElements(T, M, backends(1, "default/web"))),
    ]
    assert shown == [
        "add chain ip t c { type nat hook prerouting priority dstnat; policy accept; }",
        "add rule ip t c ct mark 0x00000007 drop",
        "add element ip t s { 80, 81, 82 } (and 2 more)",
        'delete element ip t m { 0x00000000 . 0x00000000 comment "default/web-0" : 10.4.0.0 . 8080 }',
    ]


def test_an_element_for_everything_else_is_not_known() -> None:
    everything = netlink.nested(1, netlink.be32(3, 2), netlink.nested(2, netlink.attribute(1, VALUE.pack(1, 1))))
    usual = rows.form(M).of(Element(KEY.pack(1, 1), VALUE.pack(1, 1)))
    turned = netlink.nested(
        1, netlink.nested(2, netlink.attribute(1, VALUE.pack(1, 1))), netlink.nested(1, netlink.attribute(1, KEY.pack(1, 1)))
    )
    told = b"\0\0\0\0" + netlink.nested(3, usual)
    assert dump.elements([told], M) == dump.elements([b"\0\0\0\0" + netlink.nested(3, turned)], M), "in whatever order it is told"
    with pytest.raises(Unreadable, match="everything else"):
        dump.elements([b"\0\0\0\0" + netlink.nested(3, usual, everything)], M)
