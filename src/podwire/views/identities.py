"""Who an address is: a Pod or a node.

What belongs here: the answer to "whose address is this?" from the objects of the API, for those who print, log or judge packets.
What must not: policy, history (an address belongs to whoever has it now).

A Pod on the host's network has its node's address; the address then belongs to the node, as it does for NetworkPolicy. A Pod that has
ended keeps its address in its status, and has given it up.

Source: https://kubernetes.io/docs/concepts/cluster-administration/networking/
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from podwire.objects.core import Node, Pod


class Identity(msgspec.Struct, frozen=True, gc=False):
    """``kind`` is Pod or Node; ``key`` is the object's key (``namespace/name`` or ``name``); ``node`` is where it runs."""

    kind: str
    key: str
    node: str
    labels: dict[str, str]


def pod_identities(pod: Pod) -> dict[str, Identity]:
    """Give the addresses that one Pod has of its own."""
    status = pod.status
    if pod.spec.host_network or status.phase in ("Succeeded", "Failed"):
        return {}
    addresses = [each.ip for each in status.pod_ips] or [status.pod_ip]
    identity = Identity("Pod", pod.key, pod.spec.node_name, pod.metadata.labels)
    return {address: identity for address in addresses if address}


def node_identities(node: Node) -> dict[str, Identity]:
    """Give the addresses of one node."""
    identity = Identity("Node", node.name, node.name, node.metadata.labels)
    return {address.address: identity for address in node.status.addresses if address.type in ("InternalIP", "ExternalIP")}


def identities(pods: Iterable[Pod], nodes: Iterable[Node]) -> dict[str, Identity]:
    """Give every address in the cluster and whose it is. Where a Pod and a node claim one, it is the node's."""
    found: dict[str, Identity] = {}
    for pod in pods:
        found.update(pod_identities(pod))
    for node in nodes:
        found.update(node_identities(node))
    return found
