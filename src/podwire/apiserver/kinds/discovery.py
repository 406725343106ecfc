"""Rows of the group discovery.k8s.io, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
"""

from __future__ import annotations

from podwire.apiserver.kind import Kind, Tree
from podwire.apiserver.kinds import service_cells
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, dns_label, dns_subdomain, duplicate, invalid, required, too_many
from podwire.apiserver.validation_values import address_errors, one_of, plain_address, port_errors, qualified_errors, special_errors

_TYPES = ("FQDN", "IPv4", "IPv6")
_MOST_ENDPOINTS, _MOST_PORTS, _MOST_ADDRESSES = 1000, 100, 100


def _default(tree: Tree) -> None:
    for port in tree.get("ports", ()):
        port.setdefault("name", "")
        if not port.get("protocol"):
            port["protocol"] = "TCP"


def _validate(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error of an EndpointSlice. Unchanged parts of a large slice are not looked at again."""
    kind = tree.get("addressType", "")
    errors = one_of(kind, _TYPES, Path("addressType"))
    if old is not None and kind != old.get("addressType"):
        errors.append(invalid(Path("addressType"), kind, IMMUTABLE))
    if old is None or tree.get("endpoints") != old.get("endpoints"):
        errors += _endpoints(tree.get("endpoints", []), kind)
    return errors + _ports(tree.get("ports", []))


def _endpoints(endpoints: list[Tree], kind: str) -> list[FieldError]:
    path = Path("endpoints")
    if len(endpoints) > _MOST_ENDPOINTS:
        return [too_many(path, _MOST_ENDPOINTS)]
    errors: list[FieldError] = []
    for index, endpoint in enumerate(endpoints):
        addresses, where = endpoint.get("addresses", ()), path @ index
        if not addresses:
            errors.append(required(where / "addresses", "must contain at least 1 address"))
        if len(addresses) > _MOST_ADDRESSES:
            errors.append(too_many(where / "addresses", _MOST_ADDRESSES))
        for place, address in enumerate(addresses):
            errors += _address(address, kind, where / "addresses" @ place)
        if name := endpoint.get("nodeName"):
            errors += [invalid(where / "nodeName", name, text) for text in dns_subdomain(name)]
        if name := endpoint.get("hostname"):
            errors += [invalid(where / "hostname", name, text) for text in dns_label(name)]
    return errors


def _address(text: str, kind: str, path: Path) -> list[FieldError]:
    if kind == "FQDN":
        return [invalid(path, text, error) for error in dns_subdomain(text)]
    errors = address_errors(text, path)
    if errors or kind not in ("IPv4", "IPv6"):
        return errors
    if f"IPv{plain_address(text).version}" != kind:
        return [invalid(path, text, f"must be an {kind} address")]
    return special_errors(text, path)


def _ports(ports: list[Tree]) -> list[FieldError]:
    path = Path("ports")
    if len(ports) > _MOST_PORTS:
        return [too_many(path, _MOST_PORTS)]
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        name, where = port.get("name", ""), path @ index
        if name:
            errors += [invalid(where / "name", name, text) for text in dns_label(name)]
        if name in names:
            errors.append(duplicate(where / "name", name))
        names.add(name)
        errors += one_of(port.get("protocol", ""), ("SCTP", "TCP", "UDP"), where / "protocol")
        if port.get("port") is not None:
            errors += port_errors(port["port"], where / "port")
        if port.get("appProtocol"):
            errors += qualified_errors(port["appProtocol"], where / "appProtocol")
    return errors


ENDPOINT_SLICE = Kind(
    "discovery.k8s.io",
    "v1",
    "endpointslices",
    "EndpointSlice",
    True,
    "io.k8s.api.discovery.v1.EndpointSlice",
    columns=service_cells.SLICE_COLUMNS,
    row=service_cells.slice_row,
    default=_default,
    validate=_validate,
)

KINDS = (ENDPOINT_SLICE,)
