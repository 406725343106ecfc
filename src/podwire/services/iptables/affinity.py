"""Clients that keep to an endpoint (session affinity) keep to it over a change of mode.

What belongs here: who is kept to which endpoint, read from the rules of one dialect and told to those of the other, while both are there.
What must not: making or removing rules.

How it works: a Service port is known to both by the addresses that lead to it, an endpoint by its address and port. In nftables' words a
client is in the map ``affinity``, by what the ids of its port have in common, with the handle of its endpoint; in iptables' words it is in
the list of the endpoint's chain (xt_recent), which has the chain's name. A client that is in several lists is kept where it was seen last.
How long it is until one is forgotten begins anew, since the kernel tells it of neither in seconds.

What goes wrong here costs nothing but that clients choose anew. So it is with all of them where lists may not be written: they are files of
the machine's own root.

Source: iptables-extensions(8), recent: /proc/net/xt_recent/NAME; kernel: net/netfilter/xt_recent.c.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, TypeVar

from podwire import nft
from podwire.linux import namespaces
from podwire.linux.errors import KernelRefused
from podwire.linux.nftables import Nftables
from podwire.nft.datatypes import HOST
from podwire.nft.model import Element, Verdict
from podwire.nft.rows import packed
from podwire.services.elements import PORT_KEY, PROTOCOLS, mark, unpack_marks
from podwire.services.iptables.rules import NAT, Chain, Claim, Lines
from podwire.services.iptables.tables import IptablesTables
from podwire.services.layout import IPV4, IPV6, SPARE, TABLE, Family, affinity_of
from podwire.services.numbers import FIRST, STEP

T = TypeVar("T")
Socket = tuple[str, int]
Lists = Mapping[str, Mapping[str, int]]  # by name, when each client was last seen
_LISTS = Path("/proc/thread-self/net/xt_recent")
_BATCH = 1000
_READ = {"affinity", "how", "frontends", "backends"}
_LEADING = re.compile(r"-d (\S+)/\d+ -p (\w+) .*--dport (\d+) -j KUBE-(?:SVC|SVL|EXT|FW)-(\S+)")
_CHOOSING = re.compile(r"KUBE-(?:SVC|SVL)-(\S+)")
_SEEN = re.compile(r"^src=(\S+) .*last_seen: (\d+)", re.MULTILINE)
_PROTOCOL_NAMES = {number: name.lower() for name, number in PROTOCOLS.items()}


class Kept(NamedTuple):
    """A client, the addresses of the Service port that it used, and the endpoint that it is kept to."""

    client: str
    port: frozenset[Claim]
    endpoint: Socket


class Chains:
    """What is kept in iptables' words. ``have`` are the lines of the chains."""

    def __init__(self, have: Mapping[Chain, Lines]) -> None:
        self._claims: defaultdict[str, set[Claim]] = defaultdict(set)  # by what the names of a port's chains end in
        self._lists: defaultdict[str, dict[Socket, str]] = defaultdict(dict)
        for line in have.get((NAT, "KUBE-SERVICES"), ()):
            if found := _LEADING.fullmatch(line):
                address, protocol, port, name = found.groups()
                self._claims[name].add((address, protocol, int(port)))
        for (table, chain), lines in have.items():
            if table == NAT and (choosing := _CHOOSING.fullmatch(chain)):
                for line in lines:
                    endpoint, name = _endpoint(have.get((NAT, line.rpartition(" ")[2]), ()))
                    if name:
                        self._lists[choosing[1]][endpoint] = name

    @property
    def lists(self) -> list[str]:
        """The names of all lists."""
        return [name for by_endpoint in self._lists.values() for name in by_endpoint.values()]

    def kept(self, lists: Lists) -> Iterator[Kept]:
        """Give who is kept where."""
        for port, by_endpoint in self._lists.items():
            last: dict[str, tuple[int, Socket]] = {}
            for endpoint, name in by_endpoint.items():
                for client, seen in lists.get(name, {}).items():
                    last[client] = max(last.get(client, (-1, endpoint)), (seen, endpoint))
            claims = frozenset(self._claims.get(port, ()))
            yield from (Kept(client, claims, endpoint) for client, (_, endpoint) in last.items())

    def entries(self, kept: Iterable[Kept]) -> Iterator[tuple[str, str]]:
        """Give the lists that clients go into."""
        ports = {claim: port for port, claims in self._claims.items() for claim in claims}
        for client, claims, endpoint in kept:
            port = next((ports[claim] for claim in claims if claim in ports), "")
            name = self._lists[port].get(endpoint) if port in self._lists else None
            if name is not None:
                yield name, client


def _endpoint(lines: Lines) -> tuple[Socket, str]:
    """Read the chain of an endpoint: where it translates to, and the name of its list, "" if it has none."""
    for line in lines:
        words = line.split()
        if words[-2:-1] == ["--to-destination"] and "recent" in words:
            address, _, port = words[-1].rpartition(":")
            return (address.strip("[]"), int(port)), words[words.index("--name") + 1]
    return ("", 0), ""


