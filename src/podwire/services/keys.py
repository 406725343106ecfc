"""Which keys the big map has, told from the small ones: so a kernel is asked for its elements instead of listing them.

What belongs here: from maps that were read, the keys of another. What must not: reading, and what the elements mean (adoption.py).

``backends`` has an element for each slot of each id, as many as ``sizes`` says, and under session affinity one for each handle of an id.
It is a guess that the kernel's count and every answer confirm: what is kept back for packets under way is not among them.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Final

from podwire.nft import Set
from podwire.nft.lookup import Keyed
from podwire.nft.rows import form, packed
from podwire.services.elements import mark

CEILING: Final = mark(0)  # in ``sizes`` no id's, but the number below which all were given
_SLOTS: Final = tuple(mark(slot) for slot in range(256))


def backend_keys(sets: Mapping[str, Set]) -> list[bytes] | None:
    """Give the keys of ``backends``; None if the maps are not as this program makes them, or say more than it would hold."""
    if not {"backends", "sizes", "handles"} <= sets.keys():
        return None
    sizes, handles, most = _values(sets["sizes"], 4), _values(sets["handles"], 8), sets["backends"].size
    if sizes is None or handles is None:
        return None
    # In the order in which ids were given: so are Services compared with them later, and what lies together is read together.
    ids = sorted(zip(_numbers(sizes), sizes, _numbers(sizes.values()), strict=True))
    if sum(count for number, _, count in ids if number) > most:
        return None
    keys: list[bytes] = []
    for number, packed_, count in ids:
        if number:  # 0 is the ceiling
            keys.extend(map(packed_.__add__, _SLOTS[:count] if count <= len(_SLOTS) else map(mark, range(count))))
    return keys + [key[:4] + handle for key, handle in handles.items()]


def _numbers(marks: Collection[bytes]) -> tuple[int, ...]:
    return struct.unpack(f"={len(marks)}I", b"".join(marks))


def _values(one: Set, size: int) -> dict[bytes, bytes] | None:
    """Give what a map has for each of its keys, if these have so many bytes and it has marks."""
    if one.flags or form(one).sizes != (size, 4):
        return None
    held = packed(one)
    value = held.form.value
    return {key: value(row) for key, row in held.by_key.items()}


KEYED: Final[Keyed] = {"backends": backend_keys}
