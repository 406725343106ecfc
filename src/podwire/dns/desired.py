"""The DNS records of one Service.

What belongs here: the Kubernetes DNS schema 1.1.0, as records of one Service and its slices. What must not: how records become
answers (zone.py), sockets.

- A Service with cluster addresses: ``users.shop.svc.ZONE`` has A (AAAA) records of them, ``_http._tcp.users.shop.svc.ZONE`` an SRV record
  for each named port, and each address a PTR record.
- A headless Service: the same names stand for its ready endpoints. Each endpoint has a name below the Service's, its hostname or its
  address with dashes; SRV and PTR records point there. No ready endpoint, no name.
- An ExternalName Service is a CNAME.

Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

import msgspec

from podwire.objects.core import Service
from podwire.objects.discovery import EndpointSlice
from podwire.views.frontends import HEADLESS, cluster_ips
from podwire.wire import dns

SCHEMA = b"1.1.0"


class Owned(msgspec.Struct, frozen=True, gc=False):
    """All records of one name and type. ``extra`` are the address records of the names that ``data`` points to: (name, type, data)."""

    data: tuple[bytes, ...]
    extra: tuple[tuple[bytes, int, bytes], ...] = ()


Records = dict[tuple[bytes, int], Owned]  # by name in lower case, and type


@functools.lru_cache(maxsize=1 << 14)
def packed(address: str) -> bytes:
    """Pack an address of either family. Raises ValueError."""
    return ipaddress.ip_address(address).packed


def address_type(address: str) -> int:
    return dns.AAAA if ":" in address else dns.A


@functools.lru_cache(maxsize=1 << 14)
def reverse_name(address: str) -> bytes:
    """Give the name under which the PTR record of an address stands. Raises ValueError."""
    return dns.name(ipaddress.ip_address(address).reverse_pointer)


def dashed(address: str) -> str:
    """Give an address as a label: ``10-4-1-5``, ``fd00--5``."""
    return address.replace(".", "-").replace(":", "-")


def service_name(service: Service, domain: bytes) -> bytes:
    """Give ``NAME.NAMESPACE.svc.ZONE``. ``domain`` is the zone's name in wire form."""
    return below([service.name, service.namespace, "svc"], domain)


def below(labels: list[str], domain: bytes) -> bytes:
    """Give the name of these labels below another. Raises dns.Malformed."""
    return dns.from_labels([label.encode() for label in labels])[:-1].lower() + domain


def records(service: Service | None, slices: Iterable[EndpointSlice], domain: bytes) -> Records:
    """Give all records of one Service.

    Raises ValueError (dns.Malformed among them) for an address or a name that is none; the API accepts no such object.
    """
    if service is None:
        return {}
    name = service_name(service, domain)
    if service.spec.type == "ExternalName":
        return {(name, dns.CNAME): Owned((dns.name(service.spec.external_name).lower(),))} if service.spec.external_name else {}
    if service.spec.cluster_ip == HEADLESS:
        return _headless(name, slices)
    return _clustered(service, name)


def _clustered(service: Service, name: bytes) -> Records:
    addresses = cluster_ips(service)
    if not addresses:
        return {}
    found: Records = {}
    extra = tuple([(name, address_type(address), packed(address)) for address in addresses])
    for kind in {address_type(address) for address in addresses}:
        found[(name, kind)] = Owned(tuple([packed(address) for address in addresses if address_type(address) == kind]))
    for address in addresses:
        found[(reverse_name(address), dns.PTR)] = Owned((name,))
    for port in service.spec.ports:
        if port.name:
            key = (below([f"_{port.name}", f"_{port.protocol}"], name), dns.SRV)
            found[key] = Owned((dns.srv(0, 100, port.port, name),), extra)
    return found


def _headless(name: bytes, slices: Iterable[EndpointSlice]) -> Records:
    addresses: dict[str, dict[bytes, None]] = {}  # by address, the names of its endpoint
    ports: dict[tuple[str, str], dict[tuple[bytes, int], str]] = {}  # by port name and protocol: endpoint name, number: address
    for piece in sorted((s for s in slices if s.address_type != "FQDN"), key=lambda s: s.metadata.name):
        named = [(port.name, port.protocol, port.port) for port in piece.ports if port.name and port.port is not None]
        for endpoint in piece.endpoints:
            if not endpoint.ready:
                continue
            for address in endpoint.addresses:
                own = below([endpoint.hostname or dashed(address)], name)
                addresses.setdefault(address, {})[own] = None
                for port_name, protocol, number in named:
                    ports.setdefault((port_name, protocol), {})[(own, number)] = address
    rows: dict[tuple[bytes, int], dict[bytes, None]] = {}
    for address, names in addresses.items():
        data, kind = packed(address), address_type(address)
        for owner in (name, *names):
            rows.setdefault((owner, kind), {})[data] = None
        for own in names:
            rows.setdefault((reverse_name(address), dns.PTR), {})[own] = None
    found = {key: Owned(tuple(data)) for key, data in rows.items()}
    for (port_name, protocol), targets in ports.items():
        weight = max(1, 100 // len(targets))
        found[(below([f"_{port_name}", f"_{protocol}"], name), dns.SRV)] = Owned(
            tuple([dns.srv(0, weight, number, own) for own, number in targets]),
            tuple([(own, address_type(address), packed(address)) for (own, _), address in targets.items()]),
        )
    return found


def pod_address(labels: list[bytes]) -> str | None:
    """Read the address in ``1-2-3-4.NAMESPACE`` (the labels before ``pod.ZONE``); None if there is none.

    Any address is answered, whether a Pod has it or not, as cluster DNS does by default.
    """
    if len(labels) != 2:
        return None
    text = labels[0].decode(errors="replace")
    for candidate in (text.replace("-", "."), text.replace("-", ":")):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return None
