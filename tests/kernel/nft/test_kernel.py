"""Every object both ways against the kernel, with the nft program as oracle.

For each listing of tests/pure/nft: what is written through our bytes is listed by the program exactly as we print it; what we read
back is the value that was written; what the program writes from that text is read as the same value.
"""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from podwire import nft
from podwire.linux.errors import KernelRefused
from podwire.linux.nftables import Nftables
from podwire.nft import AddElements, DeleteElements, Element, rows
from podwire.nft.difference import batches, difference

LISTINGS = sorted((Path(__file__).parents[2] / "pure" / "nft").glob("*.nft"))
EMPTY = nft.Ruleset()
KEY, VALUE, MARK = struct.Struct("=II"), struct.Struct(">IHxx"), struct.Struct("=I")


def listed() -> str:
    """What the program lists. Its end by a signal is a failure too: one unreadable rule takes the whole listing away."""
    return subprocess.run(["nft", "-s", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def load(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, check=True, text=True)


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda path: path.stem)
def test_what_we_write_is_listed_as_we_print_it(listing: Path) -> None:
    want = nft.parse(listing.read_text())
    with Nftables() as door:
        door.apply_batches(difference(EMPTY, want))
        assert listed() == listing.read_text()
        found = door.dump()
        assert found == want
        assert difference(found, want) == []
        for table, wanted in zip(found.tables, want.tables, strict=True):
            for one in wanted.sets:
                if rows.has_rows(one):  # byte for byte: so two big maps are compared
                    assert rows.packed(table.set(one.name)).by_key == rows.packed(one).by_key
        door.apply_batches(difference(want, EMPTY))
        assert listed() == ""


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda path: path.stem)
def test_what_the_program_writes_is_read_as_the_same(listing: Path) -> None:
    want = nft.parse(listing.read_text())
    load(nft.render(want))
    assert listed() == listing.read_text()
    with Nftables() as door:
        found = door.dump()
        for table, wanted in zip(found.tables, want.tables, strict=True):
            assert table.chains == wanted.chains
            # the program marks a set that a rule adds to as one that rules add to, also where it was not declared so
            assert {s.name: s.elements for s in table.sets} == {s.name: s.elements for s in wanted.sets}
        assert nft.render(found) == listing.read_text()


def test_a_dormant_table_is_read_as_such_listed_alike_and_woken() -> None:
    text = 'table ip t {\n\tflags dormant\n\tcomment "asleep"\n\n\tchain c {\n\t\tdrop\n\t}\n}\n'
    load(text)
    with Nftables() as door:
        found = door.dump()
        assert found.tables[0].dormant
        assert listed() == nft.render(found) == nft.render(nft.parse(text))
        awake = nft.Ruleset((replace(found.tables[0], dormant=False),))
        door.apply_batches(difference(found, awake))
        assert door.dump() == awake


def test_what_is_unknown_reads_as_unknown_and_is_replaced() -> None:
    load("table ip t {\n chain c {\n ip dscp cs1 accept\n accept\n }\n}")
    with Nftables() as door:
        have = door.dump()
        assert have.table("ip", "t").chain("c").rules[0].statements == (nft.Unknown("payload"),)
        want = nft.parse("table ip t { chain c { accept; } }")
        door.apply_batches(difference(have, want))
        assert door.dump() == want


def test_only_the_tables_asked_for_are_read() -> None:
    load("table ip a {\n chain c {\n accept\n }\n}\ntable ip b {\n chain c {\n drop\n }\n}\ntable inet a {\n}")
    with Nftables() as door:
        assert [table.id for table in door.dump([("ip", "b"), ("ip", "missing")]).tables] == [("ip", "b")]
        assert [chain.name for chain in door.dump([("ip", "b")]).tables[0].chains] == ["c"]
        assert len(door.dump().tables) == 3


