"""One endpoint that came for another, as most changes are: what is told to a kernel of them is one element.

What belongs here: seeing that this is all that a change is, and the rows before and after. What must not: any other change, what a kernel
holds (ruleset.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from podwire.nft.rows import Form
from podwire.objects.discovery import EndpointSlice
from podwire.services.alike import claims_alike
from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.elements import endpoint_bytes, exchanged_rows, own_row, pair_bytes, target_name
from podwire.services.numbers import Numbers
from podwire.views.backends import Backend, Backends, in_columns_of, one_came, one_for_one


class Exchange(msgspec.Struct, frozen=True, gc=False):
    """What is wanted of a Service now, and of which port which endpoint went and which came: ``moved`` is None where none did."""

    service: ServiceProgram
    moved: tuple[PortProgram, Backend, Backend] | None


def of_slice(old: ServiceProgram, piece: EndpointSlice) -> Exchange | None:
    """See it in a Service's only slice, of which it is known that nothing else changed. None: it is another change."""
    if not old.plain:
        return None
    found: tuple[PortProgram, Backend, Backend] | None = None
    ports = list(old.ports)
    for at, port in enumerate(ports):
        assert type(port.cluster) is Backends
        if port.protocol == "UDP":  # more is to be done than elements say: clients keep to their flows
            return None
        came = one_came(piece, port.name, port.protocol, port.cluster)
        if came is not None and found is None:
            found = port, came[0], came[1]
            ports[at] = PortProgram(port.name, port.protocol, port.port, port.node_port, came[2], None, None)
        elif (
            came is not None or len(piece.endpoints) != len(port.cluster) or in_columns_of(piece, port.name, port.protocol) != port.cluster
        ):
            return None
    return Exchange(msgspec.structs.replace(old, ports=tuple(ports)) if found is not None else old, found)


def at_once(
    old: ServiceProgram, piece: EndpointSlice, node: str, numbers: Numbers, written: Form
) -> tuple[ServiceProgram, tuple[bytes, bytes, bytes]] | None:
    """Do what ``of_slice`` and ``rows`` do where a plain Service has one port and neither endpoint is on the node, as most often.

    ``written`` is how ``backends`` are. Gives the Service, and the key and the row of ``backends`` before and after. None, with nothing
    done: it is another change, or it is not beyond doubt who sits where.
    """
    if not old.plain or len(old.ports) > 1:
        return None
    port = old.ports[0]
    if port.protocol == "UDP":
        return None
    name, protocol, number, cluster = port.name, port.protocol, port.port, port.cluster
    assert type(cluster) is Backends
    found = one_came(piece, name, protocol, cluster)
    if found is None:
        return None
    gone, came, now = found
    if gone.node in (node, "") or came.node in (node, ""):
        return None
    try:
        left, endpoint = pair_bytes(gone.address, came.address, cluster.port)
    except ValueError:
        return None
    key = old.key
    target = f"{key}:{name or number}/{protocol}"
    seat = numbers.exchange(target, left, endpoint, cluster.addresses.count(" ") + 1)
    if seat is None:
        return None
    service = ServiceProgram(
        key, old.cluster_ips, (), (), (PortProgram(name, protocol, number, 0, now, None, None),), 0, None, False, old.created, True
    )
    return service, exchanged_rows(written, *seat, (left, endpoint), target, (gone.pod, came.pod))


def of_states(old: ServiceProgram, new: ServiceProgram) -> Exchange | None:
    """See it in two states of a Service. None: it is another change.

    None also where endpoints are more than rows of ``backends``: under a Local policy, with affinity, and beside addresses from outside.
    """
    if old.external_ips or new.external_ips or old.affinity_s or new.affinity_s or not claims_alike(old, new):
        return None
    found: tuple[PortProgram, Backend, Backend] | None = None
    for a, b in zip(old.ports, new.ports, strict=True):
        if a.name != b.name or a.internal is not None or a.external is not None or b.internal is not None or b.external is not None:
            return None
        if a.cluster != b.cluster:
            pair = None if found is not None else one_for_one(a.cluster, b.cluster)
            if pair is None:
                return None
            found = b, *pair
    return Exchange(new, found) if found is not None else None


class Rows(msgspec.Struct, frozen=True, gc=False):
    """The key and the row of ``backends`` before and after; the rows of ``own_endpoints`` that the Service no longer has, and has now."""

    key: bytes
    before: bytes
    after: bytes
    own_before: Sequence[bytes] = ()
    own_after: Sequence[bytes] = ()


def rows(exchange: Exchange, node: str, numbers: Numbers, written: Mapping[str, Form]) -> Rows | None:
    """Seat the endpoint that came, and write what is to be told. None, with nothing done: it is not beyond doubt who sits where."""
    if exchange.moved is None:
        return None
    port, gone, came = exchange.moved
    is_here = gone.node == node or came.node == node or not gone.node or not came.node  # one that names no node may be here
    if is_here and (len(exchange.service.ports) > 1 or type(port.cluster) is not Backends or gone.port != came.port):
        return None  # another port, or another number of this one, may have it, too
    target = target_name(exchange.service.key, port)
    try:
        left, endpoint = endpoint_bytes(gone), endpoint_bytes(came)
    except ValueError:
        return None
    cluster = port.cluster
    count = cluster.addresses.count(" ") + 1 if type(cluster) is Backends else len(cluster)
    seat = numbers.exchange(target, left, endpoint, count)
    if seat is None:
        return None
    found = exchanged_rows(written["backends"], *seat, (left, endpoint), target, (gone.pod, came.pod))
    if not is_here:
        return Rows(*found)
    own = written["own_endpoints"]
    before, after = ([own_row(own, one)] if one.node in (node, "") else [] for one in (gone, came))
    return Rows(*found, before, after)
