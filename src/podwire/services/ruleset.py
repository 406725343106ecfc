"""What the tables should hold, kept up to date Service by Service, and the changes that lead there.

What belongs here: the elements of every Service together, who wins where two Services claim one address, and the order in
which a kernel may be changed so that every packet meets a right table at every moment. What must not: talking to a kernel, time.

How it works: ``put`` replaces one Service and notes which elements differ; ``take`` turns the notes into batches. Additions come in
the order of what is pointed to first: endpoints, then sizes, then the addresses that lead there. An element that a packet under way
may still look up (*late* maps) is not deleted with the rest: ``take`` keeps it back, and ``expire`` gives the deletions of a round,
to be made no sooner than 10 ms after that round was acknowledged. ``reconcile`` notes the difference to what a kernel is found to
hold, for a start over existing tables and after an error; ``fill`` gives all there is to a table that is empty.

The rows of a Service are not kept: they follow from it and its numbers, and are written again when it changes. So what is old is always
written before what is new, which moves the numbers.

Where two Services claim one address, protocol and port, a cluster address is its own Service's, of others the oldest Service has it, and of
two equally old ones the first by name: with all that is said of the address (endpoints, policy, source ranges, refusal). The other gets it
when the first lets go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from operator import gt

from podwire import nft
from podwire.nft.model import Element
from podwire.nft.rows import Column, Packed, Rows, as_columns, packed
from podwire.objects.discovery import EndpointSlice
from podwire.services import exchange, plain, resize
from podwire.services.alike import claims_alike, targets_gone
from podwire.services.batches import Batcher, Plan
from podwire.services.chains import LEADING, Chains
from podwire.services.claims import Claims, Rank
from podwire.services.desired import ServiceProgram
from podwire.services.elements import (
    FIELDS,
    NOTHING,
    Elements,
    address_bytes,
    addresses,
    cluster_ip_row,
    forms,
    mark,
    set_name,
)
from podwire.services.exchange import Exchange
from podwire.services.filling import Filling
from podwire.services.notes import Notes, Shared, difference
from podwire.services.numbers import Numbers
from podwire.services.structure import Structure
from podwire.services.writing import Writing

# Looked up after an earlier look-up of the same packet: a packet under way may still need them.
LATE = ("backends", "handles", "keep_source", "own_endpoints", "short_circuit", "keep", "how", "sizes")
INTERVALS = ("source_ranges",)
SIZED = ("backends", "handles", "short_circuit", "sizes", "frontends", "node_ports")

_ORDER = {field: place for place, field in enumerate(FIELDS)}
_CEILING = mark(0)
_NONE: Set[bytes] = frozenset()

Batches = list[list[nft.Change]]


class Program:
    """One writer, one table, one node. ``node`` is the node's name; ``numbers`` is shared with nobody else.

    ``chains`` are those that were made in the table.
    """

    def __init__(self, structure: Structure, node: str, numbers: Numbers) -> None:
        self.node, self.numbers = node, numbers
        self.services: dict[str, ServiceProgram] = {}
        self._claims = Claims(self.services)
        self._lost: dict[str, Set[bytes]] = {}  # what a Service claims and another has, of those to whom that happens
        self._noted: defaultdict[str, Notes] = defaultdict(dict)
        self._stale: dict[str, dict[bytes, tuple[bytes, int]]] = {field: {} for field in LATE}
        self._alone: tuple[bytes, bytes, bytes] | None = None  # of one endpoint for one, as most often: the note, if it is the only one
        self._count = dict.fromkeys(FIELDS, 0)
        self._ceiling: bytes | None = None
        self._forms = written = forms(structure.family)
        self.move(structure)
        self._named = {set_name(field): each for field, each in written.items()}
        self._shared = {"own_endpoints": Shared(), "cluster_ips": Shared(partial(cluster_ip_row, written["cluster_ips"]))}
        self._writing = Writing(self.services, self._lost, self._shared, node, numbers, structure.family)
        self._written_ceiling = 0
        self.chains = Chains(structure, ())
        self._round = 0
        self._compared = False  # with a kernel: what is put before is noted all at once, then

    # Taking in -----------------------------------------------------------------------------------------------------------

    def put(self, key: str, service: ServiceProgram | None) -> None:
        """Replace what is wanted for one Service; None removes it.

        Raises ValueError, with the Service removed, for one that cannot be programmed (its addresses are none).
        """
        old = self.services.get(key)
        if old is None:
            if service is None or self.begin(key, service):
                return
        elif service is not None and self._of_one(key, old, service):
            return
        if old == service:
            return
        if old is not None and service is not None and claims_alike(old, service):
            before = self._rows(key, old)
            try:
                after = self._writing.elements(service, self._lost.get(key, _NONE))
            except ValueError:
                self._remove(key, old, before)
                raise
            self._replace(key, service, before, after)
        else:
            before = NOTHING if old is None else self._rows(key, old)
            try:
                claims = dict(addresses(service)) if service is not None else {}
                after = NOTHING if service is None else self._build(key, service, claims)
            except ValueError:
                if old is not None:
                    self._remove(key, old, before)
                raise
            self._contend(key, service, dict(addresses(old)) if old is not None else {}, claims, before, after)
        if old is not None:
            self._drop_numbers(old, service)

    def _remove(self, key: str, old: ServiceProgram, before: Elements) -> None:
        self._contend(key, None, dict(addresses(old)), {}, before, NOTHING)
        self._drop_numbers(old, None)

    def put_slice(self, key: str, piece: EndpointSlice) -> bool:
        """Take the only slice of a Service, in which one endpoint came for another, as most often.

        What else is known of the Service is as it was put. False: it is another change, and nothing is done.
        """
        old = self.services.get(key)
        if old is None or key in self._lost:
            return False
        if (told := exchange.at_once(old, piece, self.node, self.numbers, self._place[2])) is not None:
            self.services[key], rows = told
            if self._compared and self._alone is None and not self._noted:
                self._alone = rows
            else:
                self._note("backends", *rows)
            return True
        found = exchange.of_slice(old, piece)
        return found is not None and (found.moved is None or self._exchange(key, found))

    def _exchange(self, key: str, found: Exchange | None) -> bool:
        """One endpoint came for another. False: it is another change, and nothing is done."""
        rows = exchange.rows(found, self.node, self.numbers, self._forms) if found is not None else None
        if found is None or rows is None:
            return False
        self._note("backends", rows.key, rows.before, rows.after)
        if rows.own_before or rows.own_after:
            self._differ(key, "own_endpoints", rows.own_before, rows.own_after)
        self.services[key] = found.service
        return True

    def _of_one(self, key: str, old: ServiceProgram, service: ServiceProgram) -> bool:
        """One endpoint came, or went, or one for another. False: it is another change, and nothing is done."""
        if key in self._lost:  # what nothing leads to has no rows, but may have numbers of the time when something led there
            return False
        if self._exchange(key, exchange.of_states(old, service)):
            return True
        notes = resize.notes(old, service, self.node, self.numbers, self._forms)
        for note in notes or ():
            self._note(*note)
        if notes:
            self.services[key] = service
        return bool(notes)

    def begin(self, key: str, service: ServiceProgram) -> bool:
        """Put a Service that is new. False: another claims an address of its, and nothing is done. Before a comparison it draws no numbers.

        Raises ValueError as ``put``.
        """
        own, alone = [address_bytes(address) for address in service.cluster_ips], service.plain
        claims: Mapping[bytes, Rank] = {} if alone else dict(addresses(service))
        keys = plain.claims(service, own) if alone else claims
        if not self._claims.free(keys):
            return False
        new = self._writing.elements(service, _NONE) if self._compared else NOTHING
        if alone:
            self._claims.hold_own(dict.fromkeys(keys, key))
        else:
            self._claims.hold(claims)
        if self._compared:
            for field, rows in new.items():
                self._differ(key, field, (), rows)
        else:
            shared = self._shared["cluster_ips"]
            for address in own:
                shared.claim_first(address, key)
        self.services[key] = service
        return True

    def begin_all(self, services: Mapping[str, ServiceProgram]) -> bool:
        """Put Services that are new and plain, as ``begin`` before a comparison. False: two claim one address, and nothing is done.

        Raises ValueError as ``put``, with nothing done.
        """
        claimed, owners = plain.claimed(services)
        shared = self._shared["cluster_ips"]
        if claimed is None or owners is None or not self._claims.free(claimed) or not shared.free(owners):
            return False
        self._claims.hold_own(claimed)
        shared.claim_all(owners)
        self.services.update(services)
        return True

    def _rows(self, key: str, service: ServiceProgram) -> Elements:
        """Write what a Service has now."""
        return self._writing.elements(service, self._lost.get(key, _NONE))

    def _build(self, key: str, service: ServiceProgram, claims: dict[bytes, Rank]) -> Elements:
        lost = self._claims.lost(claims, key)
        found = self._writing.elements(service, lost)
        if lost:
            self._lost[key] = lost
        else:
            self._lost.pop(key, None)
        return found

    def _contend(
        self,
        key: str,
        service: ServiceProgram | None,
        claimed: Mapping[bytes, Rank],
        claims: Mapping[bytes, Rank],
        before: Elements,
        after: Elements,
    ) -> None:
        """Replace a Service and those that win or lose addresses by it: all that goes is noted before what comes under the same keys."""
        rows = [(key, service, before, after)]
        for other in self._claims.exchange(claimed, claims):
            its = self.services[other]
            had = self._rows(other, its)
            rows.append((other, its, had, self._build(other, its, dict(addresses(its)))))
        if service is None:
            self._lost.pop(key, None)
        if len(rows) == 1:
            self._replace(*rows[0])
            return
        for one, _, had, _ in rows:
            self._replace(one, None, had, NOTHING)
        for one, program, _, wanted in rows:
            if program is not None:
                self._replace(one, program, NOTHING, wanted)

    def _replace(self, key: str, service: ServiceProgram | None, before: Elements, after: Elements) -> None:
        if service is None:
            self.services.pop(key, None)
        else:
            self.services[key] = service
        for field, has in after.items():
            had = before.get(field)
            self._differ(key, field, () if had is None else had, has)
        for field, had in before.items():
            if field not in after:
                self._differ(key, field, had, ())

    def _differ(self, owner: str, field: str, before: Sequence[bytes], after: Sequence[bytes]) -> None:
        key = self._forms[field].key
        shared = self._shared.get(field)
        had = {key(row): row for row in before}
        for row in after:
            at = key(row)
            other = had.pop(at, None)
            if other == row:
                continue
            if shared is None:
                self._note(field, at, other, row)
            else:
                self._note(field, at, *shared.claim(at, owner, row))
        for at, row in had.items():
            if shared is None:
                self._note(field, at, row, None)
            else:
                self._note(field, at, *shared.claim(at, owner, None))

    def _note(self, field: str, key: bytes, before: bytes | None, after: bytes | None) -> None:
        if not self._compared or before == after:
            return
        if self._alone is not None:
            alone, self._alone = self._alone, None
            self._note("backends", *alone)
        noted = self._noted[field]
        earlier = noted.get(key)
        noted[key] = (before if earlier is None else earlier[0], after)
        if before is None:
            self._count[field] += 1
            self._grown = True
        elif after is None:
            self._count[field] -= 1

    def _drop_numbers(self, old: ServiceProgram, new: ServiceProgram | None) -> None:
        for target in targets_gone(old, new):
            self.numbers.drop(target)

    def write_ahead(self) -> Iterator[None]:
        """Write what is plain for the ``compare`` that follows, in steps: ids are known, and who sits where is guessed."""
        return self._writing.write_ahead()

    # Giving out ----------------------------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        return bool(self._noted) or self._alone is not None

    @property
    def round(self) -> int:
        """The number of the last round that was taken."""
        return self._round

    @property
    def has_stale(self) -> bool:
        return any(self._stale.values())

    def full(self) -> bool:
        """Say whether a sized map is three quarters full, or would be: then the table must be built anew, with more room."""
        if self._grown:
            self._grown = any(map(gt, [self._count[field] for field in SIZED], self._walls))
        return self._grown

    def take(self) -> Batches:
        """Give the noted changes as batches, each to be applied as one transaction, in this order. Forgets the notes.

        Without a ``reconcile`` before, the table is taken to be empty.
        """
        if not self._compared:
            self.reconcile(None)
        self._round += 1
        if self._noted and self._written_ceiling != self.numbers.ceiling:
            self._write_ceiling()
        if self._alone is not None:
            (_, before, after), self._alone = self._alone, None
            table, one, form = self._place
            return [[nft.DeleteElements(table, one, Rows(form, (before,))), nft.AddElements(table, one, Rows(form, (after,)))]]
        taking = sorted(self._noted, key=_ORDER.__getitem__)
        batches = Batcher(self.structure.id, self._named)
        plans = {field: self._plan(field) for field in taking}
        self._noted.clear()
        for field in LEADING:
            if field in plans:
                batches.rules(self.chains.needed(field, plans[field].written()))
        for field, plan in plans.items():
            if field in INTERVALS:
                # What an earlier process left there may meet what would come to stand there, and goes last.
                aside = self._sets["coming_ranges"] if "coming_ranges" not in plans else None
                batches.exchange(self._sets[field], plan, aside)
            else:
                batches.put(self._sets[field], plan.replaced, plan.added)
        for field, plan in reversed(plans.items()):
            batches.delete(self._sets[field], plan.removed)
        return batches.done()

    def move(self, structure: Structure) -> None:
        """Go on in another table of the same shape: another name, or more room. A comparison follows, or a filling."""
        self.structure = structure
        self._sets = {field: structure.table.set(set_name(field)) for field in FIELDS}
        self._place = structure.id, self._sets["backends"], self._forms["backends"]  # of endpoints
        self._walls = [self._sets[field].size * 3 // 4 for field in SIZED]
        self._grown = True  # since it was last seen that there is room

    def _write_ceiling(self) -> None:
        before, after = self._ceiling, self._ceiling_row()
        if before != after:
            self._noted["sizes"][_CEILING] = (before, after)

    def _ceiling_row(self) -> bytes:
        self._written_ceiling = self.numbers.ceiling
        row = self._ceiling = self._forms["sizes"].row(_CEILING, mark(self.numbers.ceiling), "ids were given below")
        return row

    def _plan(self, field: str) -> Plan:
        plan = Plan([], [], [])
        stale = self._stale.get(field)
        for key, (before, after) in self._noted[field].items():
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

    def expire(self, round: int) -> Batches:  # noqa: A002
        """Give the deletions that were kept back up to a round."""
        batches = Batcher(self.structure.id, self._named)
        for field in reversed(LATE):
            stale = self._stale[field]
            if stale:
                rows = [(key, row) for key, (row, since) in stale.items() if since <= round]
                for key, _ in rows:
                    del stale[key]
                batches.delete(self._sets[field], [row for _, row in rows])
        return batches.done()

    # Starting over ----------------------------------------------------------------------------------------------------------

    def wanted(self, field: str) -> Mapping[bytes, Element]:
        """Give all elements of one map that should be there, by key."""
        return Packed(self._sets[field], self._wanted({field})[field])

    def rows(self) -> Mapping[str, Sequence[bytes]]:
        """Give all rows that should be there, by map or set."""
        return self._wanted(set(FIELDS))

    def _wanted(self, fields: Set[str]) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {field: [] for field in fields}
        for columns in self._writing.every():
            for field in fields & columns.keys():
                found[field] += [row for one in columns[field] for row in one.rows()]
        if "sizes" in fields and self._ceiling is not None:
            found["sizes"].append(self._ceiling)
        return found

    def fill(self) -> Iterator[list[nft.Change]]:
        """Give all that is wanted as batches for a table of this structure that is empty, and that no packet meets yet."""
        self._compared = True
        self._round += 1
        self._forget()
        self._writing.ahead = []  # for a comparison that never came
        batches = Filling(self.structure, self._sets)
        for rows in self._writing.every():
            yield from batches.put(rows)
        if batches.count["sizes"]:
            yield from batches.put({"sizes": as_columns(self._forms["sizes"], [self._ceiling_row()])})
        yield from batches.done()
        self._count, self.chains, self._grown = batches.count, batches.chains, True
        self.numbers.read = None  # who sits where in another table is of no interest

    def reconcile(self, have: nft.Table | None) -> None:
        """Note how what is wanted differs from what a kernel was found to hold (None: a table just made), instead of earlier notes."""
        for _ in self.compare(have):
            pass

    def compare(self, have: nft.Table | None) -> Iterator[None]:
        """Do as ``reconcile``, in steps. Nothing may be put between."""
        self._compared = True
        self._forget()
        self.chains = Chains(self.structure, () if have is None else (chain.name for chain in have.chains))
        sets = {} if have is None else {one.name: one for one in have.sets}
        held = {field: packed(sets.get(set_name(field), one.declaration())) for field, one in self._sets.items()}
        self._ceiling = held["sizes"].by_key.get(_CEILING)
        count, differing = dict.fromkeys(FIELDS, 0), set[str]()

        def take(columns: Mapping[str, Sequence[Column]]) -> None:
            for field, wanted in columns.items():
                count[field] += sum(len(one.keys) for one in wanted)
                if field not in differing and not all(map(held[field].holds, wanted)):
                    differing.add(field)

        own: plain.Own = []
        for some, written in self._writing.ahead or self._writing.plain_ones():
            if self.numbers.read is not None and not all(map(held["backends"].holds, written.columns.get("backends", ()))):
                written = self._writing.seated_as_read(some)
            own += written.own
            take(written.columns)
            yield
        for columns in self._writing.rest(own):
            take(columns)
            yield
        self._writing.ahead = []
        self.numbers.read_all()
        count["sizes"] += self._ceiling is not None
        self._count, self._grown = count, True
        differing |= {field for field in FIELDS if count[field] != len(held[field])}
        for field, every in self._wanted(differing).items() if differing else ():
            notes = difference(held[field], every)
            if notes:
                self._noted[field] = notes

    def _forget(self) -> None:
        self._noted.clear()
        self._alone = None
        for rows in self._stale.values():
            rows.clear()
        self._written_ceiling = 0
        self._ceiling = None

    def kept_back(self, field: str) -> Mapping[bytes, Element]:
        """Give the elements that are still there for packets under way, by key."""
        return Packed(self._sets[field], [row for row, _ in self._stale.get(field, {}).values()])