def test_a_refusal_names_the_change_and_the_element_and_nothing_is_done() -> None:
    table = nft.table("table ip t { map m { type mark : mark; size 8; } chain c { ct mark set ct mark map @m; } }")
    held = table.set("m")
    with Nftables() as door:
        door.apply_batches(difference(EMPTY, nft.Ruleset((table,))))
        door.apply([AddElements(table.id, held, [held.element((1,), (1,))])])
        before = door.generation()
        elements = [held.element((number,), (7,)) for number in (5, 6, 1, 7)]
        with pytest.raises(KernelRefused) as exists:
            door.apply([nft.AddChain(table.id, nft.Chain("d")), AddElements(table.id, held, elements)])
        assert exists.value.errno == errno.EEXIST
        assert exists.value.what == "add element ip t m { 0x00000001 : 0x00000007 } (and 3 more)"
        with pytest.raises(KernelRefused) as missing:
            door.apply([DeleteElements(table.id, held, [held.element((1,)), held.element((2,))])])
        assert (missing.value.errno, "0x00000002" in missing.value.what) == (errno.ENOENT, True)
        with pytest.raises(KernelRefused, match="add rule ip t c jump nowhere: No such file or directory"):
            door.apply([nft.AddRule(table.id, "c", nft.rule("jump nowhere"))])
        with pytest.raises(KernelRefused, match=r"delete set ip t m.*busy"):
            door.apply([nft.DeleteSet(table.id, "m")])
        with pytest.raises(KernelRefused) as full:
            door.apply([AddElements(table.id, held, [held.element((number,), (1,)) for number in range(1, 12)])])
        assert full.value.errno == errno.ENFILE
        assert door.generation() == before
        assert [chain.name for chain in door.dump().tables[0].chains] == ["c"]


def test_an_exchange_of_one_element_that_is_refused_names_it_and_nothing_is_done() -> None:
    table = nft.table("table ip t { map m { type mark : mark; size 8; } }")
    held = table.set("m")

    def exchange(gone: int, came: int, value: int) -> list[nft.Change]:
        written = rows.form(held)
        return [
            DeleteElements(table.id, held, rows.Rows(written, [written.row(MARK.pack(gone), MARK.pack(1))])),
            AddElements(table.id, held, rows.Rows(written, [written.row(MARK.pack(came), MARK.pack(value))])),
        ]

    with Nftables() as door:
        door.apply_batches(difference(EMPTY, nft.Ruleset((table,))))
        door.apply([AddElements(table.id, held, [held.element((number,), (1,)) for number in (1, 2)])])
        door.apply(exchange(1, 1, 7))
        have, commits = door.dump(), door.commits
        assert [have.tables[0].set("m").elements[MARK.pack(number)].value for number in (1, 2)] == [MARK.pack(7), MARK.pack(1)]
        with pytest.raises(KernelRefused) as missing:
            door.apply(exchange(5, 5, 9))
        assert (missing.value.errno, "0x00000005" in missing.value.what) == (errno.ENOENT, True)
        with pytest.raises(KernelRefused) as exists:
            door.apply(exchange(1, 2, 9))
        assert (exists.value.errno, exists.value.what) == (errno.EEXIST, "add element ip t m { 0x00000002 : 0x00000009 }")
        assert (door.dump(), door.commits) == (have, commits)
        door.apply(exchange(1, 1, 8))
        assert door.commits == commits + 1


def test_names_are_told_while_tables_come_and_go() -> None:
    stays, comes = nft.table("table ip stays { }"), nft.table("table ip comes { }")
    with Nftables() as door, Nftables() as other, ThreadPoolExecutor(1) as pool:
        door.apply([nft.AddTable(stays.id)])
        asked = threading.Event()

        def change() -> int:
            times = 0
            while not asked.is_set() and times < 50_000:
                other.apply([nft.AddTable(comes.id)])
                other.apply([nft.DeleteTable(comes.id)])
                times += 1
            return times

        changing = pool.submit(change)
        try:
            for _ in range(2000):
                assert set(door.names()) - {comes.id} == {stays.id}
        finally:
            asked.set()
        assert changing.result() > 0


