"""Load-balancer addresses as local routes of the node.

What belongs here: which routes there should be and which changes lead there. Packets for a forwarding rule's address reach a node with that
destination. As a local address, the node answers what no Service claims with "refused"; without, it would send it back by its
default route. Google's guest agent writes these routes on its VMs, with the protocol number 66, by which they are known again.
What must not: any other route.

Source: https://github.com/GoogleCloudPlatform/guest-agent (routes of forwarding rules)
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from podwire.wire.rtnetlink import Request, Route, add, delete

PROTOCOL = 66
LOCAL = 255


def changes(have: Iterable[Route], addresses: Iterable[str], link: str = "lo") -> list[Request]:
    """Give the requests that make exactly these addresses local. ``have`` are the routes of the table ``local``."""
    wanted = {
        ip_network(address): Route(ip_network(address), link=link, table=LOCAL, protocol=PROTOCOL, type="local") for address in addresses
    }
    ours = {route.destination: route for route in have if route.protocol == PROTOCOL}
    gone = [delete(route, missing_ok=True) for destination, route in ours.items() if destination not in wanted]
    return gone + [add(route) for destination, route in wanted.items() if destination not in ours]
