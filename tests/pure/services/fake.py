"""A kernel of dictionaries, as strict as the real one about what is there and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from podwire import nft


class Refused(Exception):
    pass


class FakeKernel:
    def __init__(self) -> None:
        self.sets: dict[str, nft.Set] = {}
        self.elements: dict[str, dict[bytes, nft.Element]] = {}
        self.chains: dict[str, nft.Chain] = {}

    def apply_batches(self, batches: Iterable[Sequence[nft.Change]]) -> None:
        for batch in batches:
            self.apply(batch)

    def apply(self, batch: Sequence[nft.Change]) -> None:
        for change in batch:
            match change:
                case nft.AddTable():
                    pass
                case nft.AddSet(_, one):
                    self.sets[one.name] = one
                    self.elements.setdefault(one.name, {})
                case nft.AddChain(_, chain):
                    self.chains.setdefault(chain.name, chain)
                case nft.AddRule(_, name, rule):
                    self.chains[name] = replace(self.chains[name], rules=(*self.chains[name].rules, rule))
                case nft.AddElements(_, one, elements):
                    self._add(self.elements[one.name], elements, one)
                case nft.DeleteElements(_, one, elements):
                    for element in elements:
                        if self.elements[one.name].pop(element.key, None) is None:
                            raise Refused(f"ENOENT: {one.name} {element}")
                case _:
                    raise AssertionError(change)

    def _add(self, there: dict[bytes, nft.Element], elements: Sequence[nft.Element], one: nft.Set) -> None:
        for element in elements:
            if isinstance(element.value, nft.Verdict) and element.value.chain not in self.chains:
                raise Refused(f"ENOENT: chain {element.value.chain}")
            other = there.get(element.key)
            if other is not None and other.value != element.value:
                raise Refused(f"EEXIST: {one.name} {element}")
            there.setdefault(element.key, element)
            if one.size and len(there) > one.size:
                raise Refused(f"ENFILE: {one.name}")

    def table(self) -> nft.Table:
        sets = tuple(replace(one, elements=dict(self.elements[name])) for name, one in self.sets.items())
        return nft.Table("ip", "podwire-services", sets, tuple(self.chains.values()))
