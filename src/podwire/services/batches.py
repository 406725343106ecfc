"""Changes of elements, cut into batches that a kernel takes each as one transaction.

What belongs here: what of a map goes, comes and is replaced (``Plan``), which ranges meet, and the cutting. What must not: what is wanted,
and in which order maps are changed (ruleset.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from podwire import nft
from podwire.nft import Element

BATCH = 180_000  # bytes: under the 212,992 that an ordinary user's socket takes
LARGEST = BATCH  # bytes of what is not to be cut
PIECE = 256  # elements in one change


@dataclass(slots=True)
class Plan:
    """What is to be done with the elements of one map."""

    replaced: list[tuple[Element, Element]]
    added: list[Element]
    removed: list[Element]

    def written(self) -> Iterator[Element]:
        yield from self.added
        for _, after in self.replaced:
            yield after


def _meeting(plan: Plan) -> Iterator[tuple[list[Element], list[Element]]]:
    """Give what goes and what comes in groups: ranges of two groups have nothing in common."""
    rows = [(old, True) for old in plan.removed] + [(element, False) for element in plan.added]
    for old, new in plan.replaced:
        rows += [(old, True), (new, False)]
    rows.sort(key=_first)
    gone: list[Element] = []
    came: list[Element] = []
    last = b""
    for element, goes in rows:
        if element.key > last and (gone or came):
            yield gone, came
            gone, came = [], []
        (gone if goes else came).append(element)
        last = max(last, element.end or element.key)
    if gone or came:
        yield gone, came


def _first(row: tuple[Element, bool]) -> bytes:
    return row[0].key


class Batcher:
    """Changes, cut into batches of a limited size. A deletion and the addition that replaces it stay together."""

    def __init__(self, table: nft.TableName) -> None:
        self._table = table
        self._batches: list[list[nft.Change]] = []
        self._current: list[nft.Change] = []
        self._room = BATCH
        self._together = False

    def together(self, size: int) -> None:
        """Do not cut in what follows, so many bytes, if one batch can hold it. 0 ends it."""
        self._together = False
        if 0 < size <= LARGEST:
            self._reserve(size)
            self._together = True

    def rules(self, changes: Sequence[nft.Change]) -> None:
        for change in changes:
            if isinstance(change, nft.AddChain):
                self._reserve(2000)  # a chain with its rules and the element that leads to it
            self._current.append(change)

    def put(self, one: nft.Set, replaced: Sequence[tuple[Element, Element]], added: Sequence[Element]) -> None:
        for start in range(0, len(replaced), PIECE):
            pairs = replaced[start : start + PIECE]
            before, after = [old for old, _ in pairs], [new for _, new in pairs]
            self._reserve(_size(before) + _size(after))
            self._current.append(nft.DeleteElements(self._table, one, before))
            self._current.append(nft.AddElements(self._table, one, after))
        for start in range(0, len(added), PIECE):
            piece = added[start : start + PIECE]
            self._reserve(_size(piece))
            self._current.append(nft.AddElements(self._table, one, piece))

    def delete(self, one: nft.Set, removed: Sequence[Element]) -> None:
        for start in range(0, len(removed), PIECE):
            piece = removed[start : start + PIECE]
            self._reserve(_size(piece))
            self._current.append(nft.DeleteElements(self._table, one, piece))

    def exchange(self, one: nft.Set, plan: Plan) -> None:
        """Write ranges. The kernel refuses one that meets one that is there: such are exchanged, with all that they meet, in one batch.

        So a client within both old and new ranges may come at every moment, unless what meets is too much for one batch. What meets nothing
        new is left in the plan, to go last.
        """
        gone: list[Element] = []
        came: list[Element] = []
        apart: list[Element] = []
        for before, after in _meeting(plan):
            if not after:
                apart += before
                continue
            if len(gone) + len(came) + len(before) + len(after) > PIECE:
                self._exchange(one, gone, came)
                gone, came = [], []
            gone += before
            came += after
        self._exchange(one, gone, came)
        plan.removed = apart

    def _exchange(self, one: nft.Set, gone: Sequence[Element], came: Sequence[Element]) -> None:
        self.together(_size(gone) + _size(came))
        self.delete(one, gone)
        self.put(one, (), came)
        self.together(0)

    def done(self) -> list[list[nft.Change]]:
        if self._current:
            self._batches.append(self._current)
            self._current = []
        return self._batches

    def _reserve(self, size: int) -> None:
        if self._together:
            return
        if size > self._room and self._current:
            self.done()
        if not self._current:
            self._room = BATCH
        self._room -= size


def _size(elements: Sequence[Element]) -> int:
    """The bytes that these take in a message, or a little more."""
    ends = 2 * sum([len(e.end) for e in elements]) if elements and elements[0].end else 0
    return 128 * len(elements) + sum(map(len, [e.comment for e in elements])) + ends
