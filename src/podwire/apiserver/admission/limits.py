"""LimitRanges: what Pods and claims are given, and what they may ask for.

Source: https://kubernetes.io/docs/concepts/policy/limit-range/
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from podwire.apiserver import quantity

Tree = dict[str, Any]
ANNOTATION = "kubernetes.io/limit-ranger"
"""What a Pod was given is told here."""


def fill(pod: Tree, ranges: Iterable[Tree]) -> None:
    """Give the containers of a new Pod the requests and limits that LimitRanges have for those that say none."""
    spec, said = pod.get("spec", {}), []
    for one in ranges:
        for limit in one.get("spec", {}).get("limits", ()):
            if limit.get("type") != "Container":
                continue
            for part, word in (("containers", "container"), ("initContainers", "init container")):
                for container in spec.get(part, ()):
                    said += [f"{given} for {word} {container['name']}" for given in _fill(container, limit)]
    if said:
        pod.setdefault("metadata", {}).setdefault("annotations", {})[ANNOTATION] = f"LimitRanger plugin set: {'; '.join(said)}"


def _fill(container: Tree, limit: Tree) -> Iterator[str]:
    """Fill in what a container does not say, and tell what: ``cpu, memory request``."""
    limits = {**limit.get("max", {}), **limit.get("default", {})}
    requests = {**limit.get("min", {}), **limits, **limit.get("defaultRequest", {})}
    for part, given in (("requests", requests), ("limits", limits)):
        missing = given.keys() - container.get("resources", {}).get(part, {}).keys()
        if missing:
            container.setdefault("resources", {}).setdefault(part, {}).update({name: given[name] for name in given if name in missing})
            yield f"{', '.join(sorted(missing))} {part.removesuffix('s')}"


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
        if name in total or word == "requests":
            total[name] = total.get(name, Decimal(0)) + quantity.value(str(value))
    return total


def _bounds(limit: Tree, what: str, requests: dict[str, Decimal], limits: dict[str, Decimal]) -> Iterator[str]:
    for name, least in limit.get("min", {}).items():
        yield from itertools.islice(_too_little(name, least, what, requests.get(name), limits.get(name)), 1)
    for name, most in limit.get("max", {}).items():
        if what == "PersistentVolumeClaim":
            found = requests.get(name)
            if found is not None and found > quantity.value(most):
                yield f"maximum {name} usage per {what} is {most}, but request is {quantity.text(name, found)}"
            continue
        yield from itertools.islice(_too_much(name, most, what, requests.get(name), limits.get(name)), 1)
    for name, ratio in limit.get("maxLimitRequestRatio", {}).items():
        asked, found = requests.get(name), limits.get(name)
        if asked and not found:
            yield f"{name} max limit to request ratio per {what} is {ratio}, but no limit is specified or limit is 0"
        elif not asked or not found:
            yield f"{name} max limit to request ratio per {what} is {ratio}, but no request is specified or request is 0"
        elif found / asked > quantity.value(ratio):
            yield f"{name} max limit to request ratio per {what} is {ratio}, but provided ratio is {float(found / asked):f}"


def _too_little(name: str, least: str, what: str, request: Decimal | None, limit: Decimal | None) -> Iterator[str]:
    """What is wrong with a minimum; the first is said."""
    if request is None:
        yield f"minimum {name} usage per {what} is {least}.  No request is specified"
    for word, found in (("request", request), ("limit", limit)):
        if found is not None and found < quantity.value(least):
            yield f"minimum {name} usage per {what} is {least}, but {word} is {quantity.text(name, found)}"


def _too_much(name: str, most: str, what: str, request: Decimal | None, limit: Decimal | None) -> Iterator[str]:
    """What is wrong with a maximum; the first is said."""
    if limit is None:
        yield f"maximum {name} usage per {what} is {most}.  No limit is specified"
    for word, found in (("limit", limit), ("request", request)):
        if found is not None and found > quantity.value(most):
            yield f"maximum {name} usage per {what} is {most}, but {word} is {quantity.text(name, found)}"
