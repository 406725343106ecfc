"""The rules of one family in the kernel of one node, through iptables-restore.

What belongs here: which chains differ from what the kernel acknowledged, in one text for iptables-restore; reading them back; jumps
from the built-in chains. What must not: the lines (rules.py), waiting, retrying: ``update`` either leaves the kernel as wanted, or
raises, and the next call begins with a repair.

A text names only the chains that change (``--noflush``), each with all of its lines. A chain that nobody leads to any more is emptied and
deleted in the same text, but for one that a rule of somebody else leads to. A packet passes nat in one look, so nothing of an endpoint
has to stay for packets under way.

For each table the text is one transaction where the program may make its socket as large as that needs, which takes the rights of the
machine's own root. Elsewhere (an ordinary user, and every cluster of the lab) a transaction has a few hundred lines, and a text is several:
first what is led to, then what leads. A long chain that changes gets its new lines before the old ones go, so it is whole at every moment.

Chains that another service proxy wrote have the same names and are taken over. What else begins with KUBE- is somebody else's.

The variant of iptables that writes nf_tables is used: it shares the number of transactions that tells of changes by others, and needs
no lock. Source: iptables-restore(8); https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-mode-iptables.
"""

from __future__ import annotations

import difflib
import errno
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from podwire.linux import namespaces
from podwire.linux.errors import KernelRefused
from podwire.linux.nftables import Nftables
from podwire.objects.discovery import EndpointSlice
from podwire.services.desired import ServiceProgram
from podwire.services.iptables.rules import FILTER, JUMPS, NAT, Chain, Lines, PortChains, Rules, depth, is_ours
from podwire.services.layout import Family

T = TypeVar("T")
STEP = 100
LIMIT_S = 30.0
SEARCHED = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h
_ORDER = (FILTER, NAT)
_TRANSLATING = ((NAT, "PREROUTING"), (NAT, "OUTPUT"))


class ProgramMissing(OSError):
    """iptables is not on this machine; the text says what to install."""


def program(family: Family, what: str) -> str:
    """Find ``iptables-nft-restore`` and its kin. Raises ProgramMissing."""
    name = f"{'iptables' if family.number == 4 else 'ip6tables'}-nft-{what}"
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        raise ProgramMissing(errno.ENOENT, f"{name} is not installed, which proxy_mode iptables needs: apt-get install iptables")
    return found


