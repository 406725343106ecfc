"""What the tables should hold, kept up to date Service by Service, and the changes that lead there.

What belongs here: the elements of every Service together, who wins where two Services claim one address, and the order in
which a kernel may be changed so that every packet meets a right table at every moment. What must not: talking to a kernel, time.

How it works: ``put`` replaces one Service and notes which elements differ; ``take`` turns the notes into batches. Additions come in
the order of what is pointed to first: endpoints, then sizes, then the addresses that lead there. An element that a packet under way
may still look up (*late* maps) is not deleted with the rest: ``take`` keeps it back, and ``expire`` gives the deletions of a round,
to be made no sooner than 10 ms after that round was acknowledged. ``reconcile`` notes the difference to what a kernel is found to
hold, for a start over existing tables and after an error.

Where two Services claim one address, protocol and port, a cluster address is its own Service's, of others the oldest Service has it, and of
two equally old ones the first by name: with all that is said of the address (endpoints, policy, source ranges, refusal). The other gets it
when the first lets go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from podwire import nft
from podwire.nft import Element
from podwire.nft.datatypes import HOST
from podwire.services import layout
from podwire.services.alike import claims_alike, moved, named_alike
from podwire.services.batches import Batcher, Plan
from podwire.services.desired import ServiceProgram
from podwire.services.elements import (
    FIELDS,
    NOTHING,
    SHARED,
    Elements,
    addresses,
    backend_element,
    elements,
    endpoint_bytes,
    mark,
    plain,
    set_name,
    target_name,
)
from podwire.services.layout import Capacity, Family
from podwire.services.numbers import Numbers

# Looked up after an earlier look-up of the same packet: a packet under way may still need them.
LATE = ("backends", "handles", "keep_source", "own_endpoints", "short_circuit", "keep", "how", "sizes")
INTERVALS = ("source_ranges",)
SIZED = ("backends", "handles", "short_circuit", "sizes", "frontends", "node_ports")

_ORDER = {field: place for place, field in enumerate(FIELDS)}
_CEILING = mark(0)
_NONE: Set[bytes] = frozenset()

Batches = list[list[nft.Change]]
Rank = tuple[bool, str, str]  # elements.addresses
Notes = dict[bytes, tuple[Element | None, Element | None]]  # by key: as it is in the kernel, as it should be


@dataclass(frozen=True, slots=True)
class Structure:
    """The table without data: as it is created, and as a dump is compared with it."""

    family: Family
    name: str
    table: nft.Table
    hooked: tuple[nft.Chain, ...]

    @property
    def id(self) -> nft.TableName:
        return self.table.id


def structure(
    family: Family,
    pod_ranges: Iterable[str],
    service_ranges: Iterable[str],
    name: str = layout.TABLE,
    capacity: Capacity = layout.SMALL,
    node_port_ranges: Iterable[str] = (),
    *,
    masquerade_all: bool = False,
) -> Structure:
    """Build the table's constant part."""
    ranges = {"pod_ranges": pod_ranges, "service_ranges": service_ranges, "node_port_ranges": node_port_ranges}
    table = nft.table(layout.table_text(family, name, capacity, **ranges, masquerade_all=masquerade_all))
    return Structure(family, name, table, tuple(chain for chain in table.chains if chain.hook))


