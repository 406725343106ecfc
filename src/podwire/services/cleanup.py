"""Off means gone: takes everything that the service proxy put on a node away again.

What belongs here: its tables of both families, under each of their names, its chains in iptables' words, and the routes of load-balancer
addresses where the agent makes them. What must not: anything of anybody else.
"""

from __future__ import annotations

from collections.abc import Sequence

from podwire import nft
from podwire.daemon.config import AgentConfig
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.services import layout, masquerade, routes
from podwire.services.iptables.rules import FILTER, NAT
from podwire.services.iptables.tables import IptablesTables, ProgramMissing

_FAMILIES = (layout.IPV4, layout.IPV6)
_SERVICES = [(family.name, name) for family in _FAMILIES for name in (layout.TABLE, layout.SPARE)]
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


def remove_other_dialect(config: AgentConfig, namespace: int | None = None) -> list[str]:
    """Remove the rules of Services that are written in the words which the configuration does not ask for. Raises KernelRefused."""
    return _remove_tables(_SERVICES, namespace) if config.proxy_mode == "iptables" else _remove_chains(namespace)


def _remove_tables(names: Sequence[tuple[str, str]], namespace: int | None) -> list[str]:
    with Nftables(namespace) as kernel:
        found = [(table.family, table.name) for table in kernel.dump(names).tables]
        kernel.apply([nft.DeleteTable(name) for name in found])
    return [f"table {family} {name}" for family, name in found]


def _remove_chains(namespace: int | None) -> list[str]:
    """Remove what is written in iptables' words; where its programs are not, or no such table is, there is nothing of it."""
    with Nftables(namespace) as kernel:
        tables = kernel.names()
    words: list[str] = []
    for family in _FAMILIES:
        if (family.name, NAT) not in tables and (family.name, FILTER) not in tables:
            continue
        try:
            rules = IptablesTables(family, "", (), (), namespace)
        except ProgramMissing:
            continue
        try:
            words += rules.remove()
        finally:
            rules.close()
    return words
