"""nftables as values: tables with their chains, rules, sets and maps, and the changes that may be made to them.

Everything here is frozen and compares by value, so that ``have == want`` is the question whether the kernel is right. Nothing here
knows of text (text.py, language.py), of bytes on a socket (bytecode.py) or of order (difference.py).

Values in keys and elements are the bytes that the kernel keeps (datatypes.py says how), because tables of 100,000 elements
are compared, sent and listed as such; ``Set.key`` and ``Set.element`` make them from plain Python values, and a part of the
system that is in a hurry packs them with a ``struct.Struct`` of its own (``Set.layout`` says which fields at which offsets).

A rule is most readable in nft's own language, so that is how rules are written elsewhere in this project:
``rule("ct mark set ip daddr . meta l4proto . th dport map @frontends goto service")``. The classes below are what that line means.

Source: nft(8); the kernel's include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import msgspec

from podwire.nft import datatypes
from podwire.nft.datatypes import DataType

TableName: TypeAlias = tuple[str, str]  # family (ip, ip6, inet, bridge, netdev), name


# Expressions: where a value comes from -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Payload:
    """A field of the packet: ``ip daddr``, ``th dport`` (the port, whatever the transport), ``tcp flags``."""

    protocol: str
    field: str


@dataclass(frozen=True, slots=True)
class Meta:
    """What the kernel knows beside the packet: ``mark``, ``l4proto``, ``iifname``, ..."""

    key: str


@dataclass(frozen=True, slots=True)
class Ct:
    """What connection tracking knows: ``mark``, ``state``, ``status``, or of one direction ``original ip daddr``, ``reply proto-dst``."""

    key: str
    direction: str = ""


@dataclass(frozen=True, slots=True)
class Fib:
    """A routing look-up: ``fib daddr . iif type``. ``inputs`` of saddr, daddr, mark, iif, oif; ``result`` is type, oif or oifname."""

    inputs: tuple[str, ...]
    result: str


@dataclass(frozen=True, slots=True)
class Numgen:
    """``numgen random mod 3``: a number from 0 to below ``modulus``, plus ``offset``."""

    mode: str
    modulus: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Hash:
    """``jhash ip saddr . th sport mod 7 seed 0x1``; with no source it is ``symhash mod 7``."""

    source: Expression | None
    modulus: int
    seed: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Concatenation:
    """``a . b . c``: the key of a look-up in several fields."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Masked:
    """``left & mask ^ xor`` with constant operands: every constant bit operation comes down to this (``| x`` is ``& ~x ^ x``)."""

    source: Expression
    mask: bytes
    xor: bytes


@dataclass(frozen=True, slots=True)
class Constant:
    """A value of a type: ``10.0.0.1``, ``tcp``, ``0x00000007``. ``data`` is unpadded."""

    type: DataType
    data: bytes


@dataclass(frozen=True, slots=True)
class Prefix:
    """``10.4.0.0/14``."""

    type: DataType
    data: bytes
    bits: int


@dataclass(frozen=True, slots=True)
class Range:
    """``30000-32767``, both ends included."""

    type: DataType
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class Reference:
    """``@name``: a set or map of the same table."""

    name: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """``key map @name`` or ``key map { ... }``: the value that a map holds for a key. Without an entry the rule does not match."""

    key: Expression
    map: Reference | Set


Expression: TypeAlias = Payload | Meta | Ct | Fib | Numgen | Hash | Concatenation | Masked | Constant | Prefix | Range | Reference | Lookup


# Statements: what a rule asks and does ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """``left right``, ``left != right``, ``left < right``; ``ct status ! dnat`` has the operator ``!`` (none of these bits)."""

    left: Expression
    right: Expression | Set
    operator: str = "=="


@dataclass(frozen=True, slots=True)
class Verdict:
    """``accept``, ``drop``, ``continue``, ``return``, ``jump chain``, ``goto chain``: a statement, and the value in a verdict map."""

    kind: str
    chain: str = ""


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """``key vmap @name``: do what the map holds for the key; without an entry the rule does not match."""

    key: Expression
    map: Reference | Set