def test_ten_thousand_services_go_through_an_ordinary_users_buffer_and_read_back() -> None:
    table = nft.parse(LISTINGS[-1].read_text()).table("ip", "podwire-services")
    assert int(Path("/proc/sys/net/core/wmem_max").read_text()) > 0
    slots = [
        Element(KEY.pack(i, k), VALUE.pack(0x0A040000 + i, 8000 + k), comment=f"default/web-{i}") for i in range(10_000) for k in range(10)
    ]
    sizes = [Element(MARK.pack(i), MARK.pack(10)) for i in range(10_000)]
    contents = {"backends": slots, "sizes": sizes}
    full = replace(table, sets=tuple(s.with_elements(contents[s.name]) if s.name in contents else s for s in table.sets))
    with Nftables() as door:
        door._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992 // 2)  # the kernel doubles it
        door.apply_batches(difference(EMPTY, nft.Ruleset((full,))))
        have = door.dump()
        assert have == nft.Ruleset((full,))
        backends = full.set("backends")
        one = [Element(KEY.pack(5, 3), VALUE.pack(1, 1), comment="default/new")]
        door.apply([DeleteElements(full.id, backends, one), AddElements(full.id, backends, one)])
        assert door.dump().tables[0].set("backends").elements[one[0].key] == one[0]


def test_too_big_a_transaction_is_refused_whole() -> None:
    table = nft.table("table ip t { map m { type mark : mark; } }")
    held = table.set("m")
    elements = [Element(MARK.pack(number), MARK.pack(1)) for number in range(100_000)]
    with Nftables() as door:
        door._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992 // 2)
        door.apply([nft.AddTable(table.id), nft.AddSet(table.id, held)])
        with pytest.raises(KernelRefused, match="bytes in one transaction") as refused:
            door.apply([AddElements(table.id, held, elements)])
        assert refused.value.errno == errno.EMSGSIZE
        door.apply_batches(batches([AddElements(table.id, held, elements)]))
        assert len(door.dump().tables[0].set("m").elements) == 100_000


def test_what_is_poured_is_carried_out_in_order_while_it_is_made() -> None:
    table = nft.table("table ip t { map m { type mark : mark; size 100000; } }")
    held = table.set("m")
    pieces = [[Element(MARK.pack(number), MARK.pack(start)) for number in range(start, start + 500)] for start in range(0, 20_000, 500)]
    with Nftables() as door:
        door.apply([nft.AddTable(table.id), nft.AddSet(table.id, held)])
        before, steps = door.commits, 0
        for _ in door.pour([AddElements(table.id, held, piece)] if piece else [] for piece in [*pieces[:3], [], *pieces[3:]]):
            steps += 1
        assert (door.commits - before, steps) == (len(pieces), len(pieces) + 1)
        assert dict(door.dump().tables[0].set("m").elements) == {element.key: element for piece in pieces for element in piece}


def test_what_is_poured_ends_with_what_is_refused_and_nobody_hears_of_it_later() -> None:
    table = nft.table("table ip t { map m { type mark : mark; size 100000; } }")
    held = table.set("m")

    def piece(start: int, value: int = 1) -> list[nft.Change]:
        return [AddElements(table.id, held, [Element(MARK.pack(number), MARK.pack(value)) for number in range(start, start + 10)])]

    with Nftables() as door:
        door.apply([nft.AddTable(table.id), nft.AddSet(table.id, held), *piece(100)])
        made: list[int] = []

        def batches_() -> Iterator[list[nft.Change]]:
            for start in range(0, 100_000, 10):
                made.append(start)
                yield piece(start, 2)

        with pytest.raises(KernelRefused) as refused:
            for _ in door.pour(batches_()):
                pass
        assert refused.value.errno == errno.EEXIST
        assert refused.value.what.startswith("add element ip t m { 0x00000064 : 0x00000002 }")
        assert len(made) < 1000, "it goes on for a few at most"
        there = len(door.dump().tables[0].set("m").elements)
        door.apply(piece(100))  # as it is there already
        assert len(door.dump().tables[0].set("m").elements) == there

        pouring = door.pour(batches_())
        next(pouring)
        pouring.close()
        door.apply(piece(100))

        too_much = [AddElements(table.id, held, [Element(MARK.pack(number), MARK.pack(1)) for number in range(200_000, 300_000)])]
        with pytest.raises(KernelRefused, match="bytes in one transaction") as unsent:
            for _ in door.pour([piece(100), too_much, piece(400_000)]):
                pass
        assert unsent.value.errno == errno.EMSGSIZE
        assert MARK.pack(400_000) not in door.dump().tables[0].set("m").elements


