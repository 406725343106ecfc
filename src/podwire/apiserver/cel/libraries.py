"""The functions that Kubernetes adds to CEL: lists, regular expressions, URLs, addresses, quantities, semantic versions, formats, sets.

Source: https://kubernetes.io/docs/reference/using-api/cel/#cel-options-language-features-and-libraries
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from podwire.apiserver import quantity, validation
from podwire.apiserver.cel import authorization, texts
from podwire.apiserver.cel.functions import FUNCTIONS, define, element, of, on, pattern
from podwire.apiserver.cel.types import (
    BOOL,
    CIDR,
    DOUBLE,
    FORMAT,
    INT,
    IP,
    LIST,
    QUANTITY,
    SEMVER,
    STRING,
    URL,
    Type,
    list_of,
    map_of,
    optional_of,
)
from podwire.apiserver.cel.values import (
    MOST_STEPS,
    NONE,
    Fault,
    Format,
    Optional,
    Quantity,
    Semver,
    Uint,
    Url,
    compare,
    equal,
    no_overload,
    whole,
    within,
)
from podwire.apiserver.extension.formats import FORMATS

assert authorization  # it has put its functions into the table
assert texts  # so has it


def _checked(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind) or (kind is int and type(value) is bool):
        raise no_overload()
    return value


def _succeeds(read: Callable[..., Any]) -> Callable[..., bool]:
    def test(*values: Any) -> bool:
        try:
            read(*values)
        except Fault as fault:
            if str(fault) == "no such overload":
                raise
            return False
        return True

    return test


_LONGEST_RANGE = 1000  # a step of it costs nothing else

# Lists -----------------------------------------------------------------------------------------------------------------


@define("isSorted", on(LIST, gives=BOOL), weighs=True)
def _is_sorted(value: Any) -> bool:
    return all(compare(one, other) <= 0 for one, other in zip(_checked(list, value), value[1:], strict=False))


@define("sum", on(LIST, gives=element), weighs=True)
def _sum(value: Any) -> Any:
    add, total = FUNCTIONS["_+_"].work, None
    for one in _checked(list, value):
        total = one if total is None else add(total, one)
    return 0 if total is None else total


def _extreme(wanted: int, name: str) -> Callable[[Any], Any]:
    def work(value: Any) -> Any:
        if not _checked(list, value):
            raise Fault(f"{name} called on empty list")
        found = value[0]
        for one in value[1:]:
            found = one if compare(one, found) == wanted else found
        return found

    return work


define("min", on(LIST, gives=element), weighs=True)(_extreme(-1, "min"))
define("max", on(LIST, gives=element), weighs=True)(_extreme(1, "max"))


def _same(found: Sequence[Type]) -> Type:
    return found[0]


def _maybe_element(found: Sequence[Type]) -> Type:
    return optional_of(element(found))


define("reverse", on(STRING, gives=STRING), on(LIST, gives=_same), weighs=True)(lambda value: _checked((str, list), value)[::-1])
define("first", on(LIST, gives=_maybe_element))(lambda value: Optional(value[0], True) if _checked(list, value) else NONE)
define("last", on(LIST, gives=_maybe_element))(lambda value: Optional(value[-1], True) if _checked(list, value) else NONE)


@define("slice", on(LIST, INT, INT, gives=_same), weighs=True)
def _slice(value: Any, start: int, end: int) -> Any:
    if not 0 <= start <= end <= len(_checked(list, value)):
        raise Fault(f"cannot slice({start}, {end}), list is length {len(value)}")
    return value[start:end]


@define("distinct", on(LIST, gives=_same), weighs=True)
def _distinct(value: Any) -> list[Any]:
    found: list[Any] = []
    within(MOST_STEPS, len(_checked(list, value)) ** 2)
    for one in value:
        if not any(equal(one, other) for other in found):
            found.append(one)
    return found


@define("sort", on(LIST, gives=_same), weighs=True)
def _sort(value: Any) -> list[Any]:
    return sorted(_checked(list, value))


@define("flatten", on(LIST, gives=LIST), on(LIST, INT, gives=LIST), weighs=True)
def _flatten(value: Any, depth: int = 1) -> list[Any]:
    if depth < 0:
        raise Fault("level must be non-negative")
    found: list[Any] = []
    for one in _checked(list, value):
        found += _flatten(one, depth - 1) if type(one) is list and depth else [one]
    return found


@define("lists.range", of(INT, gives=list_of(INT)))
def _range(count: int) -> list[int]:
    within(_LONGEST_RANGE, count)
    return list(range(count))


def _every(few: Any, many: Any) -> bool:
    """Whether each of the first is one of the second."""
    within(MOST_STEPS, len(_checked(list, few)) * len(_checked(list, many)))
    return all(any(equal(one, other) for other in many) for one in few)


def _some(few: Any, many: Any) -> bool:
    within(MOST_STEPS, len(_checked(list, few)) * len(_checked(list, many)))
    return any(equal(one, other) for other in many for one in few)


_TWO_LISTS = of(LIST, LIST, gives=BOOL)
define("sets.contains", _TWO_LISTS, weighs=True)(lambda many, few: _every(few, many))
define("sets.equivalent", _TWO_LISTS, weighs=True)(lambda many, few: _every(few, many) and _every(many, few))
define("sets.intersects", _TWO_LISTS, weighs=True)(_some)


# Regular expressions -----------------------------------------------------------------------------------------------------


@define("find", on(STRING, STRING, gives=STRING), weighs=True)
def _find(value: Any, text: Any) -> str:
    match = pattern(_checked(str, text)).search(_checked(str, value))
    return match.group() if match is not None else ""


@define("findAll", on(STRING, STRING, gives=list_of(STRING)), on(STRING, STRING, INT, gives=list_of(STRING)), weighs=True)
def _find_all(value: Any, text: Any, count: int = -1) -> list[str]:
    found = [match.group() for match in pattern(_checked(str, text)).finditer(_checked(str, value))]
    return found if count < 0 else found[:count]


# URLs ----------------------------------------------------------------------------------------------------------------------


@define("url", of(STRING, gives=URL))
def _url(text: Any) -> Url:
    fault = Fault(f"URL parse error during conversion from string: parse {_checked(str, text)!r}: invalid URI for request")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise fault from None
    if not (parts.scheme and (parts.netloc or parts.path.startswith("/"))) and not text.startswith("/"):
        raise fault
    host = parts.netloc.rpartition("@")[2]
    hostname = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return Url(parts.scheme, host, hostname, "" if parts.port is None else str(parts.port), parts.path, parts.query)


define("isURL", of(STRING, gives=BOOL))(_succeeds(_url))
for _name, _field in (
    ("getScheme", "scheme"),
    ("getHost", "host"),
    ("getHostname", "hostname"),
    ("getPort", "port"),
    ("getEscapedPath", "path"),
):
    define(_name, on(URL, gives=STRING))(lambda value, field=_field: getattr(_checked(Url, value), field))


@define("getQuery", on(URL, gives=map_of(STRING, list_of(STRING))))
def _query(value: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, one in parse_qsl(_checked(Url, value).query, keep_blank_values=True):
        found.setdefault(key, []).append(one)
    return found


# Addresses -----------------------------------------------------------------------------------------------------------------


@define("ip", of(STRING, gives=IP), on(CIDR, gives=IP))
def _ip(value: Any) -> Any:
    if hasattr(value, "network"):
        return value.ip
    try:
        if "%" in _checked(str, value) or ("." in value and ":" in value):
            raise ValueError(value)
        return ip_address(value)
    except ValueError:
        raise Fault(f"IP Address {value!r} parse error during conversion from string: ParseAddr({value!r}): unable to parse IP") from None


@define("cidr", of(STRING, gives=CIDR))
def _cidr(value: Any) -> Any:
    try:
        if "/" not in _checked(str, value):
            raise ValueError(value)
        return ip_interface(value)
    except ValueError:
        raise Fault(f"network address parse error during conversion from string: netip.ParsePrefix({value!r}): no '/'") from None


define("isIP", of(STRING, gives=BOOL))(_succeeds(_ip))
define("isCIDR", of(STRING, gives=BOOL))(_succeeds(_cidr))
define("ip.isCanonical", of(STRING, gives=BOOL))(lambda value: str(_ip(value)) == value)
define("family", on(IP, gives=INT))(lambda value: value.version)
define("isUnspecified", on(IP, gives=BOOL))(lambda value: value.is_unspecified)
define("isLoopback", on(IP, gives=BOOL))(lambda value: value.is_loopback)
define("isLinkLocalUnicast", on(IP, gives=BOOL))(lambda value: value.is_link_local)
define("isLinkLocalMulticast", on(IP, gives=BOOL))(lambda value: value in ip_network("224.0.0.0/24" if value.version == 4 else "ff02::/16"))
define("isGlobalUnicast", on(IP, gives=BOOL))(
    lambda value: (
        not (value.is_unspecified or value.is_loopback or value.is_multicast or value.is_link_local or str(value) == "255.255.255.255")
    )
)
define("containsIP", on(CIDR, IP, gives=BOOL), on(CIDR, STRING, gives=BOOL))(
    lambda value, other: (_ip(other) if type(other) is str else other) in value.network
)


@define("containsCIDR", on(CIDR, CIDR, gives=BOOL), on(CIDR, STRING, gives=BOOL))
def _contains(value: Any, other: Any) -> bool:
    inner = _cidr(other) if type(other) is str else other
    return bool(value.version == inner.version and inner.network.subnet_of(value.network))


define("masked", on(CIDR, gives=CIDR))(lambda value: ip_interface(str(value.network)))
define("prefixLength", on(CIDR, gives=INT))(lambda value: value.network.prefixlen)


# Quantities ------------------------------------------------------------------------------------------------------------------


@define("quantity", of(STRING, gives=QUANTITY))
def _quantity(text: Any) -> Quantity:
    try:
        return Quantity(Fraction(quantity.value(_checked(str, text))))
    except quantity.Malformed:
        raise Fault("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'") from None


define("isQuantity", of(STRING, gives=BOOL))(_succeeds(_quantity))


def _other(value: Any) -> Fraction:
    return Fraction(value) if type(value) in (int, Uint) else _checked(Quantity, value).amount


_TWO = (on(QUANTITY, QUANTITY, gives=QUANTITY), on(QUANTITY, INT, gives=QUANTITY))
define("add", *_TWO)(lambda value, other: Quantity(_checked(Quantity, value).amount + _other(other)))
define("sub", *_TWO)(lambda value, other: Quantity(_checked(Quantity, value).amount - _other(other)))
define("isInteger", on(QUANTITY, gives=BOOL))(lambda value: value.amount.denominator == 1 and abs(value.amount) < 1 << 63)
define("asApproximateFloat", on(QUANTITY, gives=DOUBLE))(lambda value: float(value.amount))
define("sign", on(QUANTITY, gives=INT))(lambda value: (value.amount > 0) - (value.amount < 0))


@define("asInteger", on(QUANTITY, gives=INT))
def _as_integer(value: Any) -> int:
    if _checked(Quantity, value).amount.denominator != 1:
        raise Fault("cannot convert value to integer")
    return whole(int(value.amount))


def _ranked(one: Any, other: Any) -> tuple[Any, Any]:
    if type(one) is not type(other) or type(one) not in (Quantity, Semver):
        raise no_overload()
    return (one.amount, other.amount) if type(one) is Quantity else (one.rank, other.rank)


def _ordering(test: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda one, other: test(*_ranked(one, other))


for _name, _test in (
    ("isGreaterThan", lambda one, other: one > other),
    ("isLessThan", lambda one, other: one < other),
):
    define(_name, on(QUANTITY, QUANTITY, gives=BOOL), on(SEMVER, SEMVER, gives=BOOL))(_ordering(_test))
define("compareTo", on(QUANTITY, QUANTITY, gives=INT), on(SEMVER, SEMVER, gives=INT))(
    _ordering(lambda one, other: (one > other) - (one < other))
)


# Semantic versions -----------------------------------------------------------------------------------------------------------

_IDENTIFIER = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(rf"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+[0-9A-Za-z.-]+)?")


@define("semver", of(STRING, gives=SEMVER), of(STRING, BOOL, gives=SEMVER))
def _semver(text: Any, normalize: bool = False) -> Semver:
    if normalize:
        text = _checked(str, text).strip().removeprefix("v")
        head, sign, tail = re.sub(r"^([\d.]+)", lambda found: ".".join(str(int(one or 0)) for one in found[1].split(".")), text).partition(
            "-"
        )
        text = ".".join([*head.split("."), "0", "0"][:3]) + sign + tail
    match = _SEMVER.fullmatch(_checked(str, text))
    if match is None:
        raise Fault("No Major.Minor.Patch elements found")
    numbers = [int(match[place]) for place in (1, 2, 3)]
    before = tuple((0, int(one), "") if one.isdigit() else (1, 0, one) for one in match[4].split(".")) if match[4] else ()
    major, minor, patch = numbers
    return Semver(major, minor, patch, (*numbers, not before, before))


define("isSemver", of(STRING, gives=BOOL), of(STRING, BOOL, gives=BOOL))(_succeeds(_semver))
for _name in ("major", "minor", "patch"):
    define(_name, on(SEMVER, gives=INT))(lambda value, field=_name: getattr(_checked(Semver, value), field))


# Formats ---------------------------------------------------------------------------------------------------------------------


def _known(name: str, text: str) -> Callable[[str], list[str]]:
    return lambda value: [] if FORMATS[name](value) else [text]


_NAMED: dict[str, Callable[[str], list[str]]] = {
    "dns1123Label": validation.dns_label,
    "dns1123Subdomain": validation.dns_subdomain,
    "dns1035Label": validation.dns_1035_label,
    "qualifiedName": validation.qualified_name,
    "dns1123LabelPrefix": lambda value: validation.dns_label(value, True),
    "dns1123SubdomainPrefix": lambda value: validation.dns_subdomain(value, True),
    "dns1035LabelPrefix": lambda value: validation.dns_1035_label(value, True),
    "labelValue": validation.label_value,
    "uri": _known("uri", "invalid URI"),
    "uuid": _known("uuid", "does not match the UUID format"),
    "byte": _known("byte", "invalid base64"),
    "date": _known("date", "invalid date"),
    "datetime": _known("date-time", "invalid datetime"),
}


@define("format.named", of(STRING, gives=optional_of(FORMAT)))
def _format(name: Any) -> Optional:
    return Optional(Format(name), True) if name in _NAMED else NONE


for _name in _NAMED:
    define(f"format.{_name}", of(gives=FORMAT))(lambda name=_name: Format(name))


@define("validate", on(FORMAT, STRING, gives=optional_of(list_of(STRING))), weighs=True)
def _validate(value: Any, text: Any) -> Optional:
    errors = _NAMED[_checked(Format, value).name](_checked(str, text))
    return Optional(errors, True) if errors else NONE
