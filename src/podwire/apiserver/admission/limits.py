"""LimitRanges: what Pods and claims are given, and what they may ask for.

Source: https://kubernetes.io/docs/concepts/policy/limit-range/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from podwire.apiserver import quantity

Tree = dict[str, Any]


def fill(pod: Tree, ranges: Iterable[Tree]) -> None:
    """Give the containers of a new Pod the requests and limits that LimitRanges have for those that say none."""
    spec = pod.get("spec", {})
    for one in ranges:
        for limit in one.get("spec", {}).get("limits", ()):
            if limit.get("type") != "Container":
                continue
            for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
                _fill(container, limit)


def _fill(container: Tree, limit: Tree) -> None:
    limits = {**limit.get("max", {}), **limit.get("default", {})}
    requests = {**limit.get("min", {}), **limits, **limit.get("defaultRequest", {})}
    for word, given in (("limits", limits), ("requests", requests)):
        for name, value in given.items():
            container.setdefault("resources", {}).setdefault(word, {}).setdefault(name, value)


def refusals(kind: str, tree: Tree, ranges: Iterable[Tree]) -> list[str]:
    """Give what a Pod or a claim asks for that a LimitRange does not let it have."""
    found: list[str] = []
    for one in ranges:
        for limit in one.get("spec", {}).get("limits", ()):
            found += _refusals(kind, tree, limit)
    return found


def _refusals(kind: str, tree: Tree, limit: Tree) -> Iterator[str]:
    what, spec = limit.get("type"), tree.get("spec", {})
    if kind == "pods" and what == "Container":
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
            yield from _bounds(limit, "Container", _amounts(container, "requests"), _amounts(container, "limits"))
    elif kind == "pods" and what == "Pod":
        yield from _bounds(limit, "Pod", pod_amounts(spec, "requests"), pod_amounts(spec, "limits"))
    elif kind == "persistentvolumeclaims" and what == "PersistentVolumeClaim":
        asked = _amounts(spec, "requests")
        yield from _bounds({key: limit[key] for key in ("min", "max") if key in limit}, "PersistentVolumeClaim", asked, asked)


def _amounts(owner: Tree, word: str) -> dict[str, Decimal]:
    return {name: quantity.value(str(one)) for name, one in owner.get("resources", {}).get(word, {}).items()}


def pod_amounts(spec: Tree, word: str) -> dict[str, Decimal]:
    """Add up what a Pod's containers ask for; those that run first, one after the other, count by the largest. Sidecars stay."""
    total: dict[str, Decimal] = {}
    for container in spec.get("containers", ()):
        for name, value in _amounts(container, word).items():
            total[name] = total.get(name, Decimal(0)) + value
    stay: dict[str, Decimal] = {}
    most: dict[str, Decimal] = {}
    for container in spec.get("initContainers", ()):
        asked = _amounts(container, word)
        for name, value in asked.items():
            most[name] = max(most.get(name, Decimal(0)), value + stay.get(name, Decimal(0)))
            if container.get("restartPolicy") == "Always":
                stay[name] = stay.get(name, Decimal(0)) + value
    for name in dict.fromkeys((*total, *stay, *most)):
        total[name] = max(total.get(name, Decimal(0)) + stay.get(name, Decimal(0)), most.get(name, Decimal(0)))
    for name, value in spec.get("overhead", {}).items():
        if name in total:
            total[name] += quantity.value(str(value))
    return total


def _bounds(limit: Tree, what: str, requests: dict[str, Decimal], limits: dict[str, Decimal]) -> Iterator[str]:
    for name, least in limit.get("min", {}).items():
        yield from _below(name, least, what, "request", requests.get(name))
        if name in limits:
            yield from _below(name, least, what, "limit", limits[name])
    for name, most in limit.get("max", {}).items():
        if what == "PersistentVolumeClaim":
            found = requests.get(name)
            if found is not None and found > quantity.value(most):
                yield f"maximum {name} usage per {what} is {most}, but request is {quantity.canonical(str(found))}"
            continue
        found = limits.get(name)
        if found is None:
            yield f"maximum {name} usage per {what} is {most}.  No limit is specified"
        elif found > quantity.value(most):
            yield f"maximum {name} usage per {what} is {most}, but limit is {quantity.canonical(str(found))}"
        asked = requests.get(name)
        if asked is not None and asked > quantity.value(most):
            yield f"maximum {name} usage per {what} is {most}, but request is {quantity.canonical(str(asked))}"
    for name, ratio in limit.get("maxLimitRequestRatio", {}).items():
        asked, found = requests.get(name), limits.get(name)
        if not asked or not found:
            yield f"{name} max limit to request ratio per {what} is {ratio}, but no request is specified or request is 0"
        elif found / asked > quantity.value(ratio):
            yield f"{name} max limit to request ratio per {what} is {ratio}, but provided ratio is {float(found / asked):f}"


def _below(name: str, least: str, what: str, word: str, found: Decimal | None) -> Iterator[str]:
    if found is None:
        yield f"minimum {name} usage per {what} is {least}.  No {word} is specified"
    elif found < quantity.value(least):
        yield f"minimum {name} usage per {what} is {least}, but {word} is {quantity.canonical(str(found))}"
