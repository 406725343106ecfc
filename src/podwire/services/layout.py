"""The table of the service proxy without its data: the sets and maps, and the few rules that read them.

What belongs here: declarations and rules, all constant; the chains that are made when first needed (one per endpoint count, one per
affinity timeout). What must not: elements (elements.py), order of changes (ruleset.py).

How a packet goes: the first packet of a connection looks up its destination in ``frontends`` (or, on an address of the node, its port
in ``node-ports``). The answer, an id, becomes the connection mark. ``sizes`` says how many endpoints the id has, ``pick`` jumps to the
chain that draws one of so many slots, and ``backends`` gives the endpoint of id and slot, to which ``send`` translates. Every
later packet of the connection is translated by connection tracking alone.

What shaped it:
- A register does not outlive its rule, so values travel between rules in the connection mark (the id) and the packet mark (the slot).
- A big map is read by one rule, made before the map is filled: each further reader makes every later element dearer.
- Maps hold data, not verdicts: a change of a verdict map costs the kernel a walk over all its elements.
- Base chains jump to ``services`` twice: a packet whose two look-ups straddle a commit finds its endpoint the second time.
- An address of the node may be some Service's external address: that Service's port goes before a node port, also without endpoints.
- What was translated is not asked again whether it is refused: an endpoint may have the address and port of another Service.
- Translating a packet to where it goes already changes nothing, and the kernel does not call that ``dnat``: so it is with an endpoint on
  the host's network behind an external address or a node port of its node. What tells is the connection mark, which ``lead`` takes away
  from all that was led to no endpoint. It is asked only where ``frontends`` or ``node-ports`` had a say, since others have marks of
  their own. Such a packet keeps its packet mark. Its source is treated as if it had been translated (``hide-if-led``, for which
  ``frontends`` is asked again; a node port is the node's own, and what uses it so does not leave the node).
- After translation the packet mark goes back to 0, so that routing by mark never sees a slot. One that another has translated keeps its
  mark: it is masqueraded by that, as long as both dialects are there.

Masquerade, in this order: an endpoint that reaches itself, yes; a Pod that uses a cluster address, no; a view that keeps the client's
address, no; everything else that was translated, yes, because the node that translates must see the reply. A Pod that a Local policy led
to the cluster view keeps its address, too, where the reply comes by in any case (``keep-pods``): from an endpoint of this node, and where
it used no node port, so that it is a Pod of this node. That the policy is Local is told by the id of the external view.

Where no Pod range of the family is known, whoever uses a cluster address counts as a Pod, as with a kube-proxy that is not told who is one
(no ``clusterCIDR``).

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/; nft(8).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import msgspec

from podwire.nft.datatypes import HOST
from podwire.nft.model import Verdict
from podwire.services.numbers import STEP, VIEWS

TABLE = "podwire-services"
SPARE = "podwire-services-2"  # the other name, for building a new table beside one that is in use


class Family(msgspec.Struct, frozen=True):
    """One address family as nft spells it. ``number`` is 4 or 6, ``length`` the bytes of an address."""

    number: int
    name: str
    address: str
    length: int
    loopback: str


IPV4 = Family(4, "ip", "ipv4_addr", 4, "127.0.0.0/8")
IPV6 = Family(6, "ip6", "ipv6_addr", 16, "::1")
AFFINITY = "choose-and-keep-"


class Capacity(msgspec.Struct, frozen=True):
    """How many elements the big maps may hold. A size makes a map fast, and is a wall."""

    frontends: int = 4096
    node_ports: int = 4096
    sizes: int = 4096
    backends: int = 16384
    handles: int = 4096
    affinity: int = 65536


SMALL = Capacity()

_TABLE = """\
table {ip} {table} {{
  map frontends {{ type {address} . inet_proto . inet_service : mark; size {size.frontends}; }}
  map node-ports {{ type inet_proto . inet_service : mark; size {size.node_ports}; }}
  map sizes {{ type mark : mark; size {size.sizes}; }}
  map backends {{ typeof ct mark . meta mark : {ip} daddr . th dport; size {size.backends}; }}
  map handles {{ typeof ct mark . meta mark : meta mark; size {size.handles}; }}
  map affinity {{ type {address} . mark : mark; flags dynamic,timeout; size {size.affinity}; }}
  map short-circuit {{ type mark : mark; size {size.sizes}; }}
  map pick {{ type mark : verdict; }}
  map how {{ type mark : verdict; }}
  map keep {{ type mark : verdict; }}
  set own-endpoints {{ type {address} . {address}; }}
  set keep-source {{ type mark; }}
  set pod-ranges {{ type {address}; flags interval; {pods} }}
  set service-ranges {{ type {address}; flags interval; {services} }}
{node_port_set}  set cluster-ips {{ type {address}; }}
  set no-endpoints {{ type {address} . inet_proto . inet_service; }}
  set no-local-endpoints {{ type {address} . inet_proto . inet_service; }}
  set no-endpoint-ports {{ type inet_proto . inet_service; }}
  set no-local-endpoint-ports {{ type inet_proto . inet_service; }}
  set guarded {{ type {address} . inet_proto . inet_service; }}
  set source-ranges {{ type {address} . inet_proto . inet_service . {address}; flags interval; }}
  set coming-ranges {{ type {address} . inet_proto . inet_service . {address}; flags interval; }}

  chain send {{
    meta l4proto {{ tcp, udp, sctp }} dnat {ip} to ct mark . meta mark map @backends
  }}
  chain choose {{
    meta mark set ct mark map @sizes
    meta mark vmap @pick
    goto send
  }}
  chain from-inside {{
    {ip} saddr @pod-ranges ct mark set ct mark map @short-circuit
    fib saddr type local ct mark set ct mark map @short-circuit
    ct mark vmap @keep
    goto choose
  }}
  chain service {{
    ct mark vmap @how
    goto choose
  }}
  chain lead {{
    jump service
    ct mark set 0x0
  }}
  chain on-node {{
    {ip} daddr . meta l4proto . th dport @no-endpoints return
    {ip} daddr . meta l4proto . th dport @no-local-endpoints return
    ct mark set meta l4proto . th dport map @node-ports goto lead
  }}
  chain services {{
    ct mark set {ip} daddr . meta l4proto . th dport map @frontends goto lead
    {on_node} goto on-node
  }}
  chain hide {{
    ct mark != @keep-source masquerade fully-random
  }}
  chain hide-if-led {{
    meta l4proto {{ tcp, udp, sctp }} ct mark set {ip} daddr . meta l4proto . th dport map @frontends jump hide
    accept
  }}
  chain keep-pods {{
    {ip} daddr @pod-ranges {ip} daddr . {ip} daddr @own-endpoints ct mark set ct mark | {external:#x}
    ct mark @keep-source accept
    ct mark set ct mark & {without_view:#x}
    meta l4proto {{ tcp, udp, sctp }} ct mark set ct original {ip} daddr . meta l4proto . ct original proto-dst map @frontends
    ct mark @keep-source accept
  }}
  chain guard {{
    {ip} daddr . meta l4proto . th dport . {ip} saddr @source-ranges return
    {ip} daddr . meta l4proto . th dport . {ip} saddr @coming-ranges return
    drop
  }}
  chain refuse {{
    {ip} daddr . meta l4proto . th dport @no-local-endpoints ct mark 0x0 drop
    {ip} daddr . meta l4proto . tcp dport @no-endpoints reject with tcp reset
    {ip} daddr . meta l4proto . th dport @no-endpoints reject
    {ip} daddr @cluster-ips meta l4proto tcp reject with tcp reset
    {ip} daddr @cluster-ips reject
    {ip} daddr @service-ranges drop
    ct mark != 0x0 return
    {on_node} meta l4proto . th dport @no-local-endpoint-ports drop
    {on_node} meta l4proto . tcp dport @no-endpoint-ports reject with tcp reset
    {on_node} meta l4proto . th dport @no-endpoint-ports reject
  }}
{base}}}
"""

# The chains that the kernel calls. They are made last: a table without them changes no packet.
_BASE = """\
  chain filter-prerouting {{
    type filter hook prerouting priority -110; policy accept;
    ct state new {ip} daddr . meta l4proto . th dport @guarded jump guard
  }}
  chain filter-output-first {{
    type filter hook output priority -110; policy accept;
    ct state new {ip} daddr . meta l4proto . th dport @guarded jump guard
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
    jump services
  }}
  chain tidy {{
    type filter hook prerouting priority -99; policy accept;
    ct state new ct status dnat ct mark != 0x0 meta mark set 0x0
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump services
    jump services
  }}
  chain filter-input {{
    type filter hook input priority -110; policy accept;
    ct state new ct status ! dnat jump refuse
  }}
  chain filter-forward {{
    type filter hook forward priority -110; policy accept;
    ct state new ct status ! dnat jump refuse
  }}
  chain filter-output {{
    type filter hook output priority -90; policy accept;
    ct state new ct status ! dnat jump refuse
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ct status ! dnat ct mark != 0x0 goto hide-if-led
    ct status ! dnat accept
    {ip} saddr . {ip} daddr @own-endpoints masquerade fully-random comment "hairpin"
    ct original {ip} daddr @cluster-ips {whom}
    ct mark @keep-source accept
    ct mark != 0x0 {ip} saddr @pod-ranges jump keep-pods
    ct mark != 0x0 masquerade fully-random
  }}
"""


def table_text(
    family: Family,
    name: str = TABLE,
    capacity: Capacity = SMALL,
    *,
    pod_ranges: Iterable[str] = (),
    service_ranges: Iterable[str] = (),
    node_port_ranges: Iterable[str] = (),
    masquerade_all: bool = False,
) -> str:
    """Write the table in nft's language. Of the ranges, those of the family are taken.

    For ``node_port_ranges`` see ``narrowed``. With ``masquerade_all`` also a Pod that uses a cluster address is masqueraded.
    """
    words = {"ip": family.name, "table": name, "address": family.address, "size": capacity}
    words |= {"external": VIEWS["external"], "without_view": (1 << 32) - STEP}
    within = narrowed(family, node_port_ranges)
    elements = ranges_text(family, within or ())
    words["node_port_set"] = (
        f"  set node-port-ranges {{ type {family.address}; flags interval; {elements} }}\n" if within is not None else ""
    )
    pods = ranges_text(family, pod_ranges)
    words["whom"] = "masquerade fully-random" if masquerade_all else f"{family.name} saddr @pod-ranges accept" if pods else "accept"
    only = f"{family.name} daddr @node-port-ranges " if within is not None else ""
    words["on_node"] = f"fib daddr type local {only}{family.name} daddr != {family.loopback}"
    return _TABLE.format(base=_BASE.format(**words), pods=pods, services=ranges_text(family, service_ranges), **words)


def ranges_text(family: Family, ranges: Iterable[str]) -> str:
    """Write those of the ranges that are of the family, as elements. Raises ValueError for what is no range."""
    found = merged(family, ranges)
    return f"elements = {{ {', '.join(found)} }};" if found else ""


def merged(family: Family, ranges: Iterable[str]) -> tuple[str, ...]:
    """Give those of the ranges that are of the family, each address in one of them. Raises ValueError for what is no range."""
    networks = [network for network in map(ipaddress.ip_network, ranges) if network.version == family.number]
    return tuple(str(network) for network in ipaddress.collapse_addresses(networks))  # type: ignore[type-var]


def narrowed(family: Family, node_port_ranges: Iterable[str]) -> tuple[str, ...] | None:
    """Give the ranges of the family on whose addresses node ports are served: on none, if there are ranges of the other family alone.

    None, if they are on all addresses of the node but those of the loopback range: no range is given, or all of the family.
    """
    given = tuple(node_port_ranges)
    found = merged(family, given)
    return None if not given or any(one.endswith("/0") for one in found) else found


def pick_chain(count: int) -> tuple[str, list[str]]:
    """The chain that draws one of ``count`` slots: its name and its rules."""
    return f"pick-{count}", [f"meta mark set numgen random mod {count}" if count > 1 else "meta mark set 0x0"]


def pick_element(count: int) -> tuple[bytes, Verdict]:
    """The key and value that lead to that chain."""
    return count.to_bytes(4, HOST), Verdict("jump", f"pick-{count}")


_AFFINITY_NAME = re.compile(r"(?:choose-and-)?keep-(\d+)s(?:-(internal|external))?")


def affinity_chain(seconds: int, view: str) -> str:
    """The chain that ids of a view with affinity point to."""
    return f"{AFFINITY}{seconds}s" if view == "cluster" else f"{AFFINITY}{seconds}s-{view}"


def affinity_of(chain: str) -> tuple[int, str] | None:
    """The timeout and view that an affinity chain's name tells; None for another chain."""
    found = _AFFINITY_NAME.fullmatch(chain)
    return (int(found[1]), found[2] or "cluster") if found else None


def affinity_chains(family: Family, seconds: int, view: str) -> list[tuple[str, list[str]]]:
    """The chains of one affinity timeout and view, in the order in which they can be made. The first is jumped to, ids point to the last.

    ``update`` on a key that exists keeps the old value, so a new choice is a delete and an add. ``keep`` comes back when the endpoint that
    a client was kept to is gone, or is none of this view's: then the rules after it choose anew. Clients are remembered by what the ids of
    a port have in common, which is that of the cluster view; the other views put it in the id's place for as long as they ask.
    """
    shared = [] if view == "cluster" else [f"ct mark set ct mark & {(1 << 32) - STEP:#x}"]
    own = [] if view == "cluster" else [f"ct mark set ct mark | {VIEWS[view]:#x}"]
    key = f"{family.name} saddr . ct mark"
    keep = affinity_chain(seconds, view).removeprefix("choose-and-")
    kept = f"{{ {key} timeout {seconds}s : meta mark }}"
    return [
        (keep, [f"update @affinity {kept}", *own, "goto send"]),
        (
            affinity_chain(seconds, view),
            [
                *shared,
                f"meta mark set {key} map @affinity jump {keep}",
                *own,
                "meta mark set ct mark map @sizes",
                "meta mark vmap @pick",
                "meta mark set ct mark . meta mark map @handles",
                *shared,
                f"delete @affinity {{ {key} : meta mark }}",
                f"add @affinity {kept}",
                *own,
                "goto send",
            ],
        ),
    ]
