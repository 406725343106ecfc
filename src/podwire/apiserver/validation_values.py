"""Checks of single values that several kinds have: ports, addresses, ranges, amounts, label selectors.

Here: one value and its path in, errors out. Not here: text rules of names and labels (``validation.py``), rules of one kind (``kinds/``).

Source: RFC 6335 (names of ports) and https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from podwire.apiserver import quantity
from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import (
    FieldError,
    Path,
    dns_label,
    forbidden,
    invalid,
    label_errors,
    label_value,
    qualified_name,
    required,
    unsupported,
)

PORT_RANGE = "must be between 1 and 65535, inclusive"
NOT_NEGATIVE = "must be greater than or equal to 0"
_percent = re.compile(r"[0-9]+%").fullmatch
_PERCENT_TEXT = (
    "a valid percent string must be a numeric string followed by an ending '%' "
    "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
)

_LINK_LOCAL_MULTICAST = (ip_network("224.0.0.0/24"), ip_network("ff02::/16"))


def port_errors(port: int, path: Path) -> list[FieldError]:
    return [] if 1 <= port <= 65535 else [invalid(path, port, PORT_RANGE)]


def port_name_texts(name: str) -> list[str]:
    """Give what keeps a text from being the name of a port (an IANA service name)."""
    if len(name) > 15:
        return ["must be no more than 15 characters"]
    if not re.fullmatch("[-a-z0-9]+", name):
        return ["must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"]
    errors = []
    if not re.search("[a-z]", name):
        errors.append("must contain at least one letter (a-z)")
    if "--" in name:
        errors.append("must not contain consecutive hyphens")
    if name[0] == "-" or name[-1] == "-":
        errors.append("must not begin or end with a hyphen")
    return errors


def port_or_name_errors(value: Any, path: Path) -> list[FieldError]:
    """Check a port that may be given by number or by name."""
    if isinstance(value, int):
        return port_errors(value, path)
    return [invalid(path, value, text) for text in port_name_texts(value)]


def label_name_errors(name: str, path: Path) -> list[FieldError]:
    """Check a name that must be an RFC 1123 label."""
    return [invalid(path, name, text) for text in dns_label(name)]


def qualified_errors(name: str, path: Path) -> list[FieldError]:
    return [invalid(path, name, text) for text in qualified_name(name)]


def one_of(value: str, allowed: Iterable[str], path: Path) -> list[FieldError]:
    """Check one of a few words; an empty one is missing."""
    allowed = tuple(allowed)
    if value in allowed:
        return []
    return [unsupported(path, value, allowed) if value else required(path)]


def address_errors(text: str, path: Path) -> list[FieldError]:
    """Check an IPv4 or IPv6 address."""
    try:
        ip_address(text)
    except ValueError:
        return [invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    return []


def special_errors(text: str, path: Path) -> list[FieldError]:
    """Check that an address is one of a host that others may reach: a proxy that is led to itself or to its link is a way in."""
    address = plain_address(text)
    if address.is_unspecified:
        return [invalid(path, text, f"may not be unspecified ({text})")]
    if address.is_loopback:
        return [invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if address.is_link_local:
        return [invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    if any(address in range_ for range_ in _LINK_LOCAL_MULTICAST if range_.version == address.version):
        return [invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")]
    return []


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Read an address; one of IPv4 in the form of IPv6 (``::ffff:127.0.0.1``) is what it means. Raises ValueError."""
    address = ip_address(text)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def range_errors(text: str, path: Path) -> list[FieldError]:
    """Check a range of addresses, ``10.9.8.0/24``."""
    try:
        ip_network(text, strict=False)
        proper = "/" in text
    except ValueError:
        proper = False
    return [] if proper else [invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]


def not_negative(value: int | None, path: Path) -> list[FieldError]:
    return [] if value is None or value >= 0 else [invalid(path, value, NOT_NEGATIVE)]


def amount_or_percent_errors(value: Any, path: Path, *, at_most_all: bool = False) -> list[FieldError]:
    """Check a number or a percentage, ``25%``."""
    if isinstance(value, int):
        return not_negative(value, path)
    if not _percent(value):
        return [invalid(path, value, _PERCENT_TEXT)]
    return [invalid(path, value, "must not be greater than 100%")] if at_most_all and int(value[:-1]) > 100 else []


def amount_errors(text: str, path: Path) -> list[FieldError]:
    """Check a quantity that may not be negative."""
    return [] if quantity.value(text) >= 0 else [invalid(path, text, NOT_NEGATIVE)]


def selector_errors(selector: Tree, path: Path) -> list[FieldError]:
    """Check a label selector."""
    errors = label_errors(selector.get("matchLabels", {}), path / "matchLabels")
    for index, requirement in enumerate(selector.get("matchExpressions", ())):
        errors += _requirement_errors(requirement, path / "matchExpressions" @ index)
    return errors


def _requirement_errors(requirement: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = requirement.get("operator", ""), requirement.get("values", [])
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(path / "values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            errors.append(forbidden(path / "values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
    else:
        errors.append(invalid(path / "operator", operator, "not a valid selector operator"))
    errors += qualified_errors(requirement.get("key", ""), path / "key")
    for index, value in enumerate(values):
        errors += [invalid(path / "values" @ index, value, text) for text in label_value(value)]
    return errors
