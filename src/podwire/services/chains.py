"""The chains that are made when first needed: one for each number of endpoints, some for each timeout of session affinity.

What belongs here: which there are, and the changes that make those that rows lead to. What must not: the text of their rules (layout.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from podwire import nft
from podwire.nft.datatypes import HOST
from podwire.nft.rows import form
from podwire.services import layout
from podwire.services.layout import Family
from podwire.services.structure import Structure

LEADING = ("sizes", "how", "keep")
"""The maps whose rows lead to such chains."""
_CEILING = (0).to_bytes(4, HOST)


class Chains:
    """The chains of one table. ``names`` are those that there are, all of them."""

    def __init__(self, structure: Structure, names: Iterable[str]) -> None:
        self.structure, self.names = structure, set(names)
        self._forms = {field: form(structure.table.set(field)) for field in LEADING}
        self._counts: set[bytes] = set()  # for which there is one, as is known already

    @property
    def made(self) -> set[str]:
        """Those that were made when first needed."""
        return self.names - {chain.name for chain in self.structure.table.chains}

    @property
    def pick_counts(self) -> set[str]:
        """The numbers of endpoints for which there is a chain."""
        return {name.removeprefix("pick-") for name in self.names if name.startswith("pick-")}

    def needed(self, field: str, rows: Iterable[bytes]) -> list[nft.Change]:
        """Give the changes that make the chains that rows of a map lead to and that there are none of."""
        changes: list[nft.Change] = []
        written = self._forms[field]
        if field == "sizes":
            return self.picks({written.value(row) for row in rows if written.key(row) != _CEILING})
        for row in rows:
            verdict = written.element(row).value
            asked = layout.affinity_of(verdict.chain) if isinstance(verdict, nft.Verdict) and verdict.chain not in self.names else None
            for name, rules in layout.affinity_chains(self.structure.family, *asked) if asked is not None else ():
                self.names.add(name)
                changes += self.structure.chain(name, rules)
        return changes

    def picks(self, counts: Iterable[bytes]) -> list[nft.Change]:
        """Give the changes that make the chains for so many endpoints, packed, that there are none of."""
        changes: list[nft.Change] = []
        new = {*counts} - self._counts
        self._counts |= new
        for count in sorted(int.from_bytes(value, HOST) for value in new):
            name, _ = layout.pick_chain(count)
            if name not in self.names:
                self.names.add(name)
                changes += self.structure.pick(count)
        return changes


def as_made(chain: nft.Chain, family: Family) -> bool:
    """Say whether a chain is one of those made when first needed, and unaltered."""
    asked, count = layout.affinity_of(chain.name), chain.name.removeprefix("pick-")
    if asked is not None:
        made = layout.affinity_chains(family, *asked)
    elif count.isdigit():
        made = [layout.pick_chain(int(count))]
    else:
        return False
    return any(
        name == chain.name and [replace(rule, handle=0) for rule in chain.rules] == [nft.rule(text, family=family.name) for text in rules]
        for name, rules in made
    )
