"""A packet walked through a ruleset, as the kernel would take it: which rules match, and what becomes of it.

What belongs here: hooks in their order, chains, statements, translation. What must not: what expressions are worth (evaluation.py),
sockets, chance: ``choose`` answers for ``numgen``, and ``every_way`` tries all answers.

    ruleset = nft.parse(text)                                   # as `nft list ruleset` prints it
    for trace in every_way(ruleset, Packet("10.4.1.2", "10.8.0.10", "udp", 40000, 53, link="veth2"), surroundings):
        print(trace)

How a packet goes: one that enters meets prerouting, then input if its destination is local and else forward and postrouting; one that
starts here meets output and postrouting, and if it is for this place itself, it comes in by the loopback. On each hook the chains come by
priority; those of type nat are asked at the fixed place of translation (destinations at -100, sources at 100), among themselves by
priority, and only for the first packet of a connection, until one of them decides. Of two chains of the same priority the one made later
comes first.

Every statement that is not known here is an error, never passed over. Of translation the addresses and the destination's port are followed;
which source port ``masquerade`` takes is not.

Source: the Linux kernel's net/netfilter/nf_tables_core.c, nf_nat_core.c, core.c (nf_hook_entries_grow); nft(8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from podwire.nft import datatypes
from podwire.nft.datatypes import MARK
from podwire.nft.evaluation import Connection, Fields, Known, Learnt, NotModelled, Packet, Situation, Surroundings, Tables
from podwire.nft.model import (
    Assign,
    Chain,
    Counter,
    Ct,
    Element,
    Log,
    Masquerade,
    Match,
    Meta,
    Nat,
    Reject,
    Rule,
    Ruleset,
    Statement,
    TableName,
    Update,
    Verdict,
    VerdictMap,
)
from podwire.nft.printing import render_rule

DELIVERED, DROPPED, REJECTED = "delivered", "dropped", "rejected"
HERE, ONWARD = "here", "onward"

_TRANSLATES: Final = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}
_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that matched."""

    hook: str
    table: TableName
    chain: str
    rule: str

    def __str__(self) -> str:
        return f"{self.hook:11} {self.table[0]} {self.table[1]} {self.chain}: {self.rule}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the packet.

    ``kind`` is DELIVERED, DROPPED or REJECTED (``how``: tcp reset, or the code of the ICMP message). ``packet`` is as it left or
    arrived; ``where`` is HERE (a socket of this place) or ONWARD by ``link``.
    """

    kind: str
    packet: Packet
    where: str = ""
    link: str = ""
    how: str = ""

    def __str__(self) -> str:
        where = "" if self.kind != DELIVERED else " here" if self.where == HERE else f" by {self.link}" if self.link else " onward"
        return f"{self.kind}{where}{f' ({self.how})' if self.how else ''}: {self.packet}"


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole way: each rule that matched, the end, the connection as it is afterwards, and what packets have put into sets so far."""

    steps: tuple[Step, ...]
    outcome: Outcome
    connection: Connection
    learnt: Learnt
    draws: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "".join(f"{step}\n" for step in self.steps) + str(self.outcome)


def first(modulus: int) -> int:  # noqa: ARG001  (the signature of a chooser)
    """A chooser: always the first."""
    return 0


def walk(
    ruleset: Ruleset,
    packet: Packet,
    surroundings: Surroundings,
    *,
    choose: Callable[[int], int] = first,
    connection: Connection | None = None,
    learnt: Learnt | None = None,
    now_ms: int = 0,
) -> Trace:
    """Walk one packet.

    Args:
        choose: gives a number below its argument, wherever a rule draws one at random.
        connection: the packet's, from an earlier trace; without, it is the first packet of a new one.
        learnt: what earlier packets put into sets, from the last trace.
        now_ms: the time, for elements with a timeout.

    Raises:
        NotModelled: a rule on the way does what is not known here.
    """
    draws: list[int] = []

    def draw(modulus: int) -> int:
        draws.append(choose(modulus))
        return draws[-1]

    before = {key: dict(rows) for key, rows in (learnt or {}).items()}
    at = Situation(packet, connection or Connection(packet), surroundings, draw, now_ms, learnt=before)
    walker = _Walker(ruleset, at)
    outcome = walker.run()
    return Trace(tuple(walker.steps), outcome, at.connection, at.learnt, tuple(draws))


def every_way(
    ruleset: Ruleset,
    packet: Packet,
    surroundings: Surroundings,
    *,
    connection: Connection | None = None,
    learnt: Learnt | None = None,
    now_ms: int = 0,
) -> Iterator[Trace]:
    """Walk a packet once for every possible row of draws. Raises as ``walk``."""
    pending: list[list[int]] = [[]]
    while pending:
        given = pending.pop()
        moduli: list[int] = []

        def choose(modulus: int, given: list[int] = given, moduli: list[int] = moduli) -> int:
            moduli.append(modulus)
            return given[len(moduli) - 1] if len(moduli) <= len(given) else 0

        trace = walk(ruleset, packet, surroundings, choose=choose, connection=connection, learnt=learnt, now_ms=now_ms)
        yield trace
        for at in range(len(given), len(moduli)):
            pending += [[*trace.draws[:at], other] for other in range(1, moduli[at])]


