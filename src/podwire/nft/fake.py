"""A ruleset in memory that is as strict as the kernel's: for tests and for trying changes without a namespace.

What belongs here: ``FakeNftables``, which takes the same changes by the same methods as the door to the kernel and refuses what the
kernel refuses, with the same error number; and ``Failing``, which makes chosen operations of any such door fail. What must not: packets
(walk.py).

How it works: a transaction is carried out on a copy, whose tables are copied when first touched; only when every change was accepted and
the whole is valid does the copy become the state. Who refers to what is counted anew when it is asked for: this is a fake of few elements.

What is refused (each case is run against the kernel by a test): what is named and not there (ENOENT); an element that is there with another
value, or a range that meets another (EEXIST); a set or chain in use (EBUSY); more elements than a set's size (ENFILE); jumps to chains
that the kernel calls (EOPNOTSUPP), in circles or more than sixteen deep (EMLINK); translation outside of its chains and hooks
(EOPNOTSUPP); keys of another length than the set's (EINVAL).

Source: net/netfilter/nf_tables_api.c, nft_set_rbtree.c, nft_set_pipapo.c of the Linux kernel.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from podwire.nft import datatypes, fields
from podwire.nft.changes import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    Change,
    DeleteChain,
    DeleteElements,
    DeleteRule,
    DeleteSet,
    DeleteTable,
    FlushChain,
    FlushSet,
)
from podwire.nft.commands import render_change
from podwire.nft.lookup import NONE_KEYED, Keyed
from podwire.nft.model import (
    Chain,
    Element,
    Lookup,
    Masquerade,
    Match,
    Nat,
    Reference,
    Rule,
    Ruleset,
    Set,
    Statement,
    Table,
    TableName,
    Update,
    Verdict,
    VerdictMap,
    inline_sets,
    named_sets,
)

_DEPTH: Final = 16
_HOOKS: Final = {"dnat": ("prerouting", "output"), "redirect": ("prerouting", "output"), "snat": ("postrouting", "input")}


class Refused(OSError):
    """What the fake does not do. ``what`` is the change in nft's words."""

    def __init__(self, number: int, what: str, hint: str = "") -> None:
        super().__init__(number, os.strerror(number))
        self.what, self.hint = what, hint

    def __str__(self) -> str:
        return f"{self.what}: {self.strerror}{f': {self.hint}' if self.hint else ''}"


Refusal = Callable[[int, str, str], OSError]


class Door(Protocol):
    """What the kernel's door and the fake have in common. ``commits`` counts the transactions that were carried out through it."""

    @property
    def commits(self) -> int: ...
    def apply(self, changes: Sequence[Change]) -> None: ...
    def apply_batches(self, batches: Iterable[Sequence[Change]]) -> None: ...
    def pour(self, batches: Iterable[Sequence[Change]]) -> Iterator[None]: ...
    def dump(self, tables: Iterable[TableName] | None = None, keyed: Keyed = ...) -> Ruleset: ...
    def generation(self) -> int: ...
    def close(self) -> None: ...


class FakeNftables:
    """A ruleset. ``refused`` makes the errors, so that those of the kernel's door can be raised in its place."""

    def __init__(self, refused: Refusal = Refused) -> None:
        self._refused = refused
        self._tables: dict[TableName, _Table] = {}
        self._generation = 1
        self._handle = 0
        self.commits = 0

    def close(self) -> None:
        """Do nothing: the ruleset stays."""

    def apply(self, changes: Sequence[Change]) -> None:
        """Carry out all changes, or none. Raises Refused (or what was chosen in its place), which names the change."""
        work = _Transaction(dict(self._tables), self._handle)
        for change in changes:
            try:
                work.carry_out(change)
            except _No as no:
                raise self._refused(no.number, render_change(change, no.element), no.hint) from None
        try:
            work.validate()
        except _No as no:
            raise self._refused(no.number, render_change(changes[0]), no.hint) from None
        if not work.steps:
            return  # nothing was there to be done: the kernel counts no transaction
        self._tables, self._handle = work.tables, work.handle
        self._generation += 1
        self.commits += 1

    def apply_batches(self, batches: Iterable[Sequence[Change]]) -> None:
        """Carry out one transaction after the other. Raises as ``apply``; those before the refused one stay carried out."""
        for changes in batches:
            self.apply(changes)

    def pour(self, batches: Iterable[Sequence[Change]]) -> Iterator[None]:
        """As ``apply_batches``, in steps."""
        for changes in batches:
            self.apply(changes)
            yield

    def generation(self) -> int:
        """The number of transactions so far."""
        return self._generation

    def dump(self, tables: Iterable[TableName] | None = None, keyed: Keyed = NONE_KEYED) -> Ruleset:
        """Give the tables as values; without names all. One that is not there is left out.

        ``keyed`` is asked, as by the kernel's door about big sets. What it says makes no difference to what is read, there as here.
        """
        names = self._tables if tables is None else [name for name in tables if name in self._tables]
        found = Ruleset(tuple(self._tables[name].value() for name in names))
        for table in found.tables:
            sets = {one.name: one for one in table.sets}
            for name in keyed.keys() & sets.keys():
                keyed[name](sets | {name: sets[name].declaration()})
        return found


