"""The IPAddress objects of a Service: one for each of its cluster IPs, so that everyone can see who has an address.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#ip-address-objects
"""

from __future__ import annotations

from ipaddress import ip_address

from podwire.apiserver.kind import Kind, Tree
from podwire.apiserver.kinds.networking import IP_ADDRESS

FAMILY, MANAGED_BY = "ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by"
ALLOCATOR = "ipallocator.k8s.io"


def of_service(service: Tree) -> list[tuple[Kind, Tree]]:
    """Give the IPAddress of each cluster IP."""
    metadata = service["metadata"]
    parent = {"resource": "services", "namespace": metadata.get("namespace", ""), "name": metadata["name"]}
    texts = [text for text in service.get("spec", {}).get("clusterIPs", ()) if text and text != "None"]
    return [(IP_ADDRESS, _of(text, parent)) for text in texts]


def _of(text: str, parent: Tree) -> Tree:
    address = ip_address(text)
    return {
        "apiVersion": IP_ADDRESS.api_version,
        "kind": IP_ADDRESS.kind,
        "metadata": {"name": str(address), "labels": {FAMILY: f"IPv{address.version}", MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": dict(parent)},
    }
