"""The ruleset in memory refuses what the kernel refuses, with the same error, and holds what the kernel holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from podwire import nft
from podwire.linux.errors import KernelRefused
from podwire.linux.nftables import Nftables
from podwire.nft.fake import FakeNftables

NAMES = (("ip", "t"), ("ip", "t"), ("ip", "t"), ("ip", "other"))
DECLARED = nft.table(
    """table ip t {
        set marks { type mark; size 3; }
        set ranges { type ipv4_addr; flags interval; }
        map tuples { type ipv4_addr . inet_service : mark; size 4; }
        map pick { type mark : verdict; }
        set filter { type ipv4_addr . ipv4_addr; flags interval; }
        map ends { typeof ct mark . meta mark : ip daddr . th dport; size 8; }
        chain a { }
        chain b { }
        chain c { }
        chain input { type filter hook input priority 0; policy accept; }
        chain dnats { type nat hook prerouting priority dstnat; policy accept; }
        chain snats { type nat hook postrouting priority srcnat; policy accept; }
    }"""
)
SETS = {one.name: one for one in DECLARED.sets}
CHAINS = {one.name: one for one in DECLARED.chains}
ALTERED = (
    replace(SETS["marks"], size=5),
    replace(SETS["ranges"], flags=frozenset()),
    replace(SETS["pick"], key_types=SETS["ranges"].key_types),
)
MOVED = (replace(CHAINS["input"], priority=5), replace(CHAINS["input"], policy="drop"), replace(CHAINS["a"], type="filter", hook="input"))
RULES = tuple(
    nft.rule(text, sets=SETS)
    for text in (
        "accept", "jump a", "jump b", "goto c", "jump input", "jump missing", "ct mark @marks drop", "ip saddr @ranges accept",
        "ct mark set ip daddr . tcp dport map @tuples", "ct mark vmap @pick", "ip saddr . ip daddr @filter drop", "masquerade",
        "dnat to 10.0.0.1:80", "meta l4proto { tcp, udp } dnat ip to ct mark . meta mark map @ends", "ip saddr @marks drop",
        "meta mark vmap { 0x1 : jump a, 0x2 : goto b }", "ct mark @missing drop", "reject", "counter",
    )
)  # fmt: skip
PREFIXES = ("10.0.0.0/8", "10.0.0.0/16", "10.1.0.0-10.2.0.7", "11.0.0.1", "10.0.0.1", "12.0.0.0-12.0.0.3", "11.0.0.0/8")


def element(draw: st.DrawFn, one: nft.Set) -> nft.Element:
    number = draw(st.integers(0, 5))
    match one.name:
        case "marks":
            return one.element((number,))
        case "tuples":
            return one.element((f"10.0.0.{number}", 80), (draw(st.integers(1, 2)),))
        case "ends":
            return one.element((number, 1), (f"10.0.0.{draw(st.integers(1, 2))}", 80))
        case "pick":
            chain = draw(st.sampled_from(("a", "b", "c", "input", "missing")))
            return one.element((number,), nft.Verdict(draw(st.sampled_from(("jump", "goto"))), chain))
        case "ranges":
            return parsed(f"set ranges {{ type ipv4_addr; flags interval; elements = {{ {draw(st.sampled_from(PREFIXES))} }} }}")
    pair = f"{draw(st.sampled_from(PREFIXES))} . {draw(st.sampled_from(PREFIXES[:3]))}"
    return parsed(f"set filter {{ type ipv4_addr . ipv4_addr; flags interval; elements = {{ {pair} }} }}")


def parsed(text: str) -> nft.Element:
    [one] = nft.table(f"table ip t {{ {text} }}").sets[0].elements.values()
    return one


@st.composite
def changes(draw: st.DrawFn) -> nft.Change:
    table, one = draw(st.sampled_from(NAMES)), draw(st.sampled_from(tuple(SETS.values())))
    chain = draw(st.sampled_from((*CHAINS, "missing")))
    rows = [element(draw, one) for _ in range(draw(st.integers(1, 4)))]
    return draw(
        st.sampled_from(
            (
                nft.AddTable(table),
                nft.AddSet(table, one),
                nft.AddSet(table, draw(st.sampled_from(ALTERED))),
                nft.AddChain(table, draw(st.sampled_from(tuple(CHAINS.values()))).declaration()),
                nft.AddChain(table, draw(st.sampled_from(MOVED))),
                *(nft.AddRule(table, chain, draw(st.sampled_from(RULES))) for _ in range(2)),
                *(nft.AddElements(table, one, rows) for _ in range(4)),
                *(nft.DeleteElements(table, one, rows[:1]) for _ in range(2)),
                nft.DeleteChain(table, chain),
                nft.FlushChain(table, chain),
                nft.DeleteSet(table, one.name),
                nft.FlushSet(table, one.name),
                *((nft.DeleteTable(table),) if draw(st.integers(0, 9)) == 0 else ()),
            )
        )
    )


def all_at_once() -> list[nft.Change]:
    table = DECLARED.id
    return [
        nft.AddTable(table),
        *(nft.AddSet(table, one) for one in DECLARED.sets),
        *(nft.AddChain(table, one) for one in DECLARED.chains),
    ]


def refusal(door: Nftables | FakeNftables, batch: Sequence[nft.Change]) -> int:
    try:
        door.apply(batch)
    except KernelRefused as refused:
        return refused.errno or -1
    return 0


def held(ruleset: nft.Ruleset) -> object:
    return {t.id: ({s.name: s for s in t.sets}, {c.name: c for c in t.chains}) for t in ruleset.tables}


def test_the_fake_is_as_strict_as_the_kernel() -> None:
    with Nftables() as kernel:

        @settings(
            max_examples=100,
            deadline=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        @given(st.booleans(), st.lists(st.lists(changes(), min_size=1, max_size=4), max_size=12))
        def same(prepared: bool, batches: list[list[nft.Change]]) -> None:
            fake = FakeNftables(KernelRefused)
            kernel.apply([nft.DeleteTable(table.id) for table in kernel.dump().tables])
            for batch in ([all_at_once()] if prepared else []) + batches:
                before = kernel.generation(), fake.generation()
                said, found = refusal(kernel, batch), refusal(fake, batch)
                assert found == said, batch
                assert fake.generation() - before[1] == kernel.generation() - before[0]
                assert held(fake.dump()) == held(kernel.dump()), batch

        same()
