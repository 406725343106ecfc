"""From what is there to what is wanted: the changes, in an order in which every step is right.

A rule points to chains and sets, an element of a verdict map points to a chain. So first what is pointed to is made, then what
points; removals go the other way round. Where everything fits into one transaction it is one, and no packet ever meets half of it;
what does not fit is cut at the 200 KB that an ordinary user's socket takes:

1. tables, sets, empty chains;
2. rules of new and changed chains (a big map's one reader is bound before the map is filled: filling is then quick,
   binding would otherwise walk all its elements);
3. elements, added or with another value;
4. elements that go, then chains and sets that go.

A changed chain is flushed and written anew in the transaction in which it is flushed. A set whose declaration changed is another set: it is
removed and made again, with the chains that read it, together.

This is the general answer. A part that knows more (which removal packets in flight may still meet) orders its own batches and uses
``batches`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from podwire.nft.bytecode import BATCH_LIMIT
from podwire.nft.changes import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    Change,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    FlushChain,
)
from podwire.nft.datatypes import length
from podwire.nft.model import Chain, Element, Ruleset, Set, Table, inline_sets, named_sets

_CHANGE_SIZE: Final = 2_000  # bytes of one other message, reckoned high


def difference(have: Ruleset, want: Ruleset) -> list[list[Change]]:
    """Give the batches that make ``want`` out of ``have``. Tables that only ``have`` names are removed.

    Handles, counters and the order of elements play no part; the order of rules does, that of chains and sets does not. Empty when nothing
    is to be done.
    """
    before = {table.id: table for table in have.tables}
    after = {table.id: table for table in want.tables}
    changes: list[Change] = []
    for name, table in after.items():
        changes += _table(before.get(name), table)
    changes += [DeleteTable(name) for name in before if name not in after]
    return list(batches(changes))


def _table(have: Table | None, want: Table) -> list[Change]:
    name = want.id
    if have is None:
        return [AddTable(name, want.comment), *_objects(Table(*name), want)]
    if have == want:
        return []
    return ([AddTable(name, want.comment)] if have.dormant else []) + _objects(have, want)


def _objects(have: Table, want: Table) -> list[Change]:
    name = want.id
    old_sets, new_sets = {s.name: s for s in have.sets}, {s.name: s for s in want.sets}
    old_chains, new_chains = {c.name: c for c in have.chains}, {c.name: c for c in want.chains}
    remade = {s for s in old_sets.keys() & new_sets.keys() if not same_declaration(old_sets[s], new_sets[s])}
    rehooked = {c for c in old_chains.keys() & new_chains.keys() if _base(old_chains[c]) != _base(new_chains[c])}
    readers = _readers(old_chains.values(), remade)
    rewritten = [c for c in new_chains.values() if c.name in readers or c.name not in old_chains or old_chains[c.name].rules != c.rules]
    pointing = _pointing(old_sets, new_sets, old_chains.keys() - new_chains.keys() | rehooked)

    changes: list[Change] = [FlushChain(name, c) for c in sorted(old_chains.keys() & (readers | {c.name for c in rewritten} | rehooked))]
    changes += [DeleteElements(name, old_sets[s], gone) for s, gone in pointing.items() if s not in remade]
    changes += [DeleteSet(name, s) for s in sorted(remade)]
    changes += [DeleteChain(name, c) for c in sorted(rehooked)]
    changes += [AddSet(name, s.declaration()) for s in want.sets if s.name not in old_sets or s.name in remade]
    changes += [
        AddChain(name, c.declaration()) for c in want.chains if c.name not in old_chains or c.name in rehooked or _policy(c, old_chains)
    ]
    touched = {c.name for c in rewritten} | rehooked
    changes += [AddRule(name, c.name, rule) for c in want.chains if c.name in touched for rule in c.rules]
    removals: list[Change] = []
    for one in want.sets:
        held = {} if one.name in remade or one.name not in old_sets else old_sets[one.name].elements
        changes += element_changes(name, one, held, one.elements, gone=pointing.get(one.name, ()))
        removals += element_removals(name, one, held, one.elements, gone=pointing.get(one.name, ()))
    changes += removals
    dropped = sorted(old_chains.keys() - new_chains.keys())
    changes += [FlushChain(name, c) for c in dropped if old_chains[c].rules and c not in readers]
    changes += [DeleteSet(name, s) for s in old_sets if s not in new_sets and old_sets[s].is_verdict_map]
    changes += [DeleteChain(name, c) for c in dropped]
    return changes + [DeleteSet(name, s) for s in old_sets if s not in new_sets and not old_sets[s].is_verdict_map]


def same_declaration(one: Set, other: Set) -> bool:
    """Say whether two sets are declared alike, whatever they hold. A size that the kernel was not told compares as any."""
    return (
        one.key_types == other.key_types
        and one.value_types == other.value_types
        and one.flags == other.flags
        and one.timeout_ms == other.timeout_ms
        and one.size == other.size
        and one.typeof_key == other.typeof_key
        and one.typeof_value == other.typeof_value
    )


def _base(chain: Chain) -> tuple[object, ...]:
    return chain.type, chain.hook, chain.priority, chain.device


def _policy(chain: Chain, old: Mapping[str, Chain]) -> bool:
    return chain.hook != "" and old[chain.name].policy != chain.policy


def _readers(chains: Iterable[Chain], sets: set[str]) -> set[str]:
    """The chains with a rule that names one of the sets."""
    return {chain.name for chain in chains if sets and any(sets & named_sets(rule) for rule in chain.rules)}


def _pointing(old: Mapping[str, Set], new: Mapping[str, Set], chains: set[str]) -> dict[str, list[Element]]:
    """The elements, by verdict map, that jump to chains that go, in maps that stay: they have to go before."""
    found: dict[str, list[Element]] = {}
    for name in old.keys() & new.keys():
        if old[name].is_verdict_map and chains:
            going = [element for element in old[name].elements.values() if getattr(element.value, "chain", "") in chains]
            if going:
                found[name] = going
    return found


def element_changes(
    table: tuple[str, str], one: Set, have: Mapping[bytes, Element], want: Mapping[bytes, Element], gone: Iterable[Element] = ()
) -> list[Change]:
    """Give what is to be added to one set, and replaced (by delete and add, side by side). ``gone`` are deleted already.

    Intervals may not overlap, not even for the time between two changes of a transaction: in a set of intervals what goes, goes first.
    """
    if have is want:
        return []
    already = {element.key for element in gone}
    added, replaced = [], []
    for key, element in want.items():
        old = have.get(key)
        if old is None or key in already:
            added.append(element)
        elif old != element:
            replaced.append(element)
    declared = one.declaration()
    changes: list[Change] = []
    if "interval" in one.flags:
        removed = [element for key, element in have.items() if key not in want and key not in already]
        if removed:
            changes.append(DeleteElements(table, declared, removed))
    if added:
        changes.append(AddElements(table, declared, added))
    if replaced:
        changes.append(DeleteElements(table, declared, [have[element.key] for element in replaced]))
        changes.append(AddElements(table, declared, replaced))
    return changes


def element_removals(
    table: tuple[str, str], one: Set, have: Mapping[bytes, Element], want: Mapping[bytes, Element], gone: Iterable[Element] = ()
) -> list[Change]:
    """Give what is to be removed from one set last. Elements of a set with the flag dynamic come from packets and are left alone."""
    if have is want or one.flags & {"dynamic", "interval"}:
        return []
    already = {element.key for element in gone}
    removed = [element for key, element in have.items() if key not in want and key not in already]
    return [DeleteElements(table, one.declaration(), removed)] if removed else []


# Batches ---------------------------------------------------------------------------------------------------------------------


def batches(changes: Iterable[Change], limit: int = BATCH_LIMIT) -> Iterator[list[Change]]:
    """Cut changes, kept in their order, into transactions of at most ``limit`` bytes.

    Only between elements that are added or deleted is there a cut that nobody can see a half of; so a change of many elements is split, and
    the deletion and addition that together replace a value are kept side by side by cutting both alike. Everything else stays
    together as long as it fits.
    """
    batch: list[Change] = []
    size = 0
    for piece in _pieces(list(changes), limit - _CHANGE_SIZE):
        weight = sum(_size(change) for change in piece)
        if batch and size + weight > limit:
            yield batch
            batch, size = [], 0
        batch += piece
        size += weight
    if batch:
        yield batch


def _pieces(changes: Sequence[Change], limit: int) -> Iterator[list[Change]]:
    at = 0
    while at < len(changes):
        change = changes[at]
        following = changes[at + 1] if at + 1 < len(changes) else None
        if isinstance(change, DeleteElements) and isinstance(following, AddElements) and _replace(change, following):
            for start, end in _cuts(following.set, following.elements, limit // 2 - 64):
                yield [
                    DeleteElements(change.table, change.set, change.elements[start:end]),
                    AddElements(following.table, following.set, following.elements[start:end]),
                ]
            at += 2
        elif isinstance(change, AddElements | DeleteElements):
            for start, end in _cuts(change.set, change.elements, limit):
                yield [type(change)(change.table, change.set, change.elements[start:end])]
            at += 1
        else:
            yield [change]
            at += 1


def _replace(gone: DeleteElements, added: AddElements) -> bool:
    return (
        (gone.table, gone.set.name, len(gone.elements)) == (added.table, added.set.name, len(added.elements))
        and bool(gone.elements)
        and gone.elements[0].key == added.elements[0].key
    )


def _cuts(one: Set, elements: Sequence[Element], limit: int) -> Iterator[tuple[int, int]]:
    start, size = 0, 0
    second = _second_key(one)
    for at, element in enumerate(elements):
        weight = _element_size(element) + second
        if size + weight > limit:
            yield start, at
            start, size = at, 0
        size += weight
    if start < len(elements):
        yield start, len(elements)


def _second_key(one: Set) -> int:
    """The bytes of an interval's other end."""
    return 28 + length(one.key_types) if "interval" in one.flags else 0


def _element_size(element: Element) -> int:
    """Reckon the bytes of an encoded element, never too low: headers and padding."""
    value = element.value
    size = 38 + len(element.key) + (0 if value is None else len(value) if isinstance(value, bytes) else 48 + len(value.chain))
    if element.comment:
        size += 12 + (len(element.comment) if element.comment.isascii() else 4 * len(element.comment))
    return size + (12 if element.timeout_ms else 0)


def _size(change: Change) -> int:
    match change:
        case AddElements(_, one, elements) | DeleteElements(_, one, elements):
            return 64 + sum(map(_element_size, elements)) + _second_key(one) * len(elements)
        case AddRule(_, _, rule):
            return _CHANGE_SIZE + sum(_size(AddElements(change.table, one, list(one.elements.values()))) for one in inline_sets(rule))
    return _CHANGE_SIZE