@dataclass(frozen=True, slots=True)
class Assign:
    """``meta mark set value``, ``ct mark set value``."""

    target: Meta | Ct
    value: Expression


@dataclass(frozen=True, slots=True)
class Counter:
    """``counter``. Its figures are state, not meaning: they do not take part in comparisons."""

    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Nat:
    """``dnat ip to address:port``, ``snat ip to address``.

    ``with_port`` says that the address expression yields ``address . port`` (a map with such values); nft's text does not show it, the
    map's type does. ``family`` is ip or ip6.
    """

    kind: str
    family: str
    address: Expression | None
    port: Expression | None = None
    with_port: bool = False
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Masquerade:
    """``masquerade fully-random``, and ``redirect to :port`` (``kind`` "redirect")."""

    kind: str = "masquerade"
    port: Expression | None = None
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reject:
    """``reject``, ``reject with tcp reset``, ``reject with icmp host-unreachable``. ``how`` is "", tcp reset, icmp, icmpv6 or icmpx."""

    how: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """``log prefix "..." group 3``: ``group`` None means the kernel's own log."""

    prefix: str = ""
    group: int | None = None
    snaplen: int = 0
    queue_threshold: int = 0
    level: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """``limit rate over 10/second burst 5 packets``; ``unit`` second, minute, hour, day; ``kind`` packets or bytes."""

    rate: int
    unit: str
    burst: int = 5
    over: bool = False
    kind: str = "packets"


@dataclass(frozen=True, slots=True)
class Update:
    """``update @set { key timeout 3600s : value }``, ``add``, ``delete``: packets change a set. ``timeout_ms`` 0: the set's own."""

    operation: str
    set: str
    key: Expression
    value: Expression | None = None
    timeout_ms: int = 0
    statements: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Notrack:
    """``notrack``: connection tracking passes over this packet."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A statement that somebody else put there and this package cannot read. Equal to nothing that is wanted, so it is replaced."""

    name: str


Statement: TypeAlias = (
    Match | Verdict | VerdictMap | Assign | Counter | Nat | Masquerade | Reject | Log | Limit | Update | Notrack | Unknown
)


def _held(e: object) -> Iterator[Reference | Set]:
    """The sets that an expression or statement reads."""
    match e:
        case Reference() | Set():
            yield e
        case Match(left, right):
            yield from (*_held(left), *_held(right))
        case VerdictMap(key, held) | Lookup(key, held):
            yield from (*_held(key), held)
        case Assign(_, value) | Masked(value) | Hash(value):
            yield from _held(value)
        case Nat(_, _, address, port):
            yield from (*_held(address), *_held(port))
        case Concatenation(parts):
            for part in parts:
                yield from _held(part)
        case Update(_, name, key, value):
            yield from (Reference(name), *_held(key), *_held(value))


def inline_sets(rule: Rule) -> tuple[Set, ...]:
    """The sets that are written inside a rule."""
    return tuple(one for statement in rule.statements for one in _held(statement) if isinstance(one, Set))


def named_sets(rule: Rule) -> frozenset[str]:
    """The names of the sets that a rule reads or changes."""
    return frozenset(one.name for statement in rule.statements for one in _held(statement) if isinstance(one, Reference))


# Objects ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """Statements from left to right. ``handle`` is the kernel's name for the rule, once it has one; comparisons pass over it."""

    statements: tuple[Statement, ...]
    comment: str = ""
    handle: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """A list of rules. With ``hook`` it is a base chain: the kernel itself calls it, lower ``priority`` first."""

    name: str
    rules: tuple[Rule, ...] = ()
    type: str = ""  # filter, nat, route
    hook: str = ""  # prerouting, input, forward, output, postrouting, ingress
    priority: int = 0
    policy: str = "accept"
    device: str = ""
    comment: str = ""

    def declaration(self) -> Chain:
        """Give the chain without its rules."""
        return replace(self, rules=())