class Table:
    """What is kept in nftables' words. ``have`` is the table, as it was read."""

    def __init__(self, family: Family, have: nft.Table) -> None:
        self._length, self._affinity = family.length, have.set("affinity").elements
        self._claims: defaultdict[int, set[Claim]] = defaultdict(set)
        self._endpoints: defaultdict[int, dict[int, Socket]] = defaultdict(dict)
        self._seconds: dict[int, int] = {}
        for key, element in have.set("how").elements.items():
            found = affinity_of(element.value.chain) if isinstance(element.value, Verdict) else None
            if found is not None:
                self._seconds[_port(key)] = found[0]
        if not self._seconds:  # nobody is kept
            return
        for key, value in _rows(have, "frontends"):
            if (port := _port(value)) in self._seconds:
                protocol, number = PORT_KEY.unpack(key[self._length :])
                self._claims[port].add((self._address(key), _PROTOCOL_NAMES[protocol], number))
        for key, value in _rows(have, "backends"):
            port, handle = unpack_marks(key)
            if handle >= FIRST:
                number = int.from_bytes(value[self._length : self._length + 2], "big")
                self._endpoints[port & -STEP][handle] = self._address(value), number

    def _address(self, data: bytes) -> str:
        return str(ip_address(data[: self._length]))

    def kept(self) -> Iterator[Kept]:
        """Give who is kept where."""
        for key, element in self._affinity.items():
            port = _port(key[self._length :])
            handle = int.from_bytes(element.value, HOST) if isinstance(element.value, bytes) else 0
            endpoint = self._endpoints.get(port, {}).get(handle)
            if endpoint is not None:
                yield Kept(self._address(key), frozenset(self._claims.get(port, ())), endpoint)

    def elements(self, kept: Iterable[Kept]) -> Iterator[Element]:
        """Give the elements of ``affinity`` that clients become, but for those whom it knows already."""
        ports = {claim: port for port, claims in self._claims.items() for claim in claims}
        handles = {port: {endpoint: handle for handle, endpoint in by_handle.items()} for port, by_handle in self._endpoints.items()}
        for client, claims, endpoint in kept:
            port = next((ports[claim] for claim in claims if claim in ports), 0)
            handle, key = handles.get(port, {}).get(endpoint), ip_address(client).packed + mark(port)
            if handle is not None and key not in self._affinity:
                yield Element(key, mark(handle), timeout_ms=1000 * self._seconds[port])


def _rows(have: nft.Table, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Give keys and values of a map that may be very big."""
    held = packed(have.set(name))
    return ((key, held.form.value(row)) for key, row in held.by_key.items())


def _port(number: bytes) -> int:
    """Give what the ids of a port have in common."""
    return int.from_bytes(number, HOST) & -STEP


def carry_over(mode: str, namespace: int | None = None) -> None:
    """Tell the rules of a mode who is kept where by those of the other, if both are there."""
    with Nftables(namespace) as kernel, contextlib.suppress(KernelRefused, OSError, nft.Unreadable):  # iptables may be missing, too
        there = kernel.names()
        for family in (IPV4, IPV6):
            names = [(family.name, name) for name in (TABLE, SPARE) if (family.name, name) in there]
            if not names or (family.name, NAT) not in there:
                continue
            with contextlib.closing(IptablesTables(family, "", (), (), namespace)) as rules:
                chains = Chains(rules.dump(kernel))
            lists = chains.lists
            kept = list(chains.kept(_inside(namespace, partial(_read, lists)))) if lists and mode == "nftables" else []
            if not (kept if mode == "nftables" else lists):
                continue
            for have in kernel.dump(names).tables:
                if not any(chain.hook for chain in have.chains) or not {one.name for one in have.sets} >= _READ:
                    continue  # it was not finished, or is not as we make them
                table = Table(family, have)
                if mode == "nftables":
                    _add(kernel, have, list(table.elements(kept)))
                else:
                    _inside(namespace, partial(_write, list(chains.entries(table.kept()))))


def _add(kernel: Nftables, table: nft.Table, elements: list[Element]) -> None:
    for start in range(0, len(elements), _BATCH):
        kernel.apply([nft.AddElements(table.id, table.set("affinity"), elements[start : start + _BATCH])])


def _inside(namespace: int | None, action: Callable[[], T]) -> T:
    return action() if namespace is None else namespaces.inside(namespace, action)


def _read(names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Read the lists that there are."""
    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = {
                str(ip_address(client)): int(seen) for client, seen in _SEEN.findall((_LISTS / name).read_text(encoding="ascii"))
            }
    return found


def _write(entries: Iterable[tuple[str, str]]) -> None:
    """Put clients into lists, which take one at a time."""
    for name, client in entries:
        (_LISTS / name).write_text(f"+{client}\n", encoding="ascii")
