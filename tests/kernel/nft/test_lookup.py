"""Elements that are looked up by their keys: what is read is what a list reads, whatever is not as it was thought."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping, Sequence

import pytest

from podwire import nft
from podwire.linux.nftables import Nftables
from podwire.nft import AddElements, DeleteElements, Element
from podwire.nft.difference import batches, difference
from podwire.nft.rows import packed

KEY, VALUE, MARK = struct.Struct("=II"), struct.Struct(">IHxx"), struct.Struct("=I")
TABLE = nft.table("""
    table ip t {
      map m { typeof ct mark . meta mark : ip daddr . th dport; size 65536; }
      map sizes { type mark : mark; size 1024; }
      set ports { type inet_service; size 65536; }
      set addresses { type ipv6_addr; }
      chain c { ct mark set ct mark map @sizes; }
    }
""")
COUNT = 1_000  # as many as several questions take


def elements(count: int = COUNT) -> list[Element]:
    """Elements with comments of every length."""
    return [Element(KEY.pack(i, i % 7), VALUE.pack(0x0A040000 + i, 8080), comment="x" * (i % 128)) for i in range(count)]


def made(door: Nftables, name: str = "m", rows: Sequence[Element] = ()) -> nft.Set:
    """Make the table, with elements in one of its sets."""
    door.apply_batches(difference(nft.Ruleset(), nft.Ruleset((TABLE,))))
    one = TABLE.set(name)
    door.apply_batches(batches([AddElements(TABLE.id, one, rows or elements())]))
    return one


def keyed(door: Nftables, keys: Callable[[], Sequence[bytes] | None], name: str = "m") -> nft.Ruleset:
    """Read with keys. What is read is what a list reads."""
    found = door.dump([TABLE.id], {name: lambda _: keys()})
    assert found == door.dump()
    for one in found.tables[0].sets:
        assert packed(one).by_key == packed(door.dump().tables[0].set(one.name)).by_key, "byte for byte"
    return found


def test_looked_up_is_what_is_listed() -> None:
    keys = [element.key for element in elements()]
    with Nftables(look_up_from=1) as door:
        made(door)
        found = keyed(door, lambda: keys)
        assert list(found.tables[0].set("m").elements) == keys, "in the order in which they were asked for"
        assert door.looked_up == COUNT
        assert dict(found.tables[0].set("m").elements) == {element.key: element for element in elements()}
        with Nftables(look_up_from=COUNT + 1) as other:
            keyed(other, lambda: keys)
            assert other.looked_up == 0, "few are listed"


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("ports", [Element(struct.pack(">H", port), comment="a port") for port in range(1, COUNT)]),
        ("addresses", [Element(struct.pack(">QQ", 0xFD00 << 48, number)) for number in range(COUNT)]),
        ("sizes", [Element(MARK.pack(number), MARK.pack(number)) for number in range(COUNT)]),
    ],
)
def test_sets_and_keys_of_any_length_are_looked_up(name: str, rows: list[Element]) -> None:
    with Nftables(look_up_from=1) as door:
        made(door, name, rows)
        keyed(door, lambda: [element.key for element in rows], name)
        assert door.looked_up == len(rows)


@pytest.mark.parametrize("room", [0, 16_384])
def test_a_buffer_that_holds_few_answers_is_asked_less_at_once(room: int) -> None:
    keys = [element.key for element in elements()]
    with Nftables(look_up_from=1) as door:
        made(door)
        door._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        assert door._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 400 * 512, "fewer than are asked for at once"
        found = door.dump([TABLE.id], {"m": lambda _: keys})
        assert door.looked_up == COUNT
        assert dict(found.tables[0].set("m").elements) == {element.key: element for element in elements()}


def wrong(change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
    return change([element.key for element in elements()])


@pytest.mark.parametrize(
    "keys",
    [
        wrong(lambda keys: [*keys[:-1], KEY.pack(COUNT, 0)]),
        wrong(lambda keys: [KEY.pack(COUNT, 0), *keys[1:]]),
        wrong(lambda keys: [*keys[:500], KEY.pack(COUNT, 0), *keys[501:]]),
        wrong(lambda keys: [*keys[:-1], keys[0]]),
        wrong(lambda keys: keys[1:]),
        wrong(lambda keys: [*keys, KEY.pack(COUNT, 0)]),
        wrong(lambda keys: [b"\0" * 40, *keys[1:]]),
        [],
        None,
    ],
    ids=["the last is not there", "the first", "one between", "one twice", "too few", "too many", "too long", "none", "unknown"],
)
def test_keys_that_are_not_those_that_are_there_make_no_difference(keys: list[bytes] | None) -> None:
    with Nftables(look_up_from=1) as door:
        one = made(door)
        found = keyed(door, lambda: keys)
        assert dict(found.tables[0].set("m").elements) == {element.key: element for element in elements()}
        more = [Element(KEY.pack(COUNT, 0), VALUE.pack(1, 1))]
        door.apply([AddElements(TABLE.id, one, more)])  # no answer of before is taken for that to this
        assert len(door.dump().tables[0].set("m").elements) == COUNT + 1


def test_keys_are_asked_for_when_the_other_sets_have_been_read() -> None:
    seen: list[Mapping[str, nft.Set]] = []
    with Nftables(look_up_from=1) as door:
        one = made(door)
        sizes = [Element(MARK.pack(number), MARK.pack(number)) for number in range(5)]
        door.apply([AddElements(TABLE.id, TABLE.set("sizes"), sizes)])
        door.dump([TABLE.id], {"m": lambda sets: seen.append(dict(sets))})
    assert [len(sets["sizes"].elements) for sets in seen] == [5]
    assert all(sets["m"] == one for sets in seen), "and before its own"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("what", ["one comes", "one goes", "one is another", "a set beside"])
def test_what_changes_while_it_is_read_is_read_again(what: str, times: int) -> None:
    with Nftables(look_up_from=1) as door, Nftables() as other:
        one = made(door)
        there = {element.key: element for element in elements()}
        asked: list[list[bytes]] = []

        def keys(_: Mapping[str, nft.Set]) -> list[bytes]:
            asked.append(list(there))
            number = len(asked)
            if number > times:
                return asked[-1]
            element = there[asked[0][number]]
            added = Element(KEY.pack(COUNT + number, 0), VALUE.pack(1, 1))
            changed = Element(element.key, VALUE.pack(1, 1))
            match what:
                case "one comes":
                    other.apply([AddElements(TABLE.id, one, [added])])
                    there[added.key] = added
                case "one goes":
                    other.apply([DeleteElements(TABLE.id, one, [element])])
                    del there[element.key]
                case "one is another":
                    other.apply([DeleteElements(TABLE.id, one, [element]), AddElements(TABLE.id, one, [changed])])
                    there[element.key] = changed
                case _:
                    other.apply([AddElements(TABLE.id, TABLE.set("sizes"), [Element(MARK.pack(number), MARK.pack(1))])])
            return asked[-1]

        found = door.dump([TABLE.id], {"m": keys})
        assert len(asked) == times + 1
        assert dict(found.tables[0].set("m").elements) == there
        assert found == other.dump()


def test_a_table_that_goes_while_it_is_read_is_none() -> None:
    with Nftables(look_up_from=1) as door, Nftables() as other:
        made(door)

        def keys(_: Mapping[str, nft.Set]) -> list[bytes]:
            other.apply([nft.DeleteTable(TABLE.id)])
            return [element.key for element in elements()]

        assert door.dump([TABLE.id], {"m": keys}) == nft.Ruleset()