class Element(msgspec.Struct, frozen=True, gc=False):
    """An element of a set or map.

    ``key`` and ``end`` are packed (Set.key); ``end`` is the last key of an interval, ``b""`` for a single key. ``value`` is packed
    too, a Verdict in a verdict map, None in a set. ``timeout_ms`` 0: the set's own, or none.
    """

    key: bytes
    value: bytes | Verdict | None = None
    end: bytes = b""
    comment: str = ""
    timeout_ms: int = 0


_NONE: Mapping[bytes, Element] = {}


@dataclass(frozen=True, slots=True)
class Set:
    """A set, or with ``value`` types a map. ``name`` "" for one that is written inside a rule.

    ``typeof_key`` and ``typeof_value`` keep a declaration by example (``typeof ct mark . meta mark``); it gives the same types
    another spelling.
    ``size`` is a wall: the kernel answers ENFILE beyond it. ``flags`` of interval, timeout, dynamic, constant.
    ``elements`` are by packed key. Changes of declarations (AddSet) pass over them.
    """

    name: str
    key_types: tuple[DataType, ...]
    value_types: tuple[DataType, ...] = ()
    flags: frozenset[str] = frozenset()
    size: int = 0
    timeout_ms: int = 0
    typeof_key: tuple[Expression, ...] = ()
    typeof_value: tuple[Expression, ...] = ()
    elements: Mapping[bytes, Element] = field(default_factory=lambda: _NONE, hash=False)
    comment: str = ""

    @property
    def is_map(self) -> bool:
        return bool(self.value_types)

    @property
    def is_verdict_map(self) -> bool:
        return bool(self.value_types) and self.value_types[0].kind == "verdict"

    @property
    def layout(self) -> str:
        """The key's fields and their padded lengths, for a reader who packs keys himself: ``ipv4_addr:4 inet_proto:4 inet_service:4``."""
        return " ".join(f"{kind.name}:{kind.padded}" for kind in self.key_types)

    def key(self, *values: object) -> bytes:
        """Pack a key from plain values: addresses (text, bytes, ipaddress), numbers, names as nft spells them. Raises Unreadable."""
        return datatypes.pack(self.key_types, values)

    def value(self, *values: object) -> bytes:
        """Pack a value of the map from plain values. Raises Unreadable."""
        return datatypes.pack(self.value_types, values)

    def element(
        self, key: Sequence[object], value: Sequence[object] | Verdict | None = None, *, comment: str = "", timeout_ms: int = 0
    ) -> Element:
        """Make an element from plain values. Raises Unreadable."""
        packed = value if isinstance(value, Verdict) else None if value is None else self.value(*value)
        return Element(self.key(*key), packed, comment=comment, timeout_ms=timeout_ms)

    def declaration(self) -> Set:
        """Give the set without its elements."""
        return replace(self, elements=_NONE) if self.elements else self

    def with_elements(self, elements: Iterable[Element]) -> Set:
        """Give the set with exactly these elements."""
        return replace(self, elements={element.key: element for element in elements})


@dataclass(frozen=True, slots=True)
class Table:
    """A table and all that is in it. Names of chains are unique in it, as are names of sets and maps.

    A ``dormant`` table meets no packet.
    """

    family: str
    name: str
    sets: tuple[Set, ...] = ()
    chains: tuple[Chain, ...] = ()
    comment: str = ""
    dormant: bool = False

    @property
    def id(self) -> TableName:
        return self.family, self.name

    def set(self, name: str) -> Set:
        """Find a set or map by name. Raises KeyError."""
        for one in self.sets:
            if one.name == name:
                return one
        raise KeyError(name)

    def chain(self, name: str) -> Chain:
        """Find a chain by name. Raises KeyError."""
        for one in self.chains:
            if one.name == name:
                return one
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Tables, in the order in which they are listed."""

    tables: tuple[Table, ...] = ()

    def table(self, family: str, name: str) -> Table:
        """Find a table. Raises KeyError."""
        for one in self.tables:
            if one.id == (family, name):
                return one
        raise KeyError(f"{family} {name}")
