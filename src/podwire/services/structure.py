"""The table without data as values: how it is created, and put into the way of packets.

What belongs here: layout.py's text, read once, and the changes that make it so. What must not: elements, numbers, what a kernel holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from podwire import nft
from podwire.nft.model import Element
from podwire.services import layout
from podwire.services.layout import Capacity, Family


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

    def create(self) -> list[nft.Change]:
        """Give the changes that make the table, without the chains that the kernel calls."""
        table, value = self.id, self.table
        changes: list[nft.Change] = [nft.AddTable(table)]
        changes += [nft.AddSet(table, one.declaration()) for one in value.sets]
        changes += [nft.AddElements(table, one, tuple(one.elements.values())) for one in value.sets if one.elements]
        chains = [chain for chain in value.chains if not chain.hook]
        changes += [nft.AddChain(table, chain.declaration()) for chain in chains]
        return changes + [nft.AddRule(table, chain.name, rule) for chain in chains for rule in chain.rules]

    def hook(self) -> list[nft.Change]:
        """Give the changes that put the table into the way of packets."""
        changes: list[nft.Change] = [nft.AddChain(self.id, chain.declaration()) for chain in self.hooked]
        return changes + [nft.AddRule(self.id, chain.name, rule) for chain in self.hooked for rule in chain.rules]

    def chain(self, name: str, rules: Sequence[str]) -> list[nft.Change]:
        """Give the changes that make a chain which is made when first needed."""
        family = self.family.name
        return [nft.AddChain(self.id, nft.Chain(name)), *(nft.AddRule(self.id, name, nft.rule(text, family=family)) for text in rules)]

    def pick(self, count: int) -> list[nft.Change]:
        """Give the changes that make the chain which draws one of ``count`` slots, and the element that leads there."""
        key, verdict = layout.pick_element(count)
        return [
            *self.chain(*layout.pick_chain(count)),
            nft.AddElements(self.id, self.table.set("pick"), [Element(key, verdict)]),
        ]


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