class _No(Exception):
    def __init__(self, number: int, element: Element | None = None, hint: str = "") -> None:
        super().__init__(number)
        self.number, self.element, self.hint = number, element, hint


@dataclass(slots=True)
class _Table:
    """A table in a transaction.

    ``gone`` counts, by set, the elements that the transaction has taken out: the kernel frees their room only when it is over. ``sizes``
    are those that sets are to have from then on.
    """

    name: TableName
    comment: str = ""
    sets: dict[str, Set] = field(default_factory=dict)
    elements: dict[str, dict[bytes, Element]] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    gone: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, int] = field(default_factory=dict)

    def copy(self) -> _Table:
        elements = {name: dict(rows) for name, rows in self.elements.items()}
        return _Table(self.name, self.comment, dict(self.sets), elements, dict(self.chains))

    def value(self) -> Table:
        sets = tuple(one.with_elements(self.elements[name].values()) for name, one in self.sets.items())
        return Table(*self.name, sets, tuple(self.chains.values()), self.comment)

    def set(self, name: str) -> Set:
        if name not in self.sets:
            raise _No(errno.ENOENT)
        return self.sets[name]

    def chain(self, name: str) -> Chain:
        if name not in self.chains:
            raise _No(errno.ENOENT)
        return self.chains[name]

    def leading_to(self, chain: str, *, but: str = "") -> bool:
        """Say whether anything jumps to a chain, apart from the rules of one."""
        rules = (t for c in self.chains.values() if c.name != but for rule in c.rules for t in _targets(rule))
        rows = (e.value.chain for each in self.elements.values() for e in each.values() if isinstance(e.value, Verdict))
        return any(target == chain for target in (*rules, *rows))