class IptablesTables:
    """One family's chains. ``namespace`` is the descriptor of a network namespace, None for one's own. Close it when done."""

    def __init__(
        self,
        family: Family,
        node: str,
        pod_ranges: tuple[str, ...],
        service_ranges: tuple[str, ...],
        namespace: int | None = None,
        *,
        node_port_ranges: tuple[str, ...] = (),
        masquerade_all: bool = False,
        masquerade_bit: int = 14,
    ) -> None:
        self.family, self.node = family, node
        self.refused: dict[str, str] = {}
        self.sound = False
        self.commits = 0
        self.has_stale, self.round = False, 0
        self._namespace = namespace
        self._restore, self._save = program(family, "restore"), program(family, "save")
        self._generations = Nftables(namespace)
        self._room = _room()
        mark = f"{1 << masquerade_bit:#x}"
        ranges = pod_ranges, service_ranges, node_port_ranges
        self._rules = Rules(family, *ranges, node=node, masquerade_all=masquerade_all, mark=mark)
        self._ports: dict[str, tuple[ServiceProgram, tuple[PortChains, ...]]] = {}
        self._have: dict[Chain, Lines] = {}  # what the kernel acknowledged
        self.rule_counts: Mapping[str, tuple[int, int]] = {}

    def close(self) -> None:
        """Close the socket. The rules stay."""
        self._generations.close()

    def read(self) -> None:
        """There is nothing to read before ``start``: what the kernel holds is compared line by line in no time."""

    def expect(self, _wanted: Mapping[str, ServiceProgram]) -> Iterator[None]:
        """There is nothing to do before the start."""
        return iter(())

    def start(self, wanted: Mapping[str, ServiceProgram]) -> Iterator[None]:
        """Make the kernel hold what is wanted, in steps. Raises KernelRefused; then it may be started again."""
        self._ports.clear()
        for count, (key, service) in enumerate(wanted.items(), 1):
            self._put(key, service)
            if not count % STEP:
                yield
        self._settle()

    def put_slice(self, key: str, piece: EndpointSlice) -> bool:  # noqa: ARG002  (what both dialects are asked)
        """Say that a Service is to be decided anew: here its chains are written as a whole."""
        return False

    def update(self, changes: Mapping[str, ServiceProgram | None]) -> None:
        """Replace what is wanted for some Services; None removes one. Raises KernelRefused."""
        for key, service in changes.items():
            self._put(key, service)
        try:
            if self.sound:
                self._apply(self._wanted())
            else:
                self._settle()
        except KernelRefused:
            self.sound = False
            raise

    def expire(self, round: int) -> None:  # noqa: A002
        """There is nothing that has to wait."""

    def dump(self, _: Nftables) -> dict[Chain, Lines]:
        """Read our chains, and the lines of others that lead to them. Raises KernelRefused."""
        return ours(self._run([self._save]))

    def findings(self, have: Any) -> list[str]:
        """Say how what was read differs from what should be there."""
        found = []
        for chain, lines in self._whole().items():
            there = have.get(chain)
            if there is None:
                found.append(f"chain {chain[1]} of table {chain[0]} is gone")
            elif there != lines and not (chain in JUMPS and set(lines) <= set(there)):
                found.append(f"chain {chain[1]} of table {chain[0]} has other rules")
        added = [chain for chain in _removable(have) if chain not in self._have]
        return found + [f"chain {name} was added to table {table}" for table, name in added]

    def distrust(self) -> None:
        """Begin the next update with a repair."""
        self.sound = False

    def set_aside(self) -> bool:
        """Translate no new connection any more. What those that are just being made still meet stays. Says whether there is any chain."""
        have = ours(self._run([self._save]))
        leading = _deletions({chain: lines for chain, lines in have.items() if chain in _TRANSLATING})
        if leading:
            self.sound = False
            self._load(_text({}, {}, jumps=leading, room=self._room))
        return bool(_removable(have))

    def remove(self) -> list[str]:
        """Take every chain of the service proxy, and what leads to it, out of the kernel. Gives what was removed, in words."""
        have = ours(self._run([self._save]))
        gone, jumps = _removable(have), _deletions(have)
        self.sound = False
        self._have = {}
        if gone or jumps:
            self._load(_text({}, {}, gone=gone, jumps=jumps, room=self._room))
        count = Counter(table for table, _ in gone)
        return [f"chains of table {self.family.name} {table}: {count[table]}" for table in _ORDER if count[table]]

    # How it works ------------------------------------------------------------------------------------------------------------

    def _put(self, key: str, service: ServiceProgram | None) -> None:
        if service is None:
            self._ports.pop(key, None)
        else:
            self._ports[key] = (service, tuple(self._rules.port(service, port) for port in service.ports))

    def _wanted(self) -> dict[Chain, Lines]:
        found = self._rules.constant() | self._rules.dispatch(self._ports)
        for _, ports in self._ports.values():
            for port in ports:
                found |= port.chains
        return found

    def _whole(self) -> dict[Chain, Lines]:
        return {**JUMPS, **self._have}

    def _settle(self) -> None:
        """Lead the kernel from what it is found to hold to what is wanted."""
        have, wanted = ours(self._run([self._save])), self._wanted()
        self._have = {chain: lines for chain, lines in have.items() if chain in wanted} | _removable(have)
        jumps = _deletions({chain: tuple(line for line in have.get(chain, ()) if line not in lines) for chain, lines in JUMPS.items()})
        jumps += [
            (table, f"-I {name} {place} {line}")
            for (table, name), lines in JUMPS.items()
            for place, line in enumerate(lines, 1)
            if line not in have.get((table, name), ())
        ]
        self._apply(wanted, jumps)
        self.sound = True

    def _apply(self, wanted: dict[Chain, Lines], jumps: Iterable[tuple[str, str]] = ()) -> None:
        changed = {chain: lines for chain, lines in wanted.items() if self._have.get(chain) != lines}
        gone = [chain for chain in self._have if chain not in wanted]
        jumps = list(jumps)
        if changed or gone or jumps:
            self._load(_text(self._have, changed, gone=gone, jumps=jumps, room=self._room))
        self._have = wanted
        self.rule_counts = {table: (_count(wanted, table), _count(changed, table)) for table in _ORDER}

    def _load(self, text: str) -> None:
        before = self._generations.generation()
        self._run([self._restore, "--noflush"], text)
        self.commits += self._generations.generation() - before

    def _run(self, command: list[str], text: str = "") -> str:
        """Run a program in the namespace. Raises KernelRefused with what it said."""

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(command, input=text, capture_output=True, text=True, timeout=LIMIT_S, check=False)

        try:
            done = self._inside(run)
        except subprocess.TimeoutExpired:
            raise KernelRefused(errno.ETIMEDOUT, command[0], f"no end within {LIMIT_S:g} s") from None
        if done.returncode:
            raise KernelRefused(errno.EINVAL, os.path.basename(command[0]), done.stderr.strip().replace("\n", "; "))
        return done.stdout

    def _inside(self, action: Callable[[], T]) -> T:
        return action() if self._namespace is None else namespaces.inside(self._namespace, action)


