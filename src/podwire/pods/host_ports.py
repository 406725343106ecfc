"""Ports of the node that lead to a Pod: what its containers' ``hostPort`` asks for, as the tables of attachments take it. Pure.

A Pod in the node's network has none: its ports are the node's anyway. Which Pods may share a node is the scheduler's concern.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Container (ports)
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from podwire.objects.core import Pod
from podwire.pods.cni.configuration import PortMapping
from podwire.pods.cni.ruleset import Publication
from podwire.pods.desired import is_sidecar
from podwire.pods.wiring import IPAddress, port_of

_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


def mappings(pod: Pod) -> tuple[PortMapping, ...]:
    """The Pod's host ports."""
    if pod.spec.host_network:
        return ()
    containers = [one for one in pod.spec.init_containers if is_sidecar(one)] + list(pod.spec.containers)
    found = []
    for port in (port for container in containers for port in container.ports if port.host_port):
        address = ip_address(port.host_ip) if port.host_ip else None
        found.append(PortMapping(port.host_port, port.container_port, _PROTOCOLS[port.protocol], address))
    return tuple(dict.fromkeys(found))


def publication(pod: Pod, addresses: Sequence[IPAddress]) -> Publication | None:
    """What the node's tables should say of the Pod; None: nothing."""
    wanted = mappings(pod)
    return Publication(port_of(pod.metadata.uid), tuple(addresses), wanted) if wanted else None
