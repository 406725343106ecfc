"""Changes in nft's words: how a transaction, and the one change in it that was refused, is shown to a person.

Source: nft(8), the commands ``add``, ``delete`` and ``flush``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from podwire.nft import dump
from podwire.nft.changes import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    Change,
    DeleteChain,
    DeleteElements,
    DeleteRule,
    DeleteSet,
    DeleteTable,
    FlushChain,
    FlushSet,
)
from podwire.nft.model import Element, Set, TableName
from podwire.nft.printing import render_element, render_priority, render_rule
from podwire.wire import netlink

_SHOWN: Final = 3  # elements


def render_change(change: Change, element: Element | None = None) -> str:
    """Print a change as the nft command that would make it. ``element`` is the one meant, of a change of many."""
    match change:
        case AddTable(table):
            return f"add table {_of(table)}"
        case DeleteTable(table):
            return f"delete table {_of(table)}"
        case AddChain(table, chain):
            base = ""
            if chain.hook:
                priority = render_priority(chain.priority, chain.hook)
                base = f" {{ type {chain.type} hook {chain.hook} priority {priority}; policy {chain.policy}; }}"
            return f"add chain {_of(table)} {chain.name}{base}"
        case DeleteChain(table, name):
            return f"delete chain {_of(table)} {name}"
        case FlushChain(table, name):
            return f"flush chain {_of(table)} {name}"
        case AddRule(table, name, rule):
            return f"add rule {_of(table)} {name} {render_rule(rule, table[0])}"
        case DeleteRule(table, name, handle):
            return f"delete rule {_of(table)} {name} handle {handle}"
        case AddSet(table, one):
            return f"add {_kind(one)} {_of(table)} {one.name}"
        case DeleteSet(table, name):
            return f"delete set {_of(table)} {name}"
        case FlushSet(table, name):
            return f"flush set {_of(table)} {name}"
        case AddElements(table, one, elements):
            return f"add element {_of(table)} {one.name} {_elements(one, elements, element)}"
        case DeleteElements(table, one, elements):
            return f"delete element {_of(table)} {one.name} {_elements(one, elements, element)}"


def _of(table: TableName) -> str:
    return " ".join(table)


def _kind(one: Set) -> str:
    return "map" if one.is_map else "set"


def _elements(one: Set, elements: Sequence[Element], meant: Element | None) -> str:
    shown = [meant] if meant is not None else list(elements[:_SHOWN])
    more = len(elements) - len(shown)
    return f"{{ {', '.join(render_element(one, element) for element in shown)} }}" + (f" (and {more} more)" if more > 0 else "")


def element_at(change: Change, message: bytes, offset: int) -> Element | None:
    """Find the element that the kernel's hint points to: the attribute at ``offset`` of the message that was sent for the change."""
    if not isinstance(change, AddElements | DeleteElements) or offset + 4 > len(message):
        return None
    size, _ = netlink.ATTRIBUTE.unpack_from(message, offset)
    try:
        return dump.element(message[offset + 4 : offset + size], change.set)
    except (KeyError, ValueError):
        return None
