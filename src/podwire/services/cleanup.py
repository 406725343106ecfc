"""Off means gone: takes everything that the service proxy put on a node away again.

What belongs here: its tables of both families, under each of their names, its chains in iptables' words, and the routes of load-balancer
addresses where the agent makes them. What must not: anything of anybody else. Chains in iptables' words have kube-proxy's names, and those
that kube-proxy left are removed as ours, as its mode nftables does; a table of its own, ``kube-proxy``, is not ours.

Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-proxy/ (--cleanup)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from podwire import nft
from podwire.daemon.config import AgentConfig
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.services import layout, masquerade, routes
from podwire.services.iptables import legacy
from podwire.services.iptables.affinity import carry_over
from podwire.services.iptables.rules import FILTER, NAT
from podwire.services.iptables.tables import IptablesTables, ProgramMissing
from podwire.services.structure import structure

_FAMILIES = (layout.IPV4, layout.IPV6)
_SERVICES = [(family.name, name) for family in _FAMILIES for name in (layout.TABLE, layout.SPARE)]
_OTHERS = [(family.name, "kube-proxy") for family in _FAMILIES]  # what kube-proxy makes in its mode nftables
_TABLES = [*_SERVICES, *((family.name, masquerade.TABLE) for family in _FAMILIES)]


def remove(config: AgentConfig, namespace: int | None = None) -> list[str]:
    """Remove it all from a node. Returns what was removed, in words. Raises KernelRefused."""
    words = [*_remove_tables(_TABLES, namespace), *_remove_chains(namespace)]
    if config.external_ranges:
        with Network(namespace) as network:
            gone = routes.changes(network.routes(routes.LOCAL), [])
            network.apply(gone)
            words += [str(request) for request in gone]
    return words


def set_aside_other_dialect(config: AgentConfig, namespace: int | None = None) -> bool:
    """Let the rules that are written in the words which the configuration does not ask for translate no new connection any more.

    Clients whom they keep to an endpoint are kept there by the others. What a connection meets after its translation stays, for those that
    are just being made: ``remove_other_dialect``, 10 ms later, takes it away. Says whether there is anything. Raises KernelRefused.
    """
    carry_over(config.proxy_mode, namespace)
    if config.proxy_mode == "iptables":
        return _set_aside_tables(namespace)
    found = [rules.set_aside() for rules in _in_iptables_words(namespace)]
    return any(found)


def remove_other_dialect(config: AgentConfig, namespace: int | None = None) -> list[str]:
    """Remove the rules of Services that are written in the words which the configuration does not ask for. Raises KernelRefused."""
    return _remove_tables(_SERVICES, namespace) if config.proxy_mode == "iptables" else _remove_chains(namespace)


def of_other_proxies(namespace: int | None = None) -> list[str]:
    """Say, in sentences, what rules of another service proxy there are that are not ours to remove. Raises KernelRefused."""
    with Nftables(namespace) as kernel:
        there = kernel.names()
    found = [f"table {family} {name}" for family, name in _OTHERS if (family, name) in there]
    return [f"{words} of another proxy translates, too; `kube-proxy --cleanup` removes it" for words in found] + legacy.told(namespace)


def _set_aside_tables(namespace: int | None) -> bool:
    changes: list[nft.Change] = []
    with Nftables(namespace) as kernel:
        there = kernel.names()
        for family in _FAMILIES:
            for name in (layout.TABLE, layout.SPARE):
                made = structure(family, (), (), name)
                translating = [chain for chain in made.hooked if chain.type == "nat" and chain.hook != "postrouting"]
                for chain in translating if made.id in there else ():  # a table that was not finished has none yet
                    changes += [nft.AddChain(made.id, chain.declaration()), nft.FlushChain(made.id, chain.name)]
        kernel.apply(changes)
    return bool(changes)


def _remove_tables(names: Sequence[tuple[str, str]], namespace: int | None) -> list[str]:
    with Nftables(namespace) as kernel:
        there = kernel.names()
        found = [name for name in names if name in there]
        kernel.apply([nft.DeleteTable(name) for name in found])
    return [f"table {family} {name}" for family, name in found]


def _remove_chains(namespace: int | None) -> list[str]:
    return [words for rules in _in_iptables_words(namespace) for words in rules.remove()]


def _in_iptables_words(namespace: int | None) -> Iterator[IptablesTables]:
    """Give what may be written in iptables' words, by family; where its programs are not, or no such table is, there is nothing of it."""
    with Nftables(namespace) as kernel:
        there = kernel.names()
    for family in _FAMILIES:
        if (family.name, NAT) not in there and (family.name, FILTER) not in there:
            continue
        try:
            rules = IptablesTables(family, "", (), (), namespace)
        except ProgramMissing:
            continue
        with contextlib.closing(rules):
            yield rules
