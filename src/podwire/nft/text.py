"""The text of nftables: ``parse`` reads it, ``render`` prints it.

Reading accepts what ``nft -s list ruleset`` prints for the values of model.py, and the looser hand-written forms of it: several
statements on a line with ``;``, comments, ``3600s``, priorities and marks as numbers. Rules are written this way everywhere in the
project.

    LAYOUT = table('''table ip example {
        map frontends { type ipv4_addr . inet_proto . inet_service : mark; size 1024; }
        chain services { ct mark set ip daddr . meta l4proto . th dport map @frontends goto choose; }
    }''')

What it does not know it refuses, with the line (Unreadable).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from podwire.nft import datatypes, fields
from podwire.nft.language import Words, elements, expression, milliseconds
from podwire.nft.model import Chain, Concatenation, Expression, Rule, Ruleset, Set, Table
from podwire.nft.printing import render, render_element, render_rule, render_table
from podwire.nft.statements import Scope, read_rule

_PRIORITIES: Final = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_FAMILIES: Final = frozenset({"ip", "ip6", "inet"})


def parse(text: str) -> Ruleset:
    """Read a ruleset: tables one after the other. Raises Unreadable."""
    words = Words(text)
    tables = []
    words.skip_lines()
    while words.peek():
        tables.append(_table(words))
        words.skip_lines()
    return Ruleset(tuple(tables))


def table(text: str) -> Table:
    """Read one table. Raises Unreadable."""
    (one,) = parse(text).tables
    return one


def rule(text: str, *, family: str = "ip", sets: Mapping[str, Set] | None = None) -> Rule:
    """Read one rule.

    ``sets`` are those of its table; they are needed only where nft's text does not say what a map holds (``dnat to ... map
    @name`` with plain addresses). Without them ``dnat ip to ... map @name`` is taken to give address and port. Raises Unreadable.
    """
    words = Words(text)
    words.skip_lines()
    read = read_rule(words, Scope(family, sets))
    words.skip_lines()
    if words.peek():
        raise words.error("more than one rule")
    return read


def _table(words: Words) -> Table:
    words.expect("table")
    family = words.next()
    if family not in _FAMILIES:
        raise words.error(f"tables of the family {family} are not known here")
    name, comment, dormant = words.next(), "", False
    words.expect("{")
    sets: dict[str, Set] = {}
    chains: list[Chain] = []
    while not _closed(words):
        match words.next():
            case "set" | "map" as kind:
                one = _set(words, is_map=kind == "map")
                sets[one.name] = one
            case "chain":
                chains.append(_chain(words, family, sets))
            case "comment":
                comment = words.string()
            case "flags":
                words.expect("dormant")
                dormant = True
            case other:
                raise words.error(f"{other} in a table is not known here")
    return Table(family, name, tuple(sets.values()), tuple(chains), comment, dormant)


def _closed(words: Words) -> bool:
    while words.peek() in ("\n", ";"):
        words.next()
    if not words.peek():
        raise words.error("the text ends too early")
    return words.take("}")


def _chain(words: Words, family: str, sets: Mapping[str, Set]) -> Chain:
    name = words.next()
    words.expect("{")
    base: dict[str, object] = {}
    rules: list[Rule] = []
    while not _closed(words):
        if words.peek() == "comment":
            words.next()
            base["comment"] = words.string()
        elif words.take("type"):
            base |= _hook(words)
        elif words.take("policy"):
            base["policy"] = words.next()
        else:
            rules.append(read_rule(words, Scope(family, sets)))
    return Chain(name, tuple(rules), **base)  # type: ignore[arg-type]


def _hook(words: Words) -> dict[str, object]:
    base: dict[str, object] = {"type": words.next()}
    words.expect("hook")
    base["hook"] = words.next()
    if words.take("device"):
        base["device"] = words.string()
    words.expect("priority")
    word = words.next()
    if word in _PRIORITIES:
        sign = {"+": 1, "-": -1}.get(words.peek(), 0)
        base["priority"] = _PRIORITIES[word] + (sign * int(_second(words)) if sign else 0)
    else:
        base["priority"] = int(word)
    return base


def _second(words: Words) -> str:
    words.next()
    return words.next()


def _set(words: Words, *, is_map: bool) -> Set:
    name = words.next()
    words.expect("{")
    read: dict[str, object] = {}
    while not _closed(words):
        match words.next():
            case "type":
                read["key_types"] = _types(words)
                read["value_types"] = _types(words) if words.take(":") else ()
            case "typeof":
                read |= _by_example(words)
            case "flags":
                read["flags"] = _flags(words)
            case "size":
                read["size"] = words.number()
            case "timeout":
                read["timeout_ms"] = milliseconds(words.next())
            case "comment":
                read["comment"] = words.string()
            case "elements":
                words.expect("=")
                read["elements"] = elements(words, read["key_types"], read["value_types"])[0]  # type: ignore[arg-type]
            case other:
                raise words.error(f"{other} in a set is not known here")
    if "key_types" not in read or bool(read["value_types"]) != is_map:
        raise words.error(f"{'map' if is_map else 'set'} {name}: its type is missing or wrong")
    if read.get("timeout_ms"):
        read["flags"] = frozenset(read.get("flags", ())) | {"timeout"}  # type: ignore[call-overload]
    return Set(name, **read)  # type: ignore[arg-type]


def _flags(words: Words) -> frozenset[str]:
    flags = {words.next()}
    while words.take(","):
        flags.add(words.next())
    return frozenset(flags)


def _types(words: Words) -> tuple[datatypes.DataType, ...]:
    found = [datatypes.datatype(words.next())]
    while words.take("."):
        found.append(datatypes.datatype(words.next()))
    return tuple(found)


def _by_example(words: Words) -> dict[str, object]:
    key = _parts(expression(words))
    read: dict[str, object] = {"typeof_key": key, "key_types": _types_of(key), "value_types": ()}
    if words.take(":"):
        if words.peek() == "verdict":
            words.next()
            return read | {"value_types": (datatypes.datatype("verdict"),)}
        value = _parts(expression(words))
        read |= {"typeof_value": value, "value_types": _types_of(value)}
    return read


def _parts(read: Expression) -> tuple[Expression, ...]:
    return read.parts if isinstance(read, Concatenation) else (read,)


def _types_of(parts: tuple[Expression, ...]) -> tuple[datatypes.DataType, ...]:
    return tuple(kind for part in parts for kind in fields.types_of(part))


__all__ = ["parse", "render", "render_element", "render_rule", "render_table", "rule", "table"]