class _Transaction:
    def __init__(self, tables: dict[TableName, _Table], handle: int) -> None:
        self.tables, self.handle = tables, handle
        self._own: set[TableName] = set()
        self.steps = 0

    def _table(self, name: TableName, *, steps: int = 1) -> _Table:
        """Give a table to be changed, in so many steps. 0: nothing may come of it."""
        self.steps += steps
        if name not in self.tables:
            raise _No(errno.ENOENT)
        if name not in self._own:
            self._own.add(name)
            self.tables[name] = self.tables[name].copy()
        return self.tables[name]

    def carry_out(self, change: Change) -> None:
        match change:
            case AddTable(name, comment):
                if name not in self.tables:
                    self.tables[name] = _Table(name, comment)
                    self._own.add(name)
                    self.steps += 1
            case DeleteTable(name):
                self._table(name)
                del self.tables[name]
                self._own.discard(name)
            case AddChain(name, chain):
                self._add_chain(self._table(name), chain)
            case DeleteChain(name, chain_name):
                table = self._table(name)
                table.chain(chain_name)
                if table.leading_to(chain_name, but=chain_name):
                    raise _No(errno.EBUSY)
                del table.chains[chain_name]
            case FlushChain(name, chain_name):
                table = self._table(name, steps=0)
                self.steps += len(table.chain(chain_name).rules)
                table.chains[chain_name] = replace(table.chain(chain_name), rules=())
            case AddRule(name, chain_name, rule):
                self._add_rule(self._table(name), chain_name, rule)
            case DeleteRule(name, chain_name, handle):
                table = self._table(name)
                chain = table.chain(chain_name)
                if handle not in [rule.handle for rule in chain.rules]:
                    raise _No(errno.ENOENT)
                table.chains[chain_name] = replace(chain, rules=tuple(rule for rule in chain.rules if rule.handle != handle))
            case AddSet(name, one):
                self._add_set(self._table(name), one)
            case DeleteSet(name, set_name):
                table = self._table(name)
                table.set(set_name)
                if any(set_name in named_sets(rule) for chain in table.chains.values() for rule in chain.rules):
                    raise _No(errno.EBUSY)
                del table.sets[set_name], table.elements[set_name]
            case FlushSet(name, set_name):
                table = self._table(name, steps=0)
                table.set(set_name)
                self.steps += len(table.elements[set_name])
                table.gone[set_name] += len(table.elements[set_name])
                table.elements[set_name] = {}
            case AddElements(name, one, elements):
                for element in elements:
                    self.steps += _add_element(self._table(name, steps=0), one.name, element)
            case DeleteElements(name, one, elements):
                for element in elements:
                    _delete_element(self._table(name), one.name, element)

    def _add_chain(self, table: _Table, chain: Chain) -> None:
        old = table.chains.get(chain.name)
        if old is None:
            table.chains[chain.name] = replace(chain, rules=())
        elif chain.hook:
            if (old.type, old.hook, old.priority) != (chain.type, chain.hook, chain.priority):
                raise _No(errno.EOPNOTSUPP)
            table.chains[chain.name] = replace(old, policy=chain.policy)

    def _add_set(self, table: _Table, one: Set) -> None:
        old = table.sets.get(one.name)
        if old is None:
            table.sets[one.name] = one.declaration()
            table.elements[one.name] = {}
        elif _declared(old) != _declared(one):
            raise _No(errno.EEXIST)
        elif one.size:
            table.sizes[one.name] = one.size

    def _add_rule(self, table: _Table, name: str, rule: Rule) -> None:
        chain = table.chain(name)
        for target in _targets(rule):
            _may_lead(table, target)
        for set_name in named_sets(rule):
            table.set(set_name)
        for statement in rule.statements:
            _fits(table, statement)
        self.handle += 1
        table.chains[name] = replace(chain, rules=(*chain.rules, replace(rule, handle=self.handle)))

    # The whole

    def validate(self) -> None:
        """Walk every chain that the kernel calls: where may jumps lead, and is translation asked where it can be done?"""
        for name in self._own & self.tables.keys():
            table = self.tables[name]
            table.gone.clear()
            for set_name, size in table.sizes.items():
                if set_name in table.sets:
                    table.sets[set_name] = replace(table.sets[set_name], size=size)
            table.sizes.clear()
            for chain in table.chains.values():
                if chain.hook:
                    _reach(table, chain, chain, 0, {})


def _reach(table: _Table, base: Chain, chain: Chain, depth: int, seen: dict[str, int]) -> None:
    if depth >= _DEPTH:
        raise _No(errno.EMLINK, hint=f"at {chain.name}")
    if seen.get(chain.name, -1) >= depth:
        return
    seen[chain.name] = depth
    for rule in chain.rules:
        for statement in rule.statements:
            _at_home(base, statement)
        for target in _all_targets(table, rule):
            _reach(table, base, table.chains[target], depth + 1, seen)


def _at_home(base: Chain, statement: Statement) -> None:
    match statement:
        case Nat(kind):
            hooks: tuple[str, ...] = _HOOKS[kind]
        case Masquerade(kind):
            hooks = ("postrouting",) if kind == "masquerade" else _HOOKS["redirect"]
        case _:
            return
    if base.type != "nat" or base.hook not in hooks:
        raise _No(errno.EOPNOTSUPP, hint=f"{kind} in {base.name}")


def _targets(rule: Rule) -> Iterator[str]:
    """The chains that a rule itself names."""
    for statement in rule.statements:
        if isinstance(statement, Verdict) and statement.chain:
            yield statement.chain
    for one in inline_sets(rule):
        yield from (e.value.chain for e in one.elements.values() if isinstance(e.value, Verdict) and e.value.chain)


def _all_targets(table: _Table, rule: Rule) -> Iterator[str]:
    """The chains that a rule may lead to, also by a map."""
    yield from _targets(rule)
    for statement in rule.statements:
        if isinstance(statement, VerdictMap) and isinstance(statement.map, Reference):
            rows = table.elements[statement.map.name].values()
            yield from (e.value.chain for e in rows if isinstance(e.value, Verdict) and e.value.chain)


def _may_lead(table: _Table, target: str) -> None:
    if table.chain(target).hook:
        raise _No(errno.EOPNOTSUPP)


def _declared(one: Set) -> tuple[object, ...]:
    lengths = [kind.padded for kind in (*one.key_types, *one.value_types)]
    return lengths, [k.number for k in one.key_types], [k.number for k in one.value_types], one.flags


