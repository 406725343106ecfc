"""Capture filters: a part of the language of pcap-filter(7), compiled to classic BPF.

    expression = term {"or" term};  term = factor {"and" factor};  factor = ["not"] (primitive | "(" expression ")")
    primitive  = [ip | ip6 | tcp | udp | icmp | icmp6 | sctp | arp] [[src | dst] (host ADDRESS | net RANGE | port N | portrange A-B)]

The program sees packets from their network header on (a packet socket of type SOCK_DGRAM), so one program serves every kind of
interface; the Ethernet type comes from the kernel's ancillary data. Extension headers of IPv6 are not followed, as in libpcap.

Sources: pcap-filter(7); Documentation/networking/filter.rst of the Linux kernel.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

ACCEPT = 262_144

# Opcodes (include/uapi/linux/bpf_common.h).
_LD_W, _LD_H, _LD_B = 0x20, 0x28, 0x30
_LD_H_X, _LDX_MSH = 0x48, 0xB1
_AND, _JA, _JEQ, _JGE, _JSET, _RET = 0x54, 0x05, 0x15, 0x35, 0x45, 0x06
_ETHERTYPE = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806

_TRANSPORTS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmp6": 58}
_NETWORKS = {"ip": _IPV4, "ip6": _IPV6, "arp": _ARP}
_WITH_PORTS = (6, 17, 132)
_KINDS = ("host", "net", "port", "portrange")


class BadFilter(ValueError):
    """A filter that is not understood. The text names the word and what was expected."""


# The expression ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """The Ethernet type is this one."""

    ethertype: int


@dataclass(frozen=True)
class Transport:
    """The protocol above IP is this one."""

    protocol: int


@dataclass(frozen=True)
class Within:
    """The source or destination address lies in the range; ``way`` is src, dst or "" for either."""

    way: str
    network: IPv4Network | IPv6Network


@dataclass(frozen=True)
class Ports:
    """The source or destination port lies in the range."""

    way: str
    first: int
    last: int
    protocols: tuple[int, ...] = _WITH_PORTS


@dataclass(frozen=True)
class Not:
    inner: Expression


@dataclass(frozen=True)
class Both:
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Either:
    left: Expression
    right: Expression


Expression = Network | Transport | Within | Ports | Not | Both | Either


def parse(text: str) -> Expression | None:
    """Read a filter; None for an empty one, which passes everything. Raises BadFilter."""
    words = re.findall(r"[()!]|&&|\|\||[^\s()!&|]+", text)
    if not words:
        return None
    reader = _Reader(words)
    expression = reader.expression()
    if reader.word:
        raise BadFilter(f"filter: unexpected {reader.word!r} after a whole expression: expected and, or, or the end")
    return expression


class _Reader:
    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._at = 0

    @property
    def word(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def take(self) -> str:
        word = self.word
        self._at += 1
        return word

    def expression(self) -> Expression:
        left = self.term()
        while self.word in {"or", "||"}:
            self.take()
            left = Either(left, self.term())
        return left

    def term(self) -> Expression:
        left = self.factor()
        while self.word in {"and", "&&"}:
            self.take()
            left = Both(left, self.factor())
        return left

    def factor(self) -> Expression:
        if self.word in {"not", "!"}:
            self.take()
            return Not(self.factor())
        if self.word == "(":
            self.take()
            inner = self.expression()
            if self.take() != ")":
                raise BadFilter("filter: a ( without its )")
            return inner
        return self.primitive()

    def primitive(self) -> Expression:
        protocol = self.take() if self.word in _TRANSPORTS or self.word in _NETWORKS else ""
        way = self.take() if self.word in {"src", "dst"} else ""
        kind = self.take() if self.word in _KINDS else ""
        if not kind:
            if not protocol and not way:
                found = repr(self.word) if self.word else "the end"
                known = ", ".join((*_NETWORKS, *_TRANSPORTS, "src", "dst", *_KINDS, "not", "("))
                raise BadFilter(f"filter: unexpected {found}: expected one of {known}")
            if way:
                raise BadFilter(f"filter: {way} must be followed by {', '.join(_KINDS)}, got {self.word or 'the end'!r}")
            return _protocol(protocol)
        if not self.word:
            raise BadFilter(f"filter: {kind} must be followed by a value")
        return self.qualified(protocol, way, kind, self.take())

    def qualified(self, protocol: str, way: str, kind: str, value: str) -> Expression:
        if kind in {"host", "net"}:
            try:
                network = ip_network(value)
            except ValueError:
                what = "an address such as 10.4.0.2" if kind == "host" else "a range such as 10.4.0.0/24"
                raise BadFilter(f"filter: {kind} {value!r}: expected {what}") from None
            if kind == "host" and network.num_addresses != 1:
                raise BadFilter(f"filter: host {value!r}: expected an address; for a range say net")
            within = Within(way, network)
            return Both(_protocol(protocol), within) if protocol else within
        first, dash, last = value.partition("-")
        bounds = [first, last] if dash else [first, first]
        if (kind == "portrange") != bool(dash) or not all(bound.isdecimal() and int(bound) <= 65535 for bound in bounds):
            what = "two ports such as 8000-8080" if kind == "portrange" else "a number from 0 to 65535"
            raise BadFilter(f"filter: {kind} {value!r}: expected {what}")
        low, high = int(bounds[0]), int(bounds[1])
        if low > high:
            raise BadFilter(f"filter: {kind} {value!r}: the first port is the greater one")
        if protocol in _NETWORKS:
            return Both(_protocol(protocol), Ports(way, low, high))
        if protocol and _TRANSPORTS[protocol] not in _WITH_PORTS:
            raise BadFilter(f"filter: {protocol} has no ports")
        return Ports(way, low, high, (_TRANSPORTS[protocol],) if protocol else _WITH_PORTS)


def _protocol(word: str) -> Expression:
    return Network(_NETWORKS[word]) if word in _NETWORKS else Transport(_TRANSPORTS[word])


# The program ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instruction:
    """One instruction of classic BPF: struct sock_filter."""

    code: int
    when_true: int
    when_false: int
    value: int


def assemble(program: Sequence[Instruction]) -> bytes:
    """Give the program as SO_ATTACH_FILTER takes it (struct sock_filter, one after the other)."""
    return b"".join(struct.pack("=HBBI", one.code, one.when_true, one.when_false, one.value) for one in program)


def compile_filter(text: str) -> tuple[Instruction, ...]:
    """Compile a filter. Raises BadFilter, also for one of more than 4,096 instructions (the kernel's limit)."""
    expression = parse(text)
    writer = _Writer()
    if expression is not None:
        writer.emit(expression, "accept", "refuse")
    program = writer.finish()
    if len(program) > 4096:
        raise BadFilter(f"filter: {len(program)} instructions, the kernel takes 4096: shorten it")
    return program


class _Writer:
    """Code with names for places. A test jumps over at most two unconditional jumps, which reach any distance."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str]] = []
        self._places: dict[str, int] = {}
        self._names = 0

    def finish(self) -> tuple[Instruction, ...]:
        self.mark("accept")
        self.add(_RET, ACCEPT)
        self.mark("refuse")
        self.add(_RET, 0)
        program = []
        for at, (code, yes, no, value) in enumerate(self._code):
            number = self._places[value] - at - 1 if isinstance(value, str) else value
            program.append(Instruction(code, yes, no, number))
        return tuple(program)

    def name(self) -> str:
        self._names += 1
        return f"place-{self._names}"

    def mark(self, name: str) -> None:
        self._places[name] = len(self._code)

    def add(self, code: int, value: int) -> None:
        self._code.append((code, 0, 0, value))

    def test(self, code: int, value: int, yes: str, no: str) -> None:
        self._code.append((code, 0, 1, value))
        self._code.append((_JA, 0, 0, yes))
        self._code.append((_JA, 0, 0, no))

    def emit(self, expression: Expression, yes: str, no: str) -> None:
        match expression:
            case Not(inner):
                self.emit(inner, no, yes)
            case Both(left, right):
                middle = self.name()
                self.emit(left, middle, no)
                self.mark(middle)
                self.emit(right, yes, no)
            case Either(left, right):
                middle = self.name()
                self.emit(left, yes, middle)
                self.mark(middle)
                self.emit(right, yes, no)
            case Network(ethertype):
                self.add(_LD_H, _ETHERTYPE)
                self.test(_JEQ, ethertype, yes, no)
            case Transport(protocol):
                self._transport(protocol, yes, no)
            case Within():
                self._within(expression, yes, no)
            case Ports():
                self._ports(expression, yes, no)

    def _when(self, ethertype: int, otherwise: str) -> None:
        """Go on only with this Ethernet type."""
        here = self.name()
        self.add(_LD_H, _ETHERTYPE)
        self.test(_JEQ, ethertype, here, otherwise)
        self.mark(here)

    def _transport(self, protocol: int, yes: str, no: str) -> None:
        if protocol != 58:
            six = no if protocol == 1 else self.name()
            self._when(_IPV4, six)
            self.add(_LD_B, 9)
            self.test(_JEQ, protocol, yes, no)
            if protocol == 1:
                return
            self.mark(six)
        self._when(_IPV6, no)
        self.add(_LD_B, 6)
        self.test(_JEQ, protocol, yes, no)

    def _within(self, within: Within, yes: str, no: str) -> None:
        network = within.network
        self._when(_IPV4 if network.version == 4 else _IPV6, no)
        starts = {4: {"src": 12, "dst": 16}, 6: {"src": 8, "dst": 24}}[network.version]
        ways = (within.way,) if within.way else ("src", "dst")
        for way in ways:
            other = no if way == ways[-1] else self.name()
            self._address(starts[way], network, yes, other)
            if other != no:
                self.mark(other)

    def _address(self, start: int, network: IPv4Network | IPv6Network, yes: str, no: str) -> None:
        mask, wanted = network.netmask.packed, network.network_address.packed
        words = [
            (start + at, int.from_bytes(mask[at : at + 4], "big"), int.from_bytes(wanted[at : at + 4], "big"))
            for at in range(0, len(mask), 4)
            if any(mask[at : at + 4])
        ]
        if not words:
            self._code.append((_JA, 0, 0, yes))
        for place, bits, value in words:
            following = yes if place == words[-1][0] else self.name()
            self.add(_LD_W, place)
            if bits != 0xFFFFFFFF:
                self.add(_AND, bits)
            self.test(_JEQ, value, following, no)
            if following != yes:
                self.mark(following)

    def _ports(self, ports: Ports, yes: str, no: str) -> None:
        six, four = self.name(), self.name()
        self._when(_IPV4, six)
        self._one_of(9, ports.protocols, four, no)
        self.mark(four)
        first_fragment = self.name()
        self.add(_LD_H, 6)
        self.test(_JSET, 0x1FFF, no, first_fragment)
        self.mark(first_fragment)
        self.add(_LDX_MSH, 0)
        self._port_numbers(ports, _LD_H_X, 0, yes, no)
        self.mark(six)
        self._when(_IPV6, no)
        found = self.name()
        self._one_of(6, ports.protocols, found, no)
        self.mark(found)
        self._port_numbers(ports, _LD_H, 40, yes, no)

    def _one_of(self, place: int, values: Sequence[int], yes: str, no: str) -> None:
        self.add(_LD_B, place)
        for value in values:
            other = no if value == values[-1] else self.name()
            self.test(_JEQ, value, yes, other)
            if other != no:
                self.mark(other)

    def _port_numbers(self, ports: Ports, load: int, start: int, yes: str, no: str) -> None:
        ways = (ports.way,) if ports.way else ("src", "dst")
        for way in ways:
            other = no if way == ways[-1] else self.name()
            self.add(load, start + (0 if way == "src" else 2))
            if ports.first == ports.last:
                self.test(_JEQ, ports.first, yes, other)
            else:
                enough = self.name()
                self.test(_JGE, ports.first, enough, other)
                self.mark(enough)
                self.test(_JGE, ports.last + 1, other, yes)
            if other != no:
                self.mark(other)
