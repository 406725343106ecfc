"""Changes of elements, cut into batches that a kernel takes each as one transaction.

What belongs here: what of a map goes, comes and is replaced (``Plan``), which ranges meet, and the cutting. What must not: what is wanted,
and in which order maps are changed (ruleset.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from podwire import nft
from podwire.nft.rows import Form, Rows

BATCH = 180_000  # bytes: under the 212,992 that an ordinary user's socket takes
LARGEST = BATCH  # bytes of what is not to be cut
PIECE = 256  # elements in one change
MESSAGE = 200  # bytes round the elements of a change


@dataclass(slots=True)
class Plan:
    """What is to be done with the rows of one map."""

    replaced: list[tuple[bytes, bytes]]
    added: list[bytes]
    removed: list[bytes]

    def written(self) -> Iterator[bytes]:
        yield from self.added
        for _, after in self.replaced:
            yield after


def _meeting(form: Form, plan: Plan) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Give what goes and what comes in groups: ranges of two groups have nothing in common."""
    read = form.element
    rows = [(read(row), row, True) for row in plan.removed] + [(read(row), row, False) for row in plan.added]
    for old, new in plan.replaced:
        rows += [(read(old), old, True), (read(new), new, False)]
    rows.sort(key=_first)
    gone: list[bytes] = []
    came: list[bytes] = []
    last = b""
    for element, row, goes in rows:
        if element.key > last and (gone or came):
            yield gone, came
            gone, came = [], []
        (gone if goes else came).append(row)
        last = max(last, element.end or element.key)
    if gone or came:
        yield gone, came


def _first(row: tuple[nft.Element, bytes, bool]) -> bytes:
    return row[0].key


class Batcher:
    """Changes, cut into batches of a limited size. A deletion and the addition that replaces it stay together.

    ``forms`` are by the name of a set.
    """

    def __init__(self, table: nft.TableName, forms: Mapping[str, Form]) -> None:
        self._table, self._forms = table, forms
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

    def put(self, one: nft.Set, replaced: Sequence[tuple[bytes, bytes]], added: Sequence[bytes]) -> None:
        for start in range(0, len(replaced), PIECE):
            pairs = replaced[start : start + PIECE]
            before, after = [old for old, _ in pairs], [new for _, new in pairs]
            self._reserve(_size(before) + _size(after))
            self._current.append(nft.DeleteElements(self._table, one, Rows(self._forms[one.name], before)))
            self._current.append(nft.AddElements(self._table, one, Rows(self._forms[one.name], after)))
        for start in range(0, len(added), PIECE):
            piece = added[start : start + PIECE]
            self._reserve(_size(piece))
            self._current.append(nft.AddElements(self._table, one, Rows(self._forms[one.name], piece)))

    def delete(self, one: nft.Set, removed: Sequence[bytes]) -> None:
        for start in range(0, len(removed), PIECE):
            piece = removed[start : start + PIECE]
            self._reserve(_size(piece))
            self._current.append(nft.DeleteElements(self._table, one, Rows(self._forms[one.name], piece)))

    def exchange(self, one: nft.Set, plan: Plan, aside: nft.Set | None) -> None:
        """Write ranges. The kernel refuses one that meets one that is there: such are exchanged, with all that they meet, in one batch.

        So a client within both old and new ranges may come at every moment. What meets and is too much for one batch comes to stand
        ``aside`` first, in a set of its own that is asked, too; without it such clients may be shut out between two batches. What meets
        nothing new is left in the plan, to go last.
        """
        gone: list[bytes] = []
        came: list[bytes] = []
        apart: list[bytes] = []
        for before, after in _meeting(self._forms[one.name], plan):
            if not after:
                apart += before
                continue
            if aside is not None and before and _size(before) + _size(after) > LARGEST:
                # Each in a transaction of its own: the kernel exchanges the sets of one transaction one after the other.
                self.put(aside, (), after)
                self.cut()
                self.delete(one, before)
                self.put(one, (), after)
                self.cut()
                self.delete(aside, after)
                continue
            if len(gone) + len(came) + len(before) + len(after) > PIECE:
                self._exchange(one, gone, came)
                gone, came = [], []
            gone += before
            came += after
        self._exchange(one, gone, came)
        plan.removed = apart

    def _exchange(self, one: nft.Set, gone: Sequence[bytes], came: Sequence[bytes]) -> None:
        self.together(_size(gone) + _size(came))
        self.delete(one, gone)
        self.put(one, (), came)
        self.together(0)

    def cut(self) -> None:
        """Let what follows be another batch."""
        if self._current:
            self._batches.append(self._current)
            self._current, self._room = [], BATCH

    def done(self) -> list[list[nft.Change]]:
        self.cut()
        return self._batches

    def _reserve(self, size: int) -> None:
        if self._together:
            return
        if size > self._room and self._current:
            self.done()
        if not self._current:
            self._room = BATCH
        self._room -= size


def _size(rows: Sequence[bytes]) -> int:
    """The bytes that these take in a message of their own."""
    return MESSAGE + sum(map(len, rows))
