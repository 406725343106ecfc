"""Off means gone: takes everything that the service proxy put on a node away again.

What belongs here: its tables of both families, under each of their names, and the routes of load-balancer addresses where the agent makes
them. What must not: anything of anybody else.
"""

from __future__ import annotations

from podwire import nft
from podwire.daemon.config import AgentConfig
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.services import layout, masquerade, routes

_TABLES = [(family.name, name) for family in (layout.IPV4, layout.IPV6) for name in (layout.TABLE, layout.SPARE, masquerade.TABLE)]


def remove(config: AgentConfig, namespace: int | None = None) -> list[str]:
    """Remove it all from a node. Returns what was removed, in words. Raises KernelRefused."""
    with Nftables(namespace) as kernel:
        found = [(table.family, table.name) for table in kernel.dump(_TABLES).tables]
        kernel.apply([nft.DeleteTable(name) for name in found])
    words = [f"table {family} {name}" for family, name in found]
    if config.external_ranges:
        with Network(namespace) as network:
            gone = routes.changes(network.routes(routes.LOCAL), [])
            network.apply(gone)
            words += [str(request) for request in gone]
    return words
