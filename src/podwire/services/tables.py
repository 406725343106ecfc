"""The tables of one family in the kernel of one node: started, kept up to date, repaired.

What belongs here: calls of the kernel in the order that ruleset.py lays down. What must not: choosing endpoints, waiting, retrying:
``update`` either leaves the kernel as wanted and acknowledged, or raises, and the next call begins with a repair.

How it works: at the start the kernel is read (``read``, in a thread of its own), and meanwhile what is wanted is taken in as far as it
needs no numbers (``expect``); then ``start`` brings the two together. A table of the same shape is adopted: its numbers are learnt, and
only what differs is changed, so connections and affinity go on. Otherwise a table is built under the other of two names, filled, and put
into the way of packets in one transaction with the end of the old one. The same happens when a map gets too full. After an error the
kernel is read again.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from podwire import nft
from podwire.linux.errors import KernelRefused
from podwire.linux.nftables import Nftables
from podwire.nft.difference import same_declaration
from podwire.nft.fake import Door
from podwire.nft.rows import packed
from podwire.objects.discovery import EndpointSlice
from podwire.services import layout
from podwire.services.adoption import Ways, adopt, read, ways
from podwire.services.audit import findings
from podwire.services.chains import as_made
from podwire.services.desired import ServiceProgram
from podwire.services.elements import elements
from podwire.services.keys import CEILING, KEYED, backend_keys
from podwire.services.layout import SMALL, Capacity, Family
from podwire.services.numbers import Numbers
from podwire.services.room import room
from podwire.services.ruleset import Program
from podwire.services.structure import Structure, structure

STEP = 100  # Services between two steps
SWITCH_S = 0.0002


@contextlib.contextmanager
def in_bulk() -> Iterator[None]:
    """Keep the garbage collector still while much is made that stays: it would look at all of it again and again, for nothing.

    What was made is frozen out of its sight at the end, or it would look at all of it as soon as it may. And let the thread that talks
    to the kernel have the interpreter as soon as the kernel answers: it needs it for moments only, then the kernel works again.
    """
    was, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if was:
            gc.freeze()
            gc.enable()


class Expected(NamedTuple):
    """What is wanted at a start, taken in before. ``contended`` wait for a kernel's numbers; ``told`` are sets that gave some already."""

    wanted: Mapping[str, ServiceProgram]
    contended: list[str]
    known: Ways | None
    told: Mapping[str, nft.Set] | None