def _fits(table: _Table, statement: Statement) -> None:
    """Check that what a rule looks up is as long as the set's keys, and that maps and sets are used as such."""
    match statement:
        case VerdictMap(key, Reference(name)) | Match(key, Reference(name)) | Update(_, name, key):
            wants_map = isinstance(statement, VerdictMap)
        case _:
            for held in (getattr(statement, "value", None), getattr(statement, "address", None)):
                if isinstance(held, Lookup) and isinstance(held.map, Reference):
                    _same_length(table.set(held.map.name), held.key)
                    if not table.set(held.map.name).is_map:
                        raise _No(errno.EINVAL)
            return
    one = table.set(name)
    _same_length(one, key)
    if wants_map and not one.is_verdict_map:
        raise _No(errno.EINVAL)


def _same_length(one: Set, key: object) -> None:
    if datatypes.length(fields.types_of(key)) != datatypes.length(one.key_types):  # type: ignore[arg-type]
        raise _No(errno.EINVAL)


# Elements --------------------------------------------------------------------------------------------------------------------


def _add_element(table: _Table, name: str, element: Element) -> bool:
    """Add one. Says whether it was not there."""
    one = table.set(name)
    rows = table.elements[name]
    if isinstance(element.value, Verdict) and element.value.chain:
        _may_lead(table, element.value.chain)
    old = rows.get(element.key)
    if old is not None and old.end == element.end:
        if old.value != element.value:
            raise _No(errno.EEXIST, element)
        return False
    if "interval" in one.flags and any(_meet(one, other, element) for other in rows.values()):
        raise _No(errno.EEXIST, element)
    if one.size and len(rows) >= one.size + table.gone[name]:
        raise _No(errno.ENFILE, element)
    rows[element.key] = element
    return True


def _delete_element(table: _Table, name: str, element: Element) -> None:
    one = table.set(name)
    old = table.elements[name].get(element.key)
    if old is None or ("interval" in one.flags and old.end != element.end):
        raise _No(errno.ENOENT, element)
    del table.elements[name][element.key]
    table.gone[name] += 1


def _meet(one: Set, there: Element, new: Element) -> bool:
    """Say whether the kernel finds that two ranges meet.

    Of ranges in several fields it sees only that one end of the new lies within one that is there: it takes a wider one around a
    narrower.
    """
    if len(one.key_types) == 1:
        return there.key <= (new.end or new.key) and new.key <= (there.end or there.key)
    return _within(one, there, new.key) or _within(one, there, new.end or new.key)


def _within(one: Set, there: Element, key: bytes) -> bool:
    low, high = datatypes.unpack(one.key_types, there.key), datatypes.unpack(one.key_types, there.end or there.key)
    return all(first <= field_ <= last for first, field_, last in zip(low, datatypes.unpack(one.key_types, key), high, strict=True))


# Failures --------------------------------------------------------------------------------------------------------------------


class Failing:
    """A door of which chosen operations fail.

    ``fails`` is asked with the number of each operation (a transaction, a dump, a generation), from 1; what it answers True for is refused
    with EIO. With ``after`` the operation is carried out nevertheless, as when an acknowledgement is lost.
    """

    def __init__(self, door: Door, fails: Callable[[int], bool], refused: Refusal = Refused, *, after: bool = False) -> None:
        self._door, self._fails, self._refused, self._after = door, fails, refused, after
        self.operations = 0

    @property
    def commits(self) -> int:
        return self._door.commits

    def close(self) -> None:
        self._door.close()

    def apply(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        fails = self._count()
        if not fails or self._after:
            self._door.apply(changes)
        if fails:
            raise self._refused(errno.EIO, render_change(changes[0]), f"operation {self.operations} was to fail")

    def apply_batches(self, batches: Iterable[Sequence[Change]]) -> None:
        for changes in batches:
            self.apply(changes)

    def pour(self, batches: Iterable[Sequence[Change]]) -> Iterator[None]:
        for changes in batches:
            self.apply(changes)
            yield

    def dump(self, tables: Iterable[TableName] | None = None, keyed: Keyed = NONE_KEYED) -> Ruleset:
        if self._count():
            raise self._refused(errno.EIO, "list ruleset", f"operation {self.operations} was to fail")
        return self._door.dump(tables, keyed)

    def generation(self) -> int:
        if self._count():
            raise self._refused(errno.EIO, "ask for the generation", f"operation {self.operations} was to fail")
        return self._door.generation()

    def _count(self) -> bool:
        self.operations += 1
        return self._fails(self.operations)
