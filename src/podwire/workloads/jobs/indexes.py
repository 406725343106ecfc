"""Sets of completion indexes as a Job's status writes them: ``1,3-5``. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def read(text: str | None, below: int) -> frozenset[int]:
    """Read a set; indexes that are not ``below`` are left out, what is no number too."""
    found: set[int] = set()
    for one in spans(text, below):
        found.update(one)
    return frozenset(found)


def spans(text: str | None, below: int) -> list[range]:
    """Read a set as the ranges that it is written in: a few letters can be more indexes than there is memory for."""
    found = []
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found.append(range(int(first), max(int(first), min(int(last or first) + 1, below))))
    return found


def write(indexes: Iterable[int]) -> str:
    """Write a set; two neighbours are a range, as in Kubernetes."""
    spans: list[list[int]] = []
    for index in sorted(indexes):
        if spans and spans[-1][1] == index - 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
