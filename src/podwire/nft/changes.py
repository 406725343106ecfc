"""Changes: what one transaction may do, in this order. Each is a value, to be compared, printed (commands.py) and sent (bytecode.py).

Source: linux/netfilter/nf_tables.h, enum nf_tables_msg_types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from podwire.nft.model import Chain, Element, Rule, Set, TableName


class AddTable(msgspec.Struct, frozen=True):
    """Make the table if it is not there, and wake one that is dormant.

    Its sets and chains are not made with it (``difference`` writes all that out).
    """

    table: TableName
    comment: str = ""


class DeleteTable(msgspec.Struct, frozen=True):
    """Remove a table with everything in it. Refused with ENOENT when it is not there."""

    table: TableName


class AddChain(msgspec.Struct, frozen=True):
    """Make the chain if it is not there, without its rules; of a base chain that is there, set the policy."""

    table: TableName
    chain: Chain


class DeleteChain(msgspec.Struct, frozen=True):
    """Remove a chain with its rules. Refused with EBUSY while something jumps to it."""

    table: TableName
    name: str


class FlushChain(msgspec.Struct, frozen=True):
    """Remove all rules of a chain."""

    table: TableName
    name: str


class AddRule(msgspec.Struct, frozen=True):
    """Append a rule to a chain."""

    table: TableName
    chain: str
    rule: Rule


class DeleteRule(msgspec.Struct, frozen=True):
    """Remove one rule by the handle that a dump gave."""

    table: TableName
    chain: str
    handle: int


class AddSet(msgspec.Struct, frozen=True):
    """Make the set or map if it is not there, without its elements."""

    table: TableName
    set: Set


class DeleteSet(msgspec.Struct, frozen=True):
    """Remove a set or map with its elements. Refused with EBUSY while a rule reads it."""

    table: TableName
    name: str


class FlushSet(msgspec.Struct, frozen=True):
    """Remove all elements of a set or map."""

    table: TableName
    name: str


class AddElements(msgspec.Struct, frozen=True):
    """Add elements. One that is there with the same value is left; with another value the transaction is refused with EEXIST.

    To replace a value, delete the element before, in the same transaction.
    """

    table: TableName
    set: Set
    elements: Sequence[Element]


class DeleteElements(msgspec.Struct, frozen=True):
    """Remove elements by their keys. Refused with ENOENT when one is not there."""

    table: TableName
    set: Set
    elements: Sequence[Element]


Change: TypeAlias = (
    AddTable
    | DeleteTable
    | AddChain
    | DeleteChain
    | FlushChain
    | AddRule
    | DeleteRule
    | AddSet
    | DeleteSet
    | FlushSet
    | AddElements
    | DeleteElements
)
