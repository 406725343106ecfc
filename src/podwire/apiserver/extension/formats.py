"""Formats of texts that a schema may ask for. One that is not known here asks for nothing.

Source: https://github.com/go-openapi/strfmt and the formats that
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation names.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import date
from urllib.parse import urlsplit

_DATE_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"-?(\d+(\.\d+)?\s*(ns|us|µs|μs|ms|s|m|h|d|w))+|0")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_HOST_LABEL = r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\.?$){_HOST_LABEL}(\.{_HOST_LABEL})*\.?")
_MAC = re.compile(r"([0-9A-Fa-f]{2}[:-]){5,7}[0-9A-Fa-f]{2}|([0-9A-Fa-f]{4}\.){2,3}[0-9A-Fa-f]{4}")
_HEX_COLOR = re.compile(r"#?([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})")
_RGB_COLOR = re.compile(r"rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)")
_LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _succeeds(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


def _date(text: str) -> None:
    if len(text) != 10:
        raise ValueError(text)
    date.fromisoformat(text)


def date_time(text: str) -> bool:
    """Say whether a text is a time of RFC 3339."""
    match = _DATE_TIME.fullmatch(text)
    return match is not None and _is_date(match[1]) and int(match[2]) < 24 and int(match[3]) < 60 and int(match[4]) < 61


def _uri(text: str) -> bool:
    try:
        found = urlsplit(text)
    except ValueError:
        return False
    return not any(sign.isspace() for sign in text) and (bool(found.scheme) or text.startswith("/"))


def _address(version: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            return ipaddress.ip_address(text).version == version
        except ValueError:
            return False

    return check


def _uuid(version: int = 0) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            found = uuid.UUID(text)
        except ValueError:
            return False
        return not version or found.version == version

    return check


def _base64(text: str) -> None:
    base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)


_is_date = _succeeds(_date)

FORMATS: dict[str, Callable[[str], bool]] = {
    "byte": _succeeds(_base64),
    "cidr": lambda text: "/" in text and _succeeds(ipaddress.ip_interface)(text),
    "date": _is_date,
    "date-time": date_time,
    "datetime": date_time,
    "duration": _matches(_DURATION),
    "email": _matches(_EMAIL),
    "hexcolor": _matches(_HEX_COLOR),
    "hostname": _matches(_HOST),
    "ipv4": _address(4),
    "ipv6": _address(6),
    "k8s-long-name": lambda text: len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None,
    "k8s-short-name": lambda text: len(text) <= 63 and _LABEL_1123.fullmatch(text) is not None,
    "mac": _matches(_MAC),
    "rgbcolor": _matches(_RGB_COLOR),
    "uri": _uri,
    "uuid": _uuid(),
    "uuid3": _uuid(3),
    "uuid4": _uuid(4),
    "uuid5": _uuid(5),
}