def _room() -> int:
    """Say how many lines a transaction may have. Who may not have more sends some 200 KB, and no line of ours takes over a kilobyte."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as one:
        try:
            one.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 20)
        except PermissionError:
            return 150
    return sys.maxsize


def _count(chains: Mapping[Chain, Lines], table: str) -> int:
    return sum(len(lines) for (where, _), lines in chains.items() if where == table)


def _text(
    have: Mapping[Chain, Lines],
    changed: Mapping[Chain, Lines],
    *,
    gone: Iterable[Chain] = (),
    jumps: Sequence[tuple[str, str]] = (),
    room: int,
) -> str:
    """Write what iptables-restore is to do, in transactions of no more than so many lines, if the groups of lines allow it."""
    parts = []
    for table in _ORDER:
        groups = [
            group
            for chain in sorted((chain for chain in changed if chain[0] == table), key=depth)
            for group in _rewriting(chain[1], have.get(chain), changed[chain], room)
        ]
        groups += [[command] for where, command in jumps if where == table]
        leaving = sorted((chain for chain in gone if chain[0] == table), key=depth, reverse=True)
        groups += [[f":{name} - [0:0]", f"-X {name}"] for _, name in leaving]  # one that goes is emptied before
        parts += [f"*{table}\n{chr(10).join(lines)}\nCOMMIT\n" for lines in _packed(groups, room)]
    return "".join(parts)


def _packed(groups: Iterable[list[str]], room: int) -> Iterator[list[str]]:
    lines: list[str] = []
    for group in groups:
        if lines and len(lines) + len(group) > room:
            yield lines
            lines = []
        lines += group
    if lines:
        yield lines


def _rewriting(name: str, before: Lines | None, after: Lines, room: int) -> Iterator[list[str]]:
    """Give the lines that make a chain what it should be, in groups that must not be parted."""
    if before is None:
        yield [f":{name} - [0:0]"]
        yield from ([f"-A {name} {line}"] for line in after)
    elif len(after) < room:
        yield [f":{name} - [0:0]", *(f"-A {name} {line}" for line in after)]  # a chain that is declared is emptied
    elif len(edits := _edits(name, before, after)) < room:
        yield edits
    else:
        yield from ([f"-I {name} {place} {line}"] for place, line in enumerate(after, 1))
        yield from ([f"-D {name} {len(after) + 1}"] for _ in before)


def _edits(name: str, before: Lines, after: Lines) -> list[str]:
    """Give what leads from one list of lines to another, from the end, so that the numbers of those before stay what they are."""
    found = []
    for what, start, stop, first, last in reversed(difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()):
        if what != "equal":
            found += [f"-D {name} {start + 1}"] * (stop - start)
            found += [f"-I {name} {start + place} {line}" for place, line in enumerate(after[first:last], 1)]
    return found


def _deletions(have: Mapping[Chain, Lines]) -> list[tuple[str, str]]:
    """Give what takes the lines of built-in chains away that lead to ours."""
    return [(table, f"-D {name} {line}") for (table, name), lines in have.items() if (table, name) in JUMPS for line in lines]


def ours(saved: str) -> dict[Chain, Lines]:
    """Read what iptables-save printed: our chains whole, of others the lines that lead to ours."""
    found: dict[Chain, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            chain = table, line[1:].split()[0]
            if is_ours(chain):
                found[chain] = []
        elif line.startswith("-A "):
            _, name, rule = line.split(" ", 2)
            if is_ours((table, name)) or is_ours((table, _target(rule))):
                found.setdefault((table, name), []).append(rule)
    return {chain: tuple(lines) for chain, lines in found.items()}


def _target(rule: str) -> str:
    """Give the chain that a rule leads to, as iptables-save prints it: a chain's name comes last."""
    before, _, last = rule.rpartition(" ")
    return last if before.endswith(("-j", "-g")) else ""


def _removable(have: Mapping[Chain, Lines]) -> dict[Chain, Lines]:
    """Give our chains, but for those that rules of somebody else lead to, and what these lead to: the kernel lets none of them go."""
    held: set[Chain] = set()
    leading = [chain for chain in have if chain not in JUMPS and not is_ours(chain)]
    while leading:
        table, name = leading.pop()
        targets = {(table, _target(line)) for line in have.get((table, name), ())} - held
        held |= targets
        leading += targets
    return {chain: lines for chain, lines in have.items() if is_ours(chain) and chain not in held}
