"""Maglev hashing: a look-up table that spreads evenly and changes little when a member comes or goes.

Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Each name fills
the table in turn, taking the next slot of its own permutation that is still free; the permutation is ``(offset + j * skip) mod
size``, and since the size is prime every skip visits every slot. Shares differ by at most one slot, since the names take turns.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence


def maglev(names: Sequence[str], size: int) -> tuple[int, ...]:
    """Give the table: for each of ``size`` slots an index into ``sorted(names)``; ``()`` if there are no names.

    ``size`` must be prime and should be at least 100 times the number of names (the paper uses 65537 and 655373). The result depends on the
    set of names alone, not on their order. Raises ValueError for a size that is not prime or too small, and for a name given twice.
    """
    ordered = sorted(names)
    if len(set(ordered)) != len(ordered):
        raise ValueError("a name is given twice")
    if not _is_prime(size):
        raise ValueError(f"the size of the table must be prime, got {size}")
    if len(ordered) > size:
        raise ValueError(f"{len(ordered)} names do not fit a table of {size} slots")
    if not ordered:
        return ()
    count = len(ordered)
    table = [-1] * size
    nexts: list[int] = []
    skips: list[int] = []
    for name in ordered:
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        nexts.append(int.from_bytes(digest[:8], "big") % size)
        skips.append(int.from_bytes(digest[8:], "big") % (size - 1) + 1 if size > 2 else 1)
    for turn in range(size):
        index = turn % count
        slot, skip = nexts[index], skips[index]
        while table[slot] >= 0:
            slot += skip
            if slot >= size:
                slot -= size
        table[slot] = index
        slot += skip
        nexts[index] = slot - size if slot >= size else slot
    return tuple(table)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
