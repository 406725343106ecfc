"""PodSecurity: a namespace's labels say how much its Pods may do, and what becomes of those that would do more. Pure.

    pod-security.kubernetes.io/enforce: LEVEL     a Pod that violates it is refused
    pod-security.kubernetes.io/warn: LEVEL        its writer is warned; who says nothing is warned of what is enforced
    pod-security.kubernetes.io/audit: LEVEL       the audit log tells of it
    .../enforce-version, warn-version, audit-version: the standards as a version of Kubernetes has them, v1.N or latest

A Pod of a workload is refused when it is made, by nobody whom a person sees; so who writes a workload is warned of its template.

Here: what labels mean, what is said of a Pod, of a template, of Pods that are there when the level rises. Not here: the standards
(``pod_standards.py``); who asks (``chain.py``, ``gate.py``).

Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from podwire.apiserver.admission import pod_standards
from podwire.apiserver.admission.pod_standards import BASELINE, NEWEST, PRIVILEGED, RESTRICTED, Wrong
from podwire.apiserver.validation import FieldError, Path, invalid, summary

Tree = Mapping[str, Any]
PREFIX = "pod-security.kubernetes.io/"
MOST = 3000
"""Pods that are looked at when the level of a namespace rises."""

_LEVELS = (PRIVILEGED, BASELINE, RESTRICTED)
_LATEST = "latest"
_VERSION = re.compile("v1\\.(0|[1-9][0-9]{0,17})")
_LABELS = Path("metadata") / "labels"
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "replicationcontrollers": ("spec", "template"),
    "replicasets.apps": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}
"""Where objects have the template of a Pod."""

# Subresources of a Pod through which nothing is written that the standards look at.
UNCONCERNED = frozenset({"exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"})


# What labels mean --------------------------------------------------------------------------------------------------------------


class Standard(NamedTuple):
    """A level, as it is in a version."""

    level: str = PRIVILEGED
    version: str = _LATEST

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"

    @property
    def minor(self) -> int:
        return NEWEST if self.version == _LATEST else int(self.version.removeprefix("v1."))

    def faults(self, metadata: Tree, spec: Tree) -> list[Wrong]:
        """Give what it has against a Pod."""
        return pod_standards.faults(self.level, self.minor, metadata, spec)


class Policy(NamedTuple):
    """What the labels of a namespace say. ``errors``: what is wrong with them; then the strictest is enforced."""

    enforce: Standard = Standard()
    audit: Standard = Standard()
    warn: Standard = Standard()
    errors: tuple[FieldError, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it has nothing against any Pod."""
        return not self.errors and all(one.level == PRIVILEGED for one in (self.enforce, self.audit, self.warn))


_OPEN = Policy()


def policy(labels: Mapping[str, str]) -> Policy:
    """Read the labels of a namespace."""
    if not any(key.startswith(PREFIX) for key in labels):
        return _OPEN
    errors: list[FieldError] = []
    enforce = Standard(_level(labels, "enforce", RESTRICTED, errors), _version(labels, "enforce", errors))
    audit = Standard(_level(labels, "audit", PRIVILEGED, errors), _version(labels, "audit", errors))
    warn = Standard(_level(labels, "warn", PRIVILEGED, errors), _version(labels, "warn", errors))
    if PREFIX + "warn" not in labels and labels.get(PREFIX + "enforce") in (BASELINE, RESTRICTED):
        own_version = PREFIX + "warn-version" in labels
        warn = Standard(enforce.level, warn.version if own_version else enforce.version)
    return Policy(enforce, audit, warn, tuple(errors))


def _level(labels: Mapping[str, str], mode: str, otherwise: str, errors: list[FieldError]) -> str:
    """Read a level; ``otherwise`` is for one that is none."""
    value = labels.get(PREFIX + mode, PRIVILEGED)
    if value in _LEVELS:
        return value
    errors.append(invalid(_LABELS % (PREFIX + mode), value, f"must be one of {', '.join(_LEVELS)}"))
    return otherwise


def _version(labels: Mapping[str, str], mode: str, errors: list[FieldError]) -> str:
    key = f"{PREFIX}{mode}-version"
    value = labels.get(key, _LATEST)
    if value == _LATEST or _VERSION.fullmatch(value):
        return value
    errors.append(invalid(_LABELS % key, value, 'must be "latest" or "v1.x"'))
    return _LATEST


# What is said of a Pod ---------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """``refusal`` and ``warning`` are empty where there is none; ``annotations`` are for the audit log."""

    refusal: str = ""
    warning: str = ""
    annotations: Mapping[str, str] = {}


