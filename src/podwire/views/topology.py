"""Where nodes are: zone, region, addresses and Pod ranges of each.

What belongs here: facts of one Node object that several parts read, as one small value, so that a status update that changes none of
them compares equal and wakes nobody. What must not: choices made from them.

Source: https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from podwire.objects.core import Node

ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"


class Place(msgspec.Struct, frozen=True, gc=False):
    """One node. ``addresses`` are its node IPs and ``pod_ranges`` its ranges, the primary family's first."""

    node: str
    zone: str = ""
    region: str = ""
    addresses: tuple[str, ...] = ()
    pod_ranges: tuple[str, ...] = ()


def place(node: Node) -> Place:
    """Give the facts of one node."""
    labels = node.metadata.labels
    ranges = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
    return Place(node.name, labels.get(ZONE, ""), labels.get(REGION, ""), node.internal_ips, ranges)


def places(nodes: Iterable[Node]) -> dict[str, Place]:
    """Give all nodes by name."""
    return {node.name: place(node) for node in nodes}