class _End(Exception):
    """The packet's way is over."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(slots=True)
class _Walker:
    ruleset: Ruleset
    at: Situation
    steps: list[Step] = field(default_factory=list)
    hook: str = ""
    priority: int = 0
    translated: set[str] = field(default_factory=set)  # the hooks' sides that have decided: "destination", "source"

    # Hooks

    def run(self) -> Outcome:
        try:
            return self._route()
        except _End as end:
            return end.outcome

    def _route(self) -> Outcome:
        at = self.at
        if not at.packet.link:
            at.out = at.surroundings.link(at.packet.destination)
            self._pass("output")
            at.out = at.surroundings.link(at.packet.destination)
            self._pass("postrouting")
            if at.surroundings.kind(at.packet.destination) != "local":
                return Outcome(DELIVERED, at.packet, ONWARD, at.out)
            at.packet, at.out = replace(at.packet, link="lo"), ""
        self._pass("prerouting")
        if at.surroundings.kind(at.packet.destination) == "local":
            self._pass("input")
            return Outcome(DELIVERED, at.packet, HERE)
        at.out = at.surroundings.link(at.packet.destination)
        self._pass("forward")
        self._pass("postrouting")
        return Outcome(DELIVERED, at.packet, ONWARD, at.out)

    def _pass(self, hook: str) -> None:
        """All that happens on one hook."""
        self.hook = hook
        calls: list[tuple[int, int, Callable[[], None]]] = []
        translating: list[tuple[int, int, Tables, Chain, dict[str, Chain]]] = []
        for order, table in enumerate(reversed(self.ruleset.tables)):
            if table.family not in ("inet", "ip" if self.at.packet.version == 4 else "ip6"):
                continue
            scope, chains = Tables(table.id, {one.name: one for one in table.sets}), {chain.name: chain for chain in table.chains}
            for nearer, chain in enumerate(reversed(table.chains)):
                if chain.hook != hook:
                    continue
                row = (chain.priority, order * 10_000 + nearer, scope, chain, chains)
                if chain.type == "nat":
                    translating.append(row)
                elif chain.type == "filter":
                    calls.append((*row[:2], lambda row=row: self._base(*row[2:])))  # type: ignore[misc]
                else:
                    raise NotModelled(f"chains of the type {chain.type}")
        if hook in _TRANSLATES:
            calls.append((_TRANSLATES[hook], -1, lambda: self._translate(sorted(translating, key=lambda row: row[:2]))))
        for priority, _, call in sorted(calls, key=lambda one: one[:2]):
            self.priority = priority
            call()

    def _base(self, scope: Tables, chain: Chain, chains: dict[str, Chain]) -> None:
        verdict = self._chain(scope, chain, chains, 0)
        kind = chain.policy if verdict is None or verdict.kind == "return" else verdict.kind
        if kind == "drop":
            raise _End(Outcome(DROPPED, self.at.packet))

    def _translate(self, rows: list[tuple[int, int, Tables, Chain, dict[str, Chain]]]) -> None:
        side = "destination" if _TRANSLATES[self.hook] < 0 else "source"
        one = self.at.connection
        if one.state == "new" and side not in self.translated:
            for _, _, scope, chain, chains in rows:
                self._base(scope, chain, chains)
                if side in self.translated:
                    break
            self.translated.add(side)
            one = self.at.connection
        self._rewrite(one, side)

    def _rewrite(self, one: Connection, side: str) -> None:
        packet = self.at.packet
        if side == "destination" and one.destination:
            self.at.packet = replace(packet, destination=one.destination[0], destination_port=one.destination[1])
        if side == "source" and one.source:
            self.at.packet = replace(packet, source=one.source)

    # Chains and rules

    def _chain(self, scope: Tables, chain: Chain, chains: dict[str, Chain], depth: int) -> Verdict | None:
        """Ask one chain. None: it has nothing to say, whoever jumped here goes on."""
        if depth > _DEPTH:
            raise NotModelled(f"more than {_DEPTH} jumps at {chain.name}")
        for rule in chain.rules:
            verdict = self._rule(scope, chain, rule)
            if verdict is None or verdict.kind == "continue":
                continue
            match verdict.kind:
                case "jump":
                    below = self._chain(scope, chains[verdict.chain], chains, depth + 1)
                    if below is not None:
                        return below
                case "goto":
                    return self._chain(scope, chains[verdict.chain], chains, depth + 1)
                case "return":
                    return None
                case _:
                    return verdict
        return None

    def _rule(self, scope: Tables, chain: Chain, rule: Rule) -> Verdict | None:
        """Carry out one rule: statement after statement, until one does not match. A rule that matched whole is a step."""
        verdict: Verdict | None = None
        step = Step(self.hook, scope.id, chain.name, render_rule(rule, scope.id[0]))
        for statement in rule.statements:
            try:
                done = self._statement(scope, statement)
            except _End:
                self.steps.append(step)
                raise
            if done is False:
                return None
            if isinstance(done, Verdict):
                verdict = done
                break
        self.steps.append(step)
        return verdict

    def _statement(self, scope: Tables, statement: Statement) -> Verdict | bool:
        """True: go on with the rule. False: the rule does not match."""
        at = self.at
        match statement:
            case Match():
                return at.matches(statement, scope)
            case Counter() | Log():
                return True
            case Verdict():
                return statement
            case VerdictMap(key, held):
                found = at.worth(key, scope)
                element = None if found is None else at.find(held, found, scope)
                return element.value if element is not None and isinstance(element.value, Verdict) else False
            case Assign(target, value):
                return self._assign(target, at.worth(value, scope))
            case Nat():
                return self._nat(scope, statement)
            case Masquerade():
                return self._masquerade(statement)
            case Reject(how, code):
                return self._reject(how, code)
            case Update():
                return self._update(scope, statement)
        raise NotModelled(f"the statement {statement}")

    def _reject(self, how: str, code: str) -> bool:
        if self.hook not in ("prerouting", "input", "forward", "output"):
            raise NotModelled(f"reject on {self.hook}")
        packet = self.at.packet
        # `reject with tcp reset` says without words that it is for TCP alone; likewise the codes of one family's ICMP.
        if (how == "tcp reset" and packet.protocol != "tcp") or how == {4: "icmpv6", 6: "icmp"}[packet.version]:
            return False
        raise _End(Outcome(REJECTED, packet, how=how if how == "tcp reset" else code or "port-unreachable"))

    def _assign(self, target: Meta | Ct, value: Fields | None) -> bool:
        if value is None:
            return False
        (data,) = value
        match target:
            case Meta("mark"):
                self.at.packet = replace(self.at.packet, mark=MARK.unpack(data)[0])
            case Ct("mark"):
                self.at.connection = replace(self.at.connection, mark=MARK.unpack(data)[0])
            case _:
                raise NotModelled(f"setting {target}")
        return True

    # Translation

    def _nat(self, scope: Tables, statement: Nat) -> Verdict | bool:
        at, found = self.at, None
        if statement.address is not None:
            found = at.worth(statement.address, scope)
            if found is None:
                return False
        port = at.packet.destination_port if statement.kind == "dnat" else at.packet.source_port
        if statement.with_port and found is not None:
            port = int.from_bytes(found[1], "big")
        elif statement.port is not None:
            given = at.worth(statement.port, scope)
            if given is None:
                return False
            port = int.from_bytes(given[0], "big")
        kind = datatypes.datatype("ipv4_addr" if statement.family == "ip" else "ipv6_addr")
        if statement.kind == "dnat":
            self._decide("destination")
            address = kind.format(found[0]) if found is not None else at.packet.destination
            at.connection = replace(at.connection, destination=(address, port))
        else:
            self._decide("source")
            at.connection = replace(at.connection, source=kind.format(found[0]) if found is not None else at.packet.source)
        return Verdict("accept")

    def _masquerade(self, statement: Masquerade) -> Verdict:
        if statement.kind != "masquerade":
            raise NotModelled(statement.kind)
        self._decide("source")
        at = self.at
        at.connection = replace(at.connection, source=at.surroundings.own_address(at.out, at.packet.version))
        return Verdict("accept")

    def _decide(self, side: str) -> None:
        if side != ("destination" if _TRANSLATES.get(self.hook, 0) < 0 else "source"):
            raise NotModelled(f"translating the {side} on {self.hook}")
        self.translated.add(side)

    # Sets that packets change

    def _update(self, scope: Tables, statement: Update) -> bool:
        at, one = self.at, scope.sets[statement.set]
        if statement.statements:
            raise NotModelled("statements inside of elements")
        found = at.worth(statement.key, scope)
        value = None if statement.value is None else at.worth(statement.value, scope)
        if found is None or (statement.value is not None and value is None):
            return False
        key = datatypes.pack(one.key_types, found)
        rows = at.learnt.setdefault((scope.id, one.name), {})
        there = at.elements(scope, one)
        if statement.operation == "delete":
            rows[key] = Known(None, at.now_ms)
            return True
        old = there.get(key)
        if old is None and one.size and len(there) >= one.size:
            return False
        if old is None or statement.operation == "update":  # the value of one that is there stays: only its timeout begins anew
            data = old.value if old is not None else None if value is None else datatypes.pack(one.value_types, value)
            rows[key] = Known(Element(key, data, timeout_ms=statement.timeout_ms or one.timeout_ms), at.now_ms)
        return True


__all__ = [
    "DELIVERED",
    "DROPPED",
    "HERE",
    "ONWARD",
    "REJECTED",
    "Connection",
    "Known",
    "NotModelled",
    "Outcome",
    "Packet",
    "Step",
    "Surroundings",
    "Trace",
    "every_way",
    "walk",
]