# Any table to any table ------------------------------------------------------------------------------------------------------

SETS = {
    "marks": "set marks { type mark; size %d; %s }",
    "ranges": "set ranges { type ipv4_addr; flags interval; %s }",
    "tuples": "map tuples { type ipv4_addr . inet_service : mark; size 64; %s }",
    "pick": "map pick { type mark : verdict; %s }",
    "filter": "set filter { type ipv4_addr . ipv4_addr; flags interval; %s }",
}
RANGES = ("10.0.0.0/8", "10.0.0.0/16", "10.1.0.0-10.2.0.7", "11.0.0.1", "255.0.0.0/8", "0.0.0.0/8")
RULES = ("accept", "drop", "ct mark @marks drop", "ip saddr @ranges accept", "ct mark set ip daddr . tcp dport map @tuples",
         "tcp dport { 80, 443 } accept", "ip saddr . ip daddr @filter drop", "ct mark vmap @pick", "jump x", "goto y")  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> nft.Table:
    """Small tables over a few names, so that one often changes what the other has."""
    chains = draw(st.sets(st.sampled_from(("x", "y", "z"))))
    sets = draw(st.sets(st.sampled_from(sorted(SETS))))
    lines = [_set(draw, name, chains) for name in sorted(sets)]
    targets = [rule for rule in RULES if "@" not in rule or rule.split("@")[1].split()[0] in sets]
    for chain in sorted(chains):
        # only downwards: x may jump to y, never back
        allowed = [r for r in targets if not r.startswith(("jump", "goto")) and "@pick" not in r]
        rules = draw(st.lists(st.sampled_from(allowed), max_size=3)) if allowed else []
        lines.append(f"chain {chain} {{ {'; '.join(rules)} }}")
    reachable = [r for r in targets if not r.startswith(("jump", "goto")) or r[-1] in chains]
    priority, policy = draw(st.sampled_from((-10, 0))), draw(st.sampled_from(("accept", "drop")))
    rules = draw(st.lists(st.sampled_from(reachable), max_size=4)) if reachable else []
    lines.append(f"chain base {{ type filter hook input priority {priority}; policy {policy}; {'; '.join(rules)} }}")
    return nft.table("table ip t {\n" + "\n".join(lines) + "\n}")


def _set(draw: st.DrawFn, name: str, chains: set[str]) -> str:
    if name == "ranges":
        elements = [draw(st.sampled_from(RANGES)), "12.0.0.0/24"] if draw(st.booleans()) else []
    elif name == "filter":
        elements = [f"{draw(st.sampled_from(RANGES))} . 10.0.0.1"] if draw(st.booleans()) else []
    elif name == "pick":
        numbers = draw(st.sets(st.integers(0, 5), max_size=3))
        elements = [f"{number} : {draw(st.sampled_from(['drop', *(f'jump {c}' for c in sorted(chains))]))}" for number in sorted(numbers)]
    elif name == "tuples":
        elements = [f"10.0.0.{n} . 80 : {draw(st.integers(0, 2))}" for n in sorted(draw(st.sets(st.integers(0, 5))))]
    else:
        elements = [str(n) for n in sorted(draw(st.sets(st.integers(0, 5))))]
    body = f"elements = {{ {', '.join(elements)} }};" if elements else ""
    return SETS[name] % ((draw(st.sampled_from((16, 32))), body) if name == "marks" else body)


def test_from_any_table_to_any_table() -> None:
    with Nftables() as door:
        state = [EMPTY]

        @settings(max_examples=150, phases=(Phase.explicit, Phase.generate), derandomize=True)
        @given(st.one_of(tables().map(lambda table: nft.Ruleset((table,))), st.just(EMPTY)))
        def walk(want: nft.Ruleset) -> None:
            cut = difference(state[0], want)
            assert len(cut) <= 1, "small differences are seen whole or not at all"
            door.apply_batches(cut)
            state[0] = door.dump()
            assert _unordered(state[0]) == _unordered(want)
            assert difference(state[0], want) == []

        walk()


def _unordered(ruleset: nft.Ruleset) -> object:
    return [({s.name: s for s in table.sets}, {c.name: c for c in table.chains}) for table in ruleset.tables]
