"""What a Pod tells its containers of itself: its fields, and the resources of its containers. Pure.

Source: https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from podwire.objects.core import Container, Pod
from podwire.objects.quantities import exact
from podwire.objects.volumes import ResourceFieldSelector

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")
Amounts = Mapping[str, str | int | float]


class NoSuchField(Exception):
    """A field that cannot be referred to; the text says which."""


def field(pod: Pod, path: str, more: Callable[[str], str | None] = lambda _: None) -> str:
    """The text of a ``fieldRef``. ``more`` gives what a path stands for beyond the object (``status.podIP``). Raises NoSuchField."""
    meta = pod.metadata
    match = _SUBSCRIPT.fullmatch(path)
    if match:
        return (meta.labels if match[1] == "labels" else meta.annotations).get(match[2], "")
    known = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "metadata.labels": _map(meta.labels),
        "metadata.annotations": _map(meta.annotations),
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name or "default",
    }
    value = known[path] if path in known else more(path)
    if value is None:
        raise NoSuchField(f"unsupported fieldPath: {path}")
    return value


def _map(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in sorted(values))


def resource(pod: Pod, container: Container | None, selector: ResourceFieldSelector, allocatable: Amounts) -> str:
    """The amount that a ``resourceFieldRef`` stands for, in whole divisors, rounded up.

    A limit that is not set is all that the node has: ``allocatable``. ``container``: whose it is where the reference names none. Raises
    NoSuchField.
    """
    if selector.container_name:
        every = (*pod.spec.init_containers, *pod.spec.containers)
        container = next((one for one in every if one.name == selector.container_name), None)
    if container is None:
        raise NoSuchField(f"container {selector.container_name} not found")
    kind, _, name = selector.resource.partition(".")
    if kind not in {"limits", "requests"} or not name:
        raise NoSuchField(f"unsupported container resource : {selector.resource}")
    amounts: Amounts = container.resources.limits if kind == "limits" else container.resources.requests
    amount = amounts.get(name, allocatable.get(name, 0) if kind == "limits" else 0)
    divisor = _number(selector.divisor) or Fraction(1)
    return str(math.ceil(_number(amount) / divisor))


def _number(quantity: str | int | float) -> Fraction:
    return exact(quantity) if isinstance(quantity, str) else Fraction(quantity)
