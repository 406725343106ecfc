"""The text of nftables: what nft printed reads and prints the same; hand-written forms mean the same; mistakes name their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire import nft
from podwire.nft import Element, Unreadable, datatype
from podwire.nft.printing import render_priority, render_time

LISTINGS = sorted(Path(__file__).parent.glob("*.nft"))


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda path: path.stem)
def test_a_listing_reads_and_prints_the_same(listing: Path) -> None:
    text = listing.read_text()
    assert nft.render(nft.parse(text)) == text


@pytest.mark.parametrize(
    ("written", "listed"),
    [
        (
            "update @affinity { ip saddr . ct mark timeout 3600s : meta mark }",
            "update @affinity { ip saddr . ct mark timeout 1h : meta mark }",
        ),
        ("meta mark set 0", "meta mark set 0x00000000"),
        ("ct mark != 0 masquerade fully-random", "ct mark != 0x00000000 masquerade fully-random"),
        ("ct state related,established accept", "ct state established,related accept"),
        ("meta l4proto tcp th dport 53 accept", "tcp dport 53 accept"),
        ("meta l4proto tcp tcp dport 53 accept", "tcp dport 53 accept"),
        ("meta l4proto tcp reject with tcp reset", "reject with tcp reset"),
        ("reject with icmp type port-unreachable", "reject"),
        ("tcp flags & (fin|syn|rst|ack) == syn", "tcp flags syn / fin,syn,rst,ack"),
        ("tcp dport {80,443} counter packets 5 bytes 6 accept", "tcp dport { 80, 443 } counter accept"),
        ("ip saddr 10.0.0.1/32 drop", "ip saddr 10.0.0.1 drop"),
        ("meta mark set meta mark and 0xff", None),
        ("meta mark set meta mark & 0xff | 0x100", "meta mark set meta mark & 0x000001ff | 0x00000100"),
        ('iifname eth0 accept comment "why"', 'iifname "eth0" accept comment "why"'),
        ('iifname "veth*" accept', 'iifname "veth*" accept'),
        ("limit rate 1024 kbytes/second burst 2048 bytes", "limit rate 1 mbytes/second burst 2 kbytes"),
    ],
)
def test_a_hand_written_rule_is_printed_as_nft_lists_it(written: str, listed: str | None) -> None:
    if listed is None:
        with pytest.raises(Unreadable):
            nft.rule(written)
    else:
        assert nft.render_rule(nft.rule(written)) == listed
        assert nft.rule(listed) == nft.rule(written)


def test_in_the_family_inet_a_reset_names_its_protocol() -> None:
    assert nft.render_rule(nft.rule("reject with tcp reset", family="inet"), "inet") == "meta l4proto tcp reject with tcp reset"
    assert nft.render_rule(nft.rule("meta nfproto ipv4 ip saddr 10.0.0.1 drop", family="inet"), "inet") == "ip saddr 10.0.0.1 drop"


def test_one_line_forms_read() -> None:
    table = nft.table(
        """
        table ip t { # what it is for
            map pick { type mark : verdict; elements = { 3 : jump pick-3 }; }
            set f { type ipv4_addr; timeout 90s; }
            chain pick-3 { meta mark set numgen random mod 3; }
            chain base { type nat hook prerouting priority dstnat - 10; jump pick-3; jump pick-3 }
        }
        """
    )
    assert [len(chain.rules) for chain in table.chains] == [1, 2]
    assert table.chain("base").priority == -110
    assert table.set("f").flags == {"timeout"}
    assert table.set("f").timeout_ms == 90_000
    assert table.set("pick").elements[table.set("pick").key(3)].value == nft.Verdict("jump", "pick-3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table ip t {\n chain c {\n frobnicate\n }\n}", "line 3.*unknown statement frobnicate"),
        ("table ip t {\n chain c {\n tcp dport eighty accept\n }\n}", "line 3.*eighty"),
        ("table ip t {\n set s { type ipv4_addr; elements = { 10.0.0.256 } }\n}", "10.0.0.256"),
        ("table ip t {\n set s { type ipv5_addr; }\n}", "unknown data type ipv5_addr"),
        ("table bridge t { }", "family bridge"),
        ("table ip t { chain c { accept", "ends too early"),
        ("table ip t { chain c { ct mark map @a map @b } }", "carry the value in a mark"),
        ("table ip t { chain c { ip saddr . ip daddr 10.0.0.1 . 10.0.0.2 } }", "compared with a set"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        nft.parse(text)


def test_keys_are_the_kernels_bytes() -> None:
    key = (datatype("ipv4_addr"), datatype("inet_proto"), datatype("inet_service"))
    frontends = nft.Set("frontends", key, (datatype("mark"),))
    element = frontends.element(("10.8.0.1", "tcp", 80), (7,), comment="default/web")
    assert element.key == bytes((10, 8, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0))
    assert frontends.layout == "ipv4_addr:4 inet_proto:4 inet_service:4"
    assert nft.Set("ports", key[2:]).key(80) == b"\x00\x50"
    with pytest.raises(Unreadable, match="70000"):
        frontends.key("10.8.0.1", "tcp", 70000)


@pytest.mark.parametrize(
    ("priority", "hook", "text"),
    [(-100, "prerouting", "dstnat"), (-110, "prerouting", "dstnat - 10"), (-100, "output", "-100"), (100, "postrouting", "srcnat"),
     (5, "input", "filter + 5"), (11, "input", "11"), (-150, "output", "mangle")],
)  # fmt: skip
def test_priorities_are_named_where_nft_names_them(priority: int, hook: str, text: str) -> None:
    assert render_priority(priority, hook) == text


def test_times() -> None:
    assert [render_time(ms) for ms in (0, 500, 90_000, 3_600_000, 90_061_001)] == ["0s", "500ms", "1m30s", "1h", "1d1h1m1s1ms"]


names = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)
comments = st.text("abc /.-é", max_size=20)


@given(
    st.dictionaries(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), st.integers(0, 2**32 - 1), max_size=12),
    st.lists(comments, min_size=12, max_size=12),
)
def test_any_elements_read_back(content: dict[tuple[int, int], int], notes: list[str]) -> None:
    table = nft.table("table ip t { map m { typeof ct mark . meta mark : meta mark; size 64; } }")
    held = table.set("m")
    elements = [held.element(key, (value,), comment=note) for (key, value), note in zip(content.items(), notes, strict=False)]
    full = nft.Ruleset((nft.Table("ip", "t", (held.with_elements(elements),)),))
    assert nft.parse(nft.render(full)) == full


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 200)), max_size=8))
def test_intervals_read_back(pairs: list[tuple[int, int]]) -> None:
    held = nft.table("table ip t { set s { type inet_service; flags interval; } }").set("s")
    elements = {}
    for low, width in pairs:
        high = min(low + width, 65535)
        elements[low] = Element(held.key(low), end=held.key(high) if high > low else b"")
    full = nft.Ruleset((nft.Table("ip", "t", (held.with_elements(elements.values()),)),))
    assert nft.parse(nft.render(full)) == full
