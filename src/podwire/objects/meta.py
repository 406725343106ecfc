"""Metadata that every object carries, and label selectors.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_ACRONYMS = {
    "ip": "IP",
    "ips": "IPs",
    "cidr": "CIDR",
    "cidrs": "CIDRs",
    "dns": "DNS",
    "fqdn": "FQDN",
    "uid": "UID",
    "uuid": "UUID",
    "api": "API",
    "id": "ID",
    "os": "OS",
    "qos": "QOS",
    "pid": "PID",
    "ipc": "IPC",
}


def kubernetes_name(field: str) -> str:
    """Give the API's spelling of a field: ``cluster_ip`` is ``clusterIP``, ``host_network`` is ``hostNetwork``.

    A word at the head stays in lower case (``uid``, ``ip``); a trailing underscore, which keeps a name off Python's
    keywords, is dropped (``from_`` is ``from``).
    """
    head, *rest = re.split("_", field.rstrip("_"))
    return head + "".join(_ACRONYMS.get(word, word.capitalize()) for word in rest)


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=kubernetes_name):
    """The base of all objects: frozen, built by keyword, encoded without its defaults."""


class OwnerReference(Value, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Value, frozen=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()


class Object(Value, frozen=True):
    """An object with metadata. ``api_version`` and ``kind`` are absent on the items of a list, so they may be empty."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()

    @property
    def key(self) -> str:
        """``namespace/name``, or ``name`` where the object has no namespace: the key of every table."""
        meta = self.metadata
        return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace


class SelectorRequirement(Value, frozen=True):
    key: str = ""
    operator: str = "In"
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether the labels satisfy this requirement (In, NotIn, Exists, DoesNotExist, and Gt and Lt of node selectors)."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                return _compares(value, self.operator, self.values)
        return False


def _compares(value: str | None, operator: str, values: tuple[str, ...]) -> bool:
    try:
        left, right = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


class LabelSelector(Value, frozen=True):
    """A label selector. An empty one matches everything; an absent one (``None`` where it is held) matches nothing."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[SelectorRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Say whether an equality selector, as Services have it, matches. An empty selector selects nothing (it has no Pods)."""
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())