def of_pod(held: Policy, pod: Tree, old: Tree | None) -> Said:
    """Say what is to be said of a Pod as it is to be; of one that was there, only if what runs in it changes."""
    if old is not None and not _is_significant(pod["spec"], old["spec"]):
        return Said()
    return _said(held, pod["metadata"], pod["spec"], is_enforced=True)


def of_workload(held: Policy, resource: str, tree: Tree) -> Said:
    """Say what is to be said of an object with the template of a Pod: nothing is enforced on it."""
    template: Any = tree
    for key in TEMPLATES[resource]:
        template = template.get(key) or {}
    if not template.get("spec"):
        return Said()
    return _said(held, template.get("metadata") or {}, template["spec"], is_enforced=False)


def _said(held: Policy, metadata: Tree, spec: Tree, *, is_enforced: bool) -> Said:
    annotations = {f"{PREFIX}error": f"Failed to parse policy: {summary(held.errors)}"} if held.errors else {}
    found = {one: one.faults(metadata, spec) for one in {*([held.enforce] if is_enforced else []), held.audit, held.warn}}
    refusal = ""
    if is_enforced:
        annotations[f"{PREFIX}enforce-policy"] = str(held.enforce)
        refusal = _violation("violates", held.enforce, found[held.enforce])
    if told := _violation("would violate", held.audit, found[held.audit]):
        annotations[f"{PREFIX}audit-violations"] = told
    return Said(refusal, "" if refusal else _violation("would violate", held.warn, found[held.warn]), annotations)


def _violation(verb: str, standard: Standard, found: Iterable[Wrong]) -> str:
    told = ", ".join(map(str, found))
    return f'{verb} PodSecurity "{standard}": {told}' if told else ""


def _is_significant(spec: Tree, old: Tree) -> bool:
    """Say whether a Pod gets another image or another container: nothing else that the standards look at can change."""
    for part in ("containers", "initContainers"):
        if _images(spec, part) != _images(old, part):
            return True
    before = dict(_images(old, "ephemeralContainers"))
    return any(before.get(name) != image for name, image in _images(spec, "ephemeralContainers"))


def _images(spec: Tree, part: str) -> list[tuple[str, str]]:
    return [(one["name"], one.get("image", "")) for one in spec.get(part) or ()]


# When the level of a namespace changes -------------------------------------------------------------------------------------------


def errors_of_change(new: Policy, old: Policy) -> tuple[FieldError, ...]:
    """Give what is wrong with new labels; what was wrong before may stay."""
    return () if new.errors == old.errors else new.errors


def is_rising(new: Policy, old: Policy) -> bool:
    """Say whether Pods that are there may violate what is enforced from now on."""
    if new.enforce == old.enforce or new.enforce.level == PRIVILEGED:
        return False
    return new.enforce.version != old.enforce.version or _LEVELS.index(new.enforce.level) > _LEVELS.index(old.enforce.level)


def controller(pod: Tree) -> str:
    """Give the uid of a Pod's controller, empty if it has none."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((str(one["uid"]) for one in owners if one.get("controller")), "")


def in_turn(controllers: Iterable[str]) -> list[int]:
    """Say in what order Pods are looked at: the first of each controller before its others, which are like it."""
    first: list[int] = []
    others: list[int] = []
    known: set[str] = set()
    for place, uid in enumerate(controllers):
        (others if uid in known else first).append(place)
        if uid:
            known.add(uid)
    return first + others


def in_short(standard: Standard, pod: Tree) -> str:
    """Give what a standard has against a Pod, without details; empty if nothing."""
    return ", ".join(wrong.reason for wrong in standard.faults(pod["metadata"], pod["spec"]))


def of_existing(namespace: str, standard: Standard, found: Iterable[tuple[str, str]], looked: int, total: int) -> list[str]:
    """Give the warnings about the Pods of a namespace. ``found``: their names, with what is wrong, those with nothing wrong too."""
    names: dict[str, list[str]] = {}
    for name, wrong in found:
        if wrong:
            names.setdefault(wrong, []).append(name)
    warnings = []
    if looked < total:
        warnings.append(f"new PodSecurity enforce level only checked against the first {looked} of {total} existing pods")
    if names:
        warnings.append(f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{standard}"')
    return warnings + sorted(f"{_listed(who)}: {wrong}" for wrong, who in names.items())


def _listed(names: Sequence[str]) -> str:
    others = len(names) - 1
    more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
    return min(names) + more
