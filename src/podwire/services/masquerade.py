"""What leaves the cluster leaves with the node's address.

What belongs here: the table ``podwire-masquerade``. A Pod's address is known inside the VPC network only, so a packet from a Pod to a
destination outside the cluster's ranges (Pods, nodes, Services, control plane) takes the address of the node. Packets inside keep the
Pod's address. What must not: anything about Services; what they need is in their own table, which is asked first.

Source: https://cloud.google.com/kubernetes-engine/docs/concepts/ip-masquerade-agent
"""

from __future__ import annotations

from collections.abc import Iterable

from podwire import nft
from podwire.daemon.config import AgentConfig
from podwire.services.layout import Family, ranges_text

TABLE = "podwire-masquerade"

_TEXT = """\
table {ip} {table} {{
  set pod-ranges {{ type {address}; flags interval; {pods} }}
  set inside {{ type {address}; flags interval; {inside} }}
  chain nat-postrouting {{
    type nat hook postrouting priority 105; policy accept;
    {ip} saddr @pod-ranges {ip} daddr != @inside masquerade fully-random
  }}
}}
"""


def ruleset(family: Family, pod_ranges: Iterable[str], inside: Iterable[str]) -> nft.Ruleset:
    """Build the table of one family. ``inside`` are all ranges of the cluster, those of the Pods too.

    Raises ValueError for what is no range.
    """
    pods = ranges_text(family, pod_ranges)
    within = ranges_text(family, inside)
    text = _TEXT.format(ip=family.name, table=TABLE, address=family.address, pods=pods, inside=within)
    return nft.Ruleset((nft.table(text),))


def wanted(family: Family, config: AgentConfig) -> nft.Ruleset:
    """Build the table that a configuration asks for. Raises ValueError for what is no range."""
    if not config.masquerade_pods:
        return nft.Ruleset(())
    inside = [*config.pod_ranges, *config.node_ranges, *config.service_ranges]
    inside += [config.control_range] if config.control_range else []
    return ruleset(family, config.pod_ranges, inside)
