"""Rows of the cloud's Compute API, group compute.podwire.dev, version v1: served by the same machinery as Kubernetes' kinds.

Source: https://cloud.google.com/compute/docs/reference/rest/v1
"""

from __future__ import annotations

from podwire.apiserver.kind import Kind
from podwire.apiserver.validation import dns_1035_label

_DEFINITION = "dev.podwire.compute.v1."
_GROUP = "compute.podwire.dev"

ADDRESS = Kind(
    _GROUP,
    "v1",
    "addresses",
    "Address",
    False,
    _DEFINITION + "Address",
    short_names=("addr",),
    categories=("compute",),
    name_errors=dns_1035_label,
)
FORWARDING_RULE = Kind(
    _GROUP,
    "v1",
    "forwardingrules",
    "ForwardingRule",
    False,
    _DEFINITION + "ForwardingRule",
    short_names=("fr",),
    categories=("compute",),
    name_errors=dns_1035_label,
)
TARGET_POOL = Kind(
    _GROUP,
    "v1",
    "targetpools",
    "TargetPool",
    False,
    _DEFINITION + "TargetPool",
    short_names=("tp",),
    categories=("compute",),
    name_errors=dns_1035_label,
)
INSTANCE = Kind(
    _GROUP,
    "v1",
    "instances",
    "Instance",
    False,
    _DEFINITION + "Instance",
    short_names=("vm",),
    categories=("compute",),
    name_errors=dns_1035_label,
)

KINDS = (ADDRESS, FORWARDING_RULE, TARGET_POOL, INSTANCE)
