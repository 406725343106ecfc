"""Links, addresses, routes, neighbours and rules as values, their requests as bytes.

Here: one frozen class per kind of object, which knows the messages that add, replace, change and delete it, prints as the
``ip`` command that would do the same, and is read back from a dump. A value that was added equals the value that a dump
gives, as far as its fields are set. Not here: sockets, sequence numbers, the cache of indexes (``linux.network``).

    network.apply([
        add(Link("veth1", "veth", peer=Link("eth0", namespace_fd=pod, mac=mac), master="cbr0", up=True)),
        add(Route(IPv4Network("10.4.0.5/32"), link="veth1")),
    ])

The kernel knows links by index, people by name: an encoder is given ``index``, a function from name to index, and calls it
while it builds, so that the link of an earlier request may be named in a later one.

Sources: rtnetlink(7); include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,fib_rules}.h of the Linux kernel.
"""

from __future__ import annotations

from podwire.wire.rtnetlink.address import Address, BridgeEntry, Neighbour
from podwire.wire.rtnetlink.link import Bridge, BridgePort, Link, LinkState, show
from podwire.wire.rtnetlink.queue import TokenBucket
from podwire.wire.rtnetlink.request import Part, Request, Value, add, change, delete, replace
from podwire.wire.rtnetlink.route import Route, Rule

__all__ = [
    "Address",
    "Bridge",
    "BridgeEntry",
    "BridgePort",
    "Link",
    "LinkState",
    "Neighbour",
    "Part",
    "Request",
    "Route",
    "Rule",
    "TokenBucket",
    "Value",
    "add",
    "change",
    "delete",
    "replace",
    "show",
]
