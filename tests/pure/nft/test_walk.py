"""The walk of a packet: hooks in their order, verdicts, sets, translation; and what it does not know it says."""

from __future__ import annotations

import pytest

from podwire import nft
from podwire.nft.walk import DELIVERED, DROPPED, HERE, ONWARD, REJECTED, NotModelled, Packet, Surroundings, Trace, every_way, walk

AROUND = Surroundings(frozenset({"10.0.0.1"}), {"10.0.0.0/24": "br0", "0.0.0.0/0": "eth0"}, {"br0": ("10.0.0.1",), "eth0": ("192.0.2.1",)})
IN = Packet("198.51.100.1", "10.0.0.9", "tcp", 40000, 80, link="eth0")


def table(rules: str, *, hook: str = "type filter hook forward priority 0; policy accept;", before: str = "") -> nft.Ruleset:
    return nft.parse(f"table ip t {{\n{before}\nchain base {{\n{hook}\n{rules}\n}}\n}}")


def kind(rules: str, packet: Packet = IN, **more: str) -> str:
    return walk(table(rules, **more), packet, AROUND).outcome.kind


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("ip daddr 10.0.0.0/24 drop", True),
        ("ip daddr != 10.0.0.0/24 drop", False),
        ("ip saddr { 198.51.100.0/24, 203.0.113.1 } drop", True),
        ("ip saddr . tcp dport { 198.51.100.0/24 . 70-90 } drop", True),
        ("ip saddr . tcp dport { 198.51.100.0/24 . 81-90 } drop", False),
        ("tcp dport 80 drop", True),
        ("udp dport 80 drop", False),
        ("th dport < 80 drop", False),
        ("th dport >= 80 drop", True),
        ("ct state new drop", True),
        ("ct state established,related drop", False),
        ("ct status ! dnat drop", True),
        ("meta l4proto vmap { tcp : drop }", True),
        ("fib daddr type local drop", False),
        ("fib saddr type unicast drop", True),
        ('iifname "eth*" oifname "br0" drop', True),
        ('iifname "br0" drop', False),
        ("meta mark & 0xff == 0x0 drop", True),
        ("ct original ip daddr 10.0.0.9 counter drop", True),
    ],
)
def test_comparisons(rule: str, matches: bool) -> None:
    assert kind(rule) == (DROPPED if matches else DELIVERED)


def test_jump_comes_back_goto_does_not() -> None:
    below = "chain below {\ntcp dport 80 return\ndrop\n}\nchain beyond {\nip ttl 3 drop\n}"
    assert kind("jump below\ndrop", before=below) == DROPPED
    assert kind("goto below\ndrop", before=below) == DELIVERED
    with pytest.raises(NotModelled, match="ip ttl"):
        kind("goto beyond", before=below)


def test_reject_drop_and_policy() -> None:
    trace = walk(table("tcp dport 80 reject with tcp reset"), IN, AROUND)
    assert (trace.outcome.kind, trace.outcome.how) == (REJECTED, "tcp reset")
    assert str(trace.steps[0]) == "forward     ip t base: tcp dport 80 reject with tcp reset"
    assert kind("reject with tcp reset", Packet("198.51.100.1", "10.0.0.9", "udp", 1, 2, link="eth0")) == DELIVERED
    assert kind("tcp dport 81 accept", hook="type filter hook forward priority 0; policy drop;") == DROPPED


NAT = nft.parse("""table ip t {
    map to { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.2 . 8080 } }
    chain pre { type nat hook prerouting priority dstnat; policy accept;
        ip daddr 203.0.113.1 dnat ip to tcp dport map @to
    }
    chain after { type filter hook prerouting priority -99; policy accept; ip daddr 10.0.0.2 meta mark set 0x7; }
    chain before { type filter hook prerouting priority -101; policy accept; ip daddr 10.0.0.2 drop; }
    chain post { type nat hook postrouting priority 50; policy accept; meta mark 0x7 masquerade fully-random; }
}""")


def test_translation_has_its_place_and_lasts_as_long_as_the_connection() -> None:
    first = walk(NAT, Packet("198.51.100.1", "203.0.113.1", "tcp", 40000, 80, link="eth0"), AROUND)
    assert first.connection.destination == ("10.0.0.2", 8080)
    out = first.outcome.packet
    assert (out.source, out.destination, out.destination_port, first.outcome.link) == ("10.0.0.1", "10.0.0.2", 8080, "br0")
    without = nft.Ruleset()
    later = walk(
        without, Packet("198.51.100.1", "203.0.113.1", "tcp", 40000, 80, link="eth0"), AROUND, connection=first.connection.established()
    )
    assert (later.outcome.packet.source, later.outcome.packet.destination) == ("10.0.0.1", "10.0.0.2")
    missed = walk(NAT, Packet("198.51.100.1", "203.0.113.1", "tcp", 40000, 81, link="eth0"), AROUND)
    assert missed.outcome.packet.destination == "203.0.113.1"


def test_what_starts_here_and_ends_here_comes_in_by_the_loopback() -> None:
    rules = nft.parse('table ip t { chain i { type filter hook input priority 0; policy accept; iifname "lo" ct state new counter; } }')
    trace = walk(rules, Packet("10.0.0.1", "10.0.0.1", "tcp", 1, 2), AROUND)
    assert (trace.outcome.where, len(trace.steps)) == (HERE, 1)
    assert walk(rules, Packet("10.0.0.1", "10.0.0.7", "tcp", 1, 2), AROUND).outcome.where == ONWARD


def test_every_way_draws_every_number() -> None:
    rules = table("meta mark set numgen random mod 3\nmeta mark 0x1 drop\nmeta mark set numgen random mod 2\nmeta mark 0x1 reject")
    ways = list(every_way(rules, IN, AROUND))
    assert sorted(trace.draws for trace in ways) == [(0, 0), (0, 1), (1,), (2, 0), (2, 1)]
    assert sorted(trace.outcome.kind for trace in ways) == [DELIVERED, DELIVERED, DROPPED, REJECTED, REJECTED]


def test_packets_fill_sets_until_their_time_or_their_room_is_over() -> None:
    rules = table(
        "ip saddr @seen drop\nadd @seen { ip saddr }", before="set seen { type ipv4_addr; size 1; flags dynamic,timeout; timeout 10s; }"
    )

    def one(source: str, before: Trace | None, now_ms: int) -> Trace:
        packet = Packet(source, "10.0.0.9", "tcp", 1, 2, link="eth0")
        return walk(rules, packet, AROUND, learnt=before.learnt if before else None, now_ms=now_ms)

    first = one("198.51.100.1", None, 0)
    assert first.outcome.kind == DELIVERED
    assert one("198.51.100.1", first, 9_999).outcome.kind == DROPPED
    assert one("198.51.100.1", first, 10_000).outcome.kind == DELIVERED
    full = one("198.51.100.2", first, 0)
    assert (full.outcome.kind, len(full.steps)) == (DELIVERED, 0)
    assert one("198.51.100.2", full, 1).outcome.kind == DELIVERED


@pytest.mark.parametrize("rule", ["limit rate 1/second", "notrack", "meta mark set symhash mod 2", "ip ttl 1", "ct zone 1", "meta skuid 0"])
def test_what_is_not_known_is_an_error(rule: str) -> None:
    with pytest.raises(NotModelled):
        kind(f"{rule} accept" if rule != "notrack" else rule)