class Tables:
    """One family's table. ``namespace`` is the descriptor of a network namespace, None for one's own. Close it when done.

    ``kernel`` is another door than that of the namespace, as that of a ruleset in memory; it refuses as the kernel's does.

    ``refused`` are Services that cannot be programmed, with the reason. ``sound`` says that the kernel, as far as is known,
    holds what is wanted.
    """

    def __init__(
        self,
        family: Family,
        node: str,
        pod_ranges: tuple[str, ...],
        service_ranges: tuple[str, ...],
        namespace: int | None = None,
        *,
        node_port_ranges: tuple[str, ...] = (),
        masquerade_all: bool = False,
        kernel: Door | None = None,
    ) -> None:
        self.family, self.node = family, node
        self.refused: dict[str, str] = {}
        self._ranges = pod_ranges, service_ranges
        self._node_port_ranges, self._masquerade_all = node_port_ranges, masquerade_all
        self._kernel: Door = Nftables(namespace) if kernel is None else kernel
        self._program = Program(self._structure(layout.TABLE, SMALL), node, Numbers())
        self.sound = False
        self._ahead: tuple[int, list[nft.Table]] | None = None
        self._expected: Expected | None = None
        self._told: list[Mapping[str, nft.Set]] = []  # the sets of each table that is being read, but for the big one
        self._reading = False

    def close(self) -> None:
        """Close the socket. The tables stay."""
        self._kernel.close()

    @property
    def name(self) -> str:
        """The name of the table in use."""
        return self._program.structure.name

    def read(self) -> None:
        """Read the kernel for the ``start`` that follows, in another thread if one wants, while it is decided what is wanted.

        What cannot be read is left to ``start``, which tells.
        """
        self._reading = True
        self._told = []
        try:
            with contextlib.suppress(KernelRefused):
                generation = self._kernel.generation()
                self._ahead = generation, self._found()
        finally:
            self._reading, self._told = False, []

    def expect(self, wanted: Mapping[str, ServiceProgram]) -> Iterator[None]:
        """Take in what is wanted at the ``start`` that follows, in steps, while the kernel is read."""
        self.sound = False
        self.refused.clear()
        self._program = Program(self._structure(layout.TABLE, SMALL), self.node, Numbers())
        contended: list[str] = []
        ordered = iter(wanted.items())
        while some := dict(islice(ordered, STEP)):
            contended += self._begin(some)
            yield
        # What takes long to read is tables that are there, which will be adopted: what is known of them so far may serve already.
        known, told = self._ways(wanted) if self._reading else None, None
        found = self._told
        if known is not None and not known.keep and not contended and len(found) == 1:
            told = found[0]
            adopt(self._program.numbers, told.values(), known)
            yield
            try:
                yield from self._program.write_ahead()
            except ValueError:  # ``start`` looks for whom it is of
                return
        self._expected = Expected(wanted, contended, known, told)

    def _ways(self, wanted: Mapping[str, ServiceProgram]) -> Ways:
        return ways(service for key, service in wanted.items() if key not in self.refused)

    def _begin(self, services: dict[str, ServiceProgram]) -> Iterator[str]:
        """Take in Services; gives those that another is in the way of: who has what draws numbers, which the kernel may know."""
        plain = {key: service for key, service in services.items() if service.plain}
        with contextlib.suppress(ValueError):  # one by one it will be known of whom
            if self._program.begin_all(plain):
                services = {key: service for key, service in services.items() if not service.plain}
        for key, service in services.items():
            try:
                if not self._program.begin(key, service):
                    yield key
            except ValueError as error:
                self.refused[key] = str(error)

    def start(self, wanted: Mapping[str, ServiceProgram]) -> Iterator[None]:
        """Make the kernel hold what is wanted, in steps: the caller may let others run between two of them.

        Raises KernelRefused; then it may be started again.
        """
        try:
            yield from self._start(wanted)
        except ValueError:  # of endpoints it is not known before they are written that one is none: then it is looked for
            refused = self._unwritable(wanted)
            if not refused:
                raise
            yield from self._start({key: service for key, service in wanted.items() if key not in refused})
            self.refused |= refused

    def _unwritable(self, wanted: Mapping[str, ServiceProgram]) -> dict[str, str]:
        """Give the Services that cannot be programmed, with the reason."""
        found: dict[str, str] = {}
        for key, service in wanted.items():
            try:
                elements(service, self.node, self.family, Numbers())
            except ValueError as error:
                found[key] = str(error)
        return found

    def _start(self, wanted: Mapping[str, ServiceProgram]) -> Iterator[None]:
        expected, self._expected = self._expected, None
        have = self._present()
        if expected is not None and expected.told is not None and not _is_told(have, expected.told):
            expected = None  # it is another table now
        if expected is None or expected.wanted is not wanted:
            yield from self.expect(wanted)
            expected, self._expected = self._expected, None
        assert expected is not None
        if have is not None and expected.told is not None:
            read(self._program.numbers, have.set("backends"))
        elif have is not None:
            adopt(self._program.numbers, have.sets, expected.known or self._ways(wanted))
        yield
        for key in expected.contended:  # what is wrong may be with one that has what this one claims: ``start`` looks for it
            self._program.put(key, wanted[key])
        yield from self._settle(have)

    def put_slice(self, key: str, piece: EndpointSlice) -> bool:
        """Take in the only slice of a Service of this family, changed in one endpoint, for the ``update`` that follows.

        False where it is another change: then nothing is done, and the Service is to be decided anew.
        """
        return self.sound and self._program.put_slice(key, piece)

    def update(self, changes: Mapping[str, ServiceProgram | None]) -> None:
        """Replace what is wanted for some Services; None removes one. Raises KernelRefused."""
        for key, service in changes.items():
            self._put(key, service)
        try:
            if not self.sound:
                for _ in self._settle(self._present()):
                    pass
            elif self._program.full():
                for _ in self._build(self._present()):
                    pass
            else:
                self._kernel.apply_batches(self._program.take())
        except KernelRefused:
            self.sound = False
            raise

    def expire(self, round: int) -> None:  # noqa: A002
        """Delete what packets of a round may have looked up, no sooner than 10 ms after it. Raises KernelRefused."""
        if not self.sound:
            return  # the repair will find it
        try:
            self._kernel.apply_batches(self._program.expire(round))
        except KernelRefused:
            self.sound = False
            raise

    @property
    def has_stale(self) -> bool:
        """Whether there is something to ``expire``."""
        return self._program.has_stale

    @property
    def round(self) -> int:
        """The number of the last round."""
        return self._program.round

    @property
    def rule_counts(self) -> Mapping[str, tuple[int, int]]:
        """Rules are few and constant here: there is nothing to count."""
        return {}

    @property
    def commits(self) -> int:
        """How many transactions the kernel has carried out for this object."""
        return self._kernel.commits

    @property
    def id(self) -> nft.TableName:
        """The table in use."""
        return self._program.structure.id

    def dump(self, kernel: Nftables) -> nft.Table | str | None:
        """Read the table in use through a door of the caller's, who may be another thread: None without one, a reason if it has what is
        not known here. Raises KernelRefused."""
        try:
            return next(iter(kernel.dump([self.id], KEYED).tables), None)
        except nft.Unreadable as error:
            return str(error)

    def findings(self, have: Any) -> list[str]:
        """Say how a dumped table differs from what should be there."""
        return findings(have, self._program)

    def distrust(self) -> None:
        """Begin the next update with a repair."""
        self.sound = False

    def remove(self) -> None:
        """Take every table of the service proxy out of the kernel."""
        self._kernel.apply([nft.DeleteTable(table.id) for table in self._found()])
        self.sound = False

    # How it works ------------------------------------------------------------------------------------------------------------

    def _put(self, key: str, service: ServiceProgram | None) -> None:
        self.refused.pop(key, None)
        try:
            self._program.put(key, service)
        except ValueError as error:
            self.refused[key] = str(error)
            self._program.put(key, None)

    def _structure(self, name: str, capacity: Capacity) -> Structure:
        return structure(self.family, *self._ranges, name, capacity, self._node_port_ranges, masquerade_all=self._masquerade_all)

    def _found(self) -> list[nft.Table]:
        names = [(self.family.name, name) for name in (layout.TABLE, layout.SPARE)]
        try:
            return list(self._kernel.dump(names, {"backends": self._keys}).tables)
        except nft.Unreadable:
            return [table for _, name in names for table in self._read_apart(name)]

    def _keys(self, sets: Mapping[str, nft.Set]) -> list[bytes] | None:
        keys = backend_keys(sets)
        if keys is not None and CEILING in packed(sets["sizes"]).by_key:
            self._told.append({name: one for name, one in sets.items() if name != "backends"})
        return keys

    def _read_apart(self, name: str) -> list[nft.Table]:
        """Read one table. One that somebody has put something unknown into is given without its sets: of another shape, and built anew."""
        try:
            return list(self._kernel.dump([(self.family.name, name)], {"backends": self._keys}).tables)
        except nft.Unreadable:
            return [replace(self._structure(name, SMALL).table, sets=())]

    def _present(self) -> nft.Table | None:
        """Read the table in use. One that was not finished, because its builder died, is removed."""
        ahead, self._ahead = self._ahead, None
        found = ahead[1] if ahead is not None and ahead[0] == self._kernel.generation() else self._found()
        in_use = [table for table in found if any(chain.hook for chain in table.chains)]
        self._kernel.apply([nft.DeleteTable(table.id) for table in found if table not in in_use[:1]])
        return in_use[0] if in_use else None

    def _settle(self, have: nft.Table | None) -> Iterator[None]:
        """Lead the kernel from what it was found to hold to what is wanted."""
        if have is not None:
            fitting = self._structure(have.name, _capacity(have))
            if _same_shape(have, fitting):
                self._program.move(fitting)
                yield from self._program.compare(have)
                if not self._program.full():
                    yield from self._apply()
                    self.sound = True
                    return
        yield from self._build(have)

    def _apply(self) -> Iterator[None]:
        for batch in self._program.take():
            self._kernel.apply(batch)
            yield

    def _build(self, old: nft.Table | None) -> Iterator[None]:
        """Build the table anew beside the old one, and exchange them in one transaction."""
        name = layout.TABLE if old is None or old.name != layout.TABLE else layout.SPARE
        self.sound = False
        self._program.move(self._structure(name, room(self._program.services.values())))
        self._kernel.apply(self._program.structure.create())
        yield from self._kernel.pour(self._program.fill())
        swap = self._program.structure.hook()
        if old is not None:
            swap.append(nft.DeleteTable(old.id))
            self._carry_over(old)
        self._kernel.apply(swap)
        self.sound = True

    def _carry_over(self, old: nft.Table) -> None:
        """Keep clients at their endpoints: ids and handles are the same in the new table."""
        kept = next((tuple(one.elements.values()) for one in old.sets if one.name == "affinity"), ())
        one = self._program.structure.table.set("affinity")
        for start in range(0, len(kept), 1000):
            self._kernel.apply([nft.AddElements(self._program.structure.id, one, kept[start : start + 1000])])