class Program:
    """One writer, one table, one node. ``node`` is the node's name; ``numbers`` is shared with nobody else."""

    def __init__(self, structure: Structure, node: str, numbers: Numbers) -> None:
        self.structure, self.node, self.numbers = structure, node, numbers
        self.services: dict[str, ServiceProgram] = {}
        self._elements: dict[str, Elements] = {}
        self._addresses: dict[bytes, tuple[Rank, ...]] = {}  # the ranks of those who claim an address, lowest first
        self._lost: dict[str, Set[bytes]] = {}  # what a Service claims and another has, of those to whom that happens
        self._claims: dict[str, dict[bytes, tuple[tuple[str, Element], ...]]] = {field: {} for field in SHARED}
        self._noted: defaultdict[str, Notes] = defaultdict(dict)
        # What is new in a map of which nothing else is noted: a start is that alone, and a note for each dear.
        self._fresh: defaultdict[str, list[Element]] = defaultdict(list)
        self._stale: dict[str, dict[bytes, tuple[Element, int]]] = {field: {} for field in LATE}
        self._sets = {field: structure.table.set(set_name(field)) for field in FIELDS}
        self._count = dict.fromkeys(FIELDS, 0)  # without what is fresh
        self._ceiling: Element | None = None
        self._written_ceiling = 0
        self._chains: set[str] = set()
        self._round = 0
        self._untouched = True  # nothing was taken, nothing reconciled

    # Taking in -----------------------------------------------------------------------------------------------------------

    def put(self, key: str, service: ServiceProgram | None) -> None:
        """Replace what is wanted for one Service; None removes it.

        Raises ValueError, with nothing changed, for a Service that cannot be programmed (its addresses are none).
        """
        old = self.services.get(key)
        if old == service:
            return
        if old is None and service is not None and self._begin(key, service):
            return
        if old is not None and service is not None and claims_alike(old, service):
            if self._one_moved(key, old, service):
                return
            self._replace(key, service, self._elements_of(service, self._lost.get(key, _NONE)))
        else:
            claims = dict(addresses(service)) if service is not None else {}
            claimed = dict(addresses(old)) if old is not None else {}
            after = NOTHING if service is None else self._build(key, service, claims)
            others = self._contend(claimed, claims)
            if service is None:
                self._lost.pop(key, None)
            if others:
                self._exchange(key, service, after, others)
            else:
                self._replace(key, service, after)
        if old is not None:
            self._drop_numbers(old, service)

    def _one_moved(self, key: str, old: ServiceProgram, service: ServiceProgram) -> bool:
        """One endpoint of another node came in the place of one, as most often. False: it is another change, and nothing is done."""
        found = moved(old, service)
        if found is None:
            return False
        port, gone, came = found
        if gone.node in (self.node, "") or came.node in (self.node, ""):
            return False
        target, endpoint = target_name(key, port), endpoint_bytes(came)
        seat = self.numbers.exchange(target, endpoint_bytes(gone), endpoint, len(port.cluster))
        if seat is None:
            return False
        wanted = backend_element(*seat, endpoint, target, came.pod)
        rows = self._elements[key]["backends"]
        place = next(place for place, row in enumerate(rows) if row.key == wanted.key)
        self._note("backends", wanted.key, rows[place], wanted)
        rows[place] = wanted
        self.services[key] = service
        return True

    def _begin(self, key: str, service: ServiceProgram) -> bool:
        """Put a new Service. False: another claims an address of its, and nothing is done."""
        held = self._addresses
        after: Elements | None = plain(service, self.node, self.numbers)
        if after is not None:
            ranks: tuple[Rank, ...] = ((False, service.created, service.key),)
            claims = {row.key: ranks for row in after["frontends"]}
        else:
            claims = {address: (rank,) for address, rank in addresses(service)}
        if not held.keys().isdisjoint(claims):
            return False
        if after is None:
            after = elements(service, self.node, self.structure.family, self.numbers)
        held.update(claims)
        self.services[key], self._elements[key] = service, after
        noted, fresh = self._noted, self._fresh
        for field, rows in after.items():
            if field not in noted and (field not in SHARED or self._claim_first(key, field, rows)):
                fresh[field] += rows
            else:
                self._differ(key, field, (), rows)
        return True

    def _build(self, key: str, service: ServiceProgram, claims: dict[bytes, Rank]) -> Elements:
        held = self._addresses
        lost: Set[bytes] = _NONE
        if not held.keys().isdisjoint(claims):
            name = service.key  # its own claim may still be there with an earlier rank: it was made anew under its old name
            lost = {key for key, rank in claims.items() if any(r < rank and r[2] != name for r in held.get(key, ())[:2])}
        found = self._elements_of(service, lost)
        if lost:
            self._lost[key] = lost
        else:
            self._lost.pop(key, None)
        return found

    def _elements_of(self, service: ServiceProgram, lost: Set[bytes]) -> Elements:
        found = None if lost else plain(service, self.node, self.numbers)
        return elements(service, self.node, self.structure.family, self.numbers, lost) if found is None else found

    def _exchange(self, key: str, service: ServiceProgram | None, after: Elements, others: Iterable[str]) -> None:
        """Replace a Service and those that won or lost addresses by it: all that goes is noted before what comes under the same keys."""
        rows = [(key, service, after)]
        for other in others:
            its = self.services[other]
            rows.append((other, its, self._build(other, its, dict(addresses(its)))))
        for one, _, _ in rows:
            self._replace(one, None, NOTHING)
        for one, program, wanted in rows:
            if program is not None:
                self._replace(one, program, wanted)

    def _contend(self, claimed: Mapping[bytes, Rank], claims: Mapping[bytes, Rank]) -> set[str]:
        """Replace a Service's claims. Gives the other Services that won or lost an address by it."""
        others: set[str] = set()
        held = self._addresses
        if not claimed and held.keys().isdisjoint(claims):
            held.update({key: (rank,) for key, rank in claims.items()})
            return others
        for key in claimed.keys() | claims.keys():
            before = self._addresses.get(key, ())
            gone, came = claimed.get(key), claims.get(key)
            if gone == came:
                continue
            after = tuple(sorted([*(rank for rank in before if rank != gone), *([came] if came is not None else [])])) if before else ()
            if came is not None and not before:
                after = (came,)
            if after:
                self._addresses[key] = after
            else:
                self._addresses.pop(key, None)
            for rank in (before[:1] + after[:1]) if before[:1] != after[:1] else ():
                if rank not in (gone, came):
                    others.add(rank[2])
        return others

    def _replace(self, key: str, service: ServiceProgram | None, after: Elements) -> None:
        before = self._elements.get(key, NOTHING)
        if service is None:
            self.services.pop(key, None)
            self._elements.pop(key, None)
        else:
            self.services[key] = service
            self._elements[key] = after
        for field, has in after.items():
            had = before.get(field)
            self._differ(key, field, () if had is None else had, has)
        for field, had in before.items():
            if field not in after:
                self._differ(key, field, had, ())

    def _claim_first(self, owner: str, field: str, rows: Sequence[Element]) -> bool:
        """Claim keys for a Service. False: others have some of them, and nothing is done."""
        claims = self._claims[field]
        for row in rows:
            if row.key in claims:
                return False
        for row in rows:
            claims[row.key] = ((owner, row),)
        return True

    def _differ(self, owner: str, field: str, before: Sequence[Element], after: Sequence[Element]) -> None:
        shared = field in SHARED
        if len(before) == len(after):  # most changes are of a value: the keys stay where they are
            changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
            if all(old.key == new.key for old, new in changed):
                for old, new in changed:
                    if shared:
                        self._claim(field, new.key, owner, new)
                    else:
                        self._note(field, new.key, old, new)
                return
        had = {element.key: element for element in before}
        for element in after:
            key = element.key
            other = had.pop(key, None)
            if other is None or other != element:
                if shared:
                    self._claim(field, key, owner, element)
                else:
                    self._note(field, key, other, element)
        for key, element in had.items():
            if shared:
                self._claim(field, key, owner, None)
            else:
                self._note(field, key, element, None)

    def _claim(self, field: str, key: bytes, owner: str, element: Element | None) -> None:
        claims = self._claims[field]
        before = claims.get(key, ())
        if not before and element is not None:
            claims[key] = ((owner, element),)
            self._note(field, key, None, element)
            return
        after = before and tuple([claim for claim in before if claim[0] != owner])
        if element is not None:
            after = tuple(sorted((*after, (owner, element)), key=_owner)) if after else ((owner, element),)
        if after:
            claims[key] = after
        else:
            claims.pop(key, None)
        first, now = (before[0][1] if before else None), (after[0][1] if after else None)
        if first != now:
            self._note(field, key, first, now)

    def _note(self, field: str, key: bytes, before: Element | None, after: Element | None) -> None:
        noted = self._notes(field)
        earlier = noted.get(key)
        noted[key] = (before if earlier is None else earlier[0], after)
        self._count[field] += (after is not None) - (before is not None)

    def _notes(self, field: str) -> Notes:
        noted = self._noted[field]
        if self._fresh and field in self._fresh:
            rows = self._fresh.pop(field)
            self._count[field] += len(rows)
            noted.update({element.key: (None, element) for element in rows})
        return noted

    def _drop_numbers(self, old: ServiceProgram, new: ServiceProgram | None) -> None:
        if new is not None and named_alike(old, new):
            return
        gone = {target_name(old.key, port) for port in old.ports}
        if new is not None:
            gone -= {target_name(new.key, port) for port in new.ports}
        for target in gone:
            self.numbers.drop(target)

    # Giving out ----------------------------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        return bool(self._noted or self._fresh)

    @property
    def round(self) -> int:
        """The number of the last round that was taken."""
        return self._round

    @property
    def has_stale(self) -> bool:
        return any(self._stale.values())

    def full(self) -> bool:
        """Say whether a sized map is three quarters full, or would be: then the table must be built anew, with more room."""
        count, sets, fresh = self._count, self._sets, self._fresh
        for field in SIZED:  # asked at every change: any() with a generator takes three times as long
            number = count[field] + len(fresh[field]) if field in fresh else count[field]
            if 4 * number > 3 * sets[field].size:
                return True
        return False

    def capacity(self) -> Capacity:
        """Room for twice what is wanted now, and never less than a small cluster needs."""
        least = layout.SMALL
        count = {field: self._count[field] + len(self._fresh.get(field, ())) for field in SIZED}
        room = {field: 2 * max(count[field], getattr(least, field) // 2) for field in SIZED if field != "short_circuit"}
        return Capacity(**room, affinity=least.affinity)

    def take(self) -> Batches:
        """Give the noted changes as batches, each to be applied as one transaction, in this order. Forgets the notes."""
        self._round += 1
        self._untouched = False
        self._write_ceiling()
        taking = sorted(self._noted.keys() | self._fresh.keys(), key=_ORDER.__getitem__)
        batches = Batcher(self.structure.id)
        plans = {field: self._plan(field) for field in taking}
        self._noted.clear()
        batches.rules(self._new_chains(plans))
        for field, plan in plans.items():
            if field in INTERVALS:
                batches.exchange(self._sets[field], plan)
            else:
                batches.put(self._sets[field], plan.replaced, plan.added)
        for field, plan in reversed(plans.items()):
            batches.delete(self._sets[field], plan.removed)
        return batches.done()

    def move(self, structure: Structure) -> None:
        """Go on in another table of the same shape: another name, or more room."""
        self.structure = structure
        self._sets = {field: structure.table.set(set_name(field)) for field in FIELDS}

    def _write_ceiling(self) -> None:
        if not self.changed or self._written_ceiling == self.numbers.ceiling:
            return
        self._written_ceiling = self.numbers.ceiling
        wanted = Element(_CEILING, mark(self.numbers.ceiling), b"", "ids were given below")
        if self._ceiling != wanted:
            if self._ceiling is None and "sizes" not in self._noted:
                self._fresh["sizes"].append(wanted)
            else:
                self._notes("sizes")[_CEILING] = (self._ceiling, wanted)
            self._ceiling = wanted

    def _plan(self, field: str) -> Plan:
        plan = Plan([], [], [])
        stale = self._stale.get(field)
        if not stale and field in self._fresh:
            plan.added = self._fresh.pop(field)
            self._count[field] += len(plan.added)
            return plan
        for key, (before, after) in self._notes(field).items():
            if before == after:
                continue
            if after is None:
                if stale is not None and before is not None:
                    stale[key] = (before, self._round)
                elif before is not None:
                    plan.removed.append(before)
                continue
            if before is None and stale:
                kept = stale.pop(key, None)
                before = kept[0] if kept is not None else None
                if before == after:
                    continue
            if before is not None:
                plan.replaced.append((before, after))
            else:
                plan.added.append(after)
        return plan

    def _new_chains(self, plans: Mapping[str, Plan]) -> list[nft.Change]:
        changes: list[nft.Change] = []
        table, family = self.structure.id, self.structure.family
        if "sizes" in plans:
            counts = {element.value for element in plans["sizes"].written() if element.key != _CEILING}
            for count in sorted(int.from_bytes(value, HOST) for value in counts if isinstance(value, bytes)):
                name, rules = layout.pick_chain(count)
                if name not in self._chains:
                    changes += self._chain(table, name, rules)
                    changes.append(nft.AddElements(table, self.pick, [Element(mark(count), nft.Verdict("jump", name))]))
        for field in ("how", "keep"):
            for element in plans[field].written() if field in plans else ():
                verdict = element.value
                if not isinstance(verdict, nft.Verdict) or verdict.chain in self._chains:
                    continue
                asked = layout.affinity_of(verdict.chain)
                if asked is not None:
                    for name, rules in layout.affinity_chains(family, *asked):
                        changes += self._chain(table, name, rules)
        return changes

    @property
    def pick(self) -> nft.Set:
        return self.structure.table.set("pick")

    def _chain(self, table: nft.TableName, name: str, rules: Sequence[str]) -> list[nft.Change]:
        self._chains.add(name)
        chain = nft.Chain(name)
        return [
            nft.AddChain(table, chain),
            *(nft.AddRule(table, name, nft.rule(text, family=self.structure.family.name)) for text in rules),
        ]

    def expire(self, round: int) -> Batches:  # noqa: A002
        """Give the deletions that were kept back up to a round."""
        batches = Batcher(self.structure.id)
        for field in reversed(LATE):
            rows = [(key, element) for key, (element, since) in self._stale[field].items() if since <= round]
            for key, _ in rows:
                del self._stale[field][key]
            batches.delete(self._sets[field], [element for _, element in rows])
        return batches.done()

    # Starting over ----------------------------------------------------------------------------------------------------------

    def wanted(self, field: str) -> dict[bytes, Element]:
        """Give all elements of one map that should be there, by key."""
        if field in self._claims:
            return {key: claims[0][1] for key, claims in self._claims[field].items()}
        found = {element.key: element for each in self._elements.values() for element in each.get(field, ())}
        if field == "sizes" and self._ceiling is not None:
            found[_CEILING] = self._ceiling
        return found

    def reconcile(self, have: nft.Table | None) -> None:
        """Note the difference between what is wanted and what a kernel was found to hold, in place of all earlier notes.

        ``have`` None: a table of this structure that was just made, empty.
        """
        if have is None and self._untouched:
            return  # the notes are the difference to nothing
        self._untouched = False
        self._chains = set() if have is None else {chain.name for chain in have.chains}
        for rows in self._stale.values():
            rows.clear()
        self._fresh.clear()
        present = {} if have is None else {one.name: one.elements for one in have.sets}
        self._ceiling = present.get("sizes", {}).get(_CEILING)
        self._written_ceiling = 0
        for field in FIELDS:
            there, wanted = present.get(set_name(field), {}), self.wanted(field)
            notes: Notes = {}
            if there != wanted:  # a start over its own tables finds them equal, and so many times sooner
                notes = {key: (there.get(key), element) for key, element in wanted.items() if there.get(key) != element}
                notes |= {key: (element, None) for key, element in there.items() if key not in wanted}
            if notes:
                self._noted[field] = notes
            else:
                self._noted.pop(field, None)
            self._count[field] = len(wanted)

    @property
    def made_chains(self) -> set[str]:
        """The chains that were made when first needed."""
        return self._chains - {chain.name for chain in self.structure.table.chains}

    @property
    def pick_counts(self) -> set[str]:
        """The numbers of endpoints for which there is a chain."""
        return {name.removeprefix("pick-") for name in self._chains if name.startswith("pick-")}

    def kept_back(self, field: str) -> dict[bytes, Element]:
        """Give the elements that are still there for packets under way, by key."""
        return {key: element for key, (element, _) in self._stale.get(field, {}).items()}

    def create(self, *, hooked: bool = True) -> list[nft.Change]:
        """Give the changes that make the table without data; without ``hooked``, without the chains that the kernel calls."""
        table, value = self.structure.id, self.structure.table
        changes: list[nft.Change] = [nft.AddTable(table)]
        changes += [nft.AddSet(table, one.declaration()) for one in value.sets]
        changes += [nft.AddElements(table, one, tuple(one.elements.values())) for one in value.sets if one.elements]
        chains = [chain for chain in value.chains if not chain.hook]
        changes += [nft.AddChain(table, chain.declaration()) for chain in chains]
        changes += [nft.AddRule(table, chain.name, rule) for chain in chains for rule in chain.rules]
        return changes + (self.hook() if hooked else [])

    def hook(self) -> list[nft.Change]:
        """Give the changes that put the table into the way of packets."""
        table = self.structure.id
        changes: list[nft.Change] = [nft.AddChain(table, chain.declaration()) for chain in self.structure.hooked]
        return changes + [nft.AddRule(table, chain.name, rule) for chain in self.structure.hooked for rule in chain.rules]


def _owner(claim: tuple[str, Element]) -> str:
    return claim[0]
