"""What somebody else did to our tables.

What belongs here: the difference between what a kernel was found to hold and what this program has put there, in words for people. What
must not: reading the kernel, putting things right (tables.py), when to look (beside.py).

Kept for packets under way, and made by packets themselves (session affinity), is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from podwire import nft
from podwire.nft.difference import same_declaration
from podwire.nft.rows import as_columns, packed
from podwire.services.chains import as_made
from podwire.services.elements import FIELDS, set_name
from podwire.services.notes import difference
from podwire.services.ruleset import Program

SHOWN = 4


def findings(have: nft.Table | str | None, program: Program) -> list[str]:
    """Say what differs, the whole before its parts. Nothing: the kernel holds what it should. A text tells why it could not be read."""
    family, name = program.structure.id
    if have is None:
        return [f"table {family} {name} is gone"]
    if isinstance(have, str):
        return [f"table {family} {name} has what is not known here: {have}"]
    if have.dormant:
        return [f"table {family} {name} is dormant"]
    return [*_chains(have, program), *_sets(have, program)]


def _chains(have: nft.Table, program: Program) -> Iterator[str]:
    found = {chain.name: chain for chain in have.chains}
    for chain in program.structure.table.chains:
        if chain.name not in found:
            yield f"chain {chain.name} is gone"
        elif found[chain.name] != chain:
            yield f"chain {chain.name} has other rules"
    known = {chain.name for chain in program.structure.table.chains} | program.chains.made
    yield from (f"chain {name} was added" for name in found if name not in known)
    for name in sorted(program.chains.made):
        if name not in found:
            yield f"chain {name} is gone"
        elif not as_made(found[name], program.structure.family):
            yield f"chain {name} has other rules"


def _sets(have: nft.Table, program: Program) -> Iterator[str]:
    found = {one.name: one for one in have.sets}
    fields, wanted = {set_name(field): field for field in FIELDS}, program.rows()
    for one in program.structure.table.sets:
        there = found.get(one.name)
        kind = "map" if one.value_types else "set"
        if there is None or not same_declaration(there, one):
            yield f"{kind} {one.name} is gone" if there is None else f"{kind} {one.name} is declared otherwise"
        elif one.name in fields:
            yield from _elements(kind, there, wanted[fields[one.name]], program.kept_back(fields[one.name]))
        elif one.elements and dict(there.elements) != dict(one.elements):
            yield f"{kind} {one.name} has other elements"
        elif one.name == "pick" and {str(count) for count in _picks(there)} != program.chains.pick_counts:
            yield f"{kind} pick has other elements"
    yield from (f"set {name} was added" for name in found if name not in {one.name for one in program.structure.table.sets})


def _picks(pick: nft.Set) -> Iterator[int]:
    for element in pick.elements.values():
        if isinstance(element.value, nft.Verdict):
            yield int(element.value.chain.rpartition("-")[2])


def _elements(kind: str, there: nft.Set, wanted: Sequence[bytes], kept: Mapping[bytes, nft.Element]) -> Iterator[str]:
    held = packed(there)
    read = held.form.element
    if len(held) == len(wanted) and all(map(held.holds, as_columns(held.form, wanted))):
        return
    for key, (other, row) in difference(held, wanted).items():
        if row is None:
            element = read(other) if other is not None else None
            if element is not None and kept.get(key) != element:
                yield f"{kind} {there.name} has an element too many" + (f", of {element.comment}" if element.comment else "")
        elif other is None:
            yield f"{kind} {there.name} lacks the element of {read(row).comment or 'nobody'}"
        else:
            yield f"{kind} {there.name} has another value for {read(row).comment or 'nobody'}"


def in_words(found: Iterable[str]) -> str:
    """Put findings into one sentence, the first few of them."""
    rows = list(found)
    more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return "; ".join(rows[:SHOWN]) + more