def _is_told(have: nft.Table | None, told: Mapping[str, nft.Set]) -> bool:
    """Say whether sets that were told of are those of a table that was read then."""
    return have is not None and {id(one) for one in have.sets} >= {id(one) for name, one in told.items() if not name.startswith("__")}


def _capacity(have: nft.Table) -> Capacity:
    sizes = {one.name: one.size for one in have.sets}
    return Capacity(**{field: sizes.get(field.replace("_", "-"), 0) for field in Capacity.__struct_fields__})


def _same_shape(have: nft.Table, wanted: Structure) -> bool:
    """Say whether a table is what this program would have made, but for the data."""
    sets = {one.name: one for one in have.sets}
    chains = {chain.name: chain for chain in have.chains}
    if have.dormant or sets.keys() != {one.name for one in wanted.table.sets}:
        return False
    if not all(same_declaration(sets[one.name], one) for one in wanted.table.sets):
        return False
    if not all(dict(sets[one.name].elements) == dict(one.elements) for one in wanted.table.sets if one.elements):
        return False
    if not all(chains.get(chain.name) == chain for chain in wanted.table.chains):
        return False
    if not _picks_lead_somewhere(sets["pick"], chains):
        return False
    made_later = [name for name in chains if name not in {chain.name for chain in wanted.table.chains}]
    return all(as_made(chains[name], wanted.family) for name in made_later)


def _picks_lead_somewhere(pick: nft.Set, chains: Mapping[str, nft.Chain]) -> bool:
    """Say whether there is an element for every chain that draws, and a chain for every element."""
    wanted = {layout.pick_element(int(name.removeprefix("pick-"))) for name in chains if name.startswith("pick-") and name[5:].isdigit()}
    return {(element.key, element.value) for element in pick.elements.values()} == wanted
