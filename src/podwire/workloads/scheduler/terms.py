"""Terms that look at other Pods: of which namespaces, with which labels, within which topology.

Pure.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from podwire.objects import codec
from podwire.objects.core import Pod
from podwire.objects.meta import LabelSelector, SelectorRequirement
from podwire.objects.placement import PodAffinity, PodAffinityTerm

Namespaces = Mapping[str, Mapping[str, str]]
"""The labels of each namespace, by name."""


@dataclass(frozen=True)
class Term:
    """Two terms are the same if their keys are. A selector that is absent matches no Pod."""

    key: str
    topology: str
    names: frozenset[str] = field(compare=False)
    namespaces: LabelSelector | None = field(compare=False)
    labels: LabelSelector | None = field(compare=False)

    def scope(self, known: Namespaces) -> frozenset[str]:
        """Give the namespaces whose Pods it looks at."""
        if self.namespaces is None:
            return self.names
        return self.names | {name for name, labels in known.items() if self.namespaces.matches(labels)}

    def matches(self, pod: Pod, known: Namespaces) -> bool:
        if self.labels is None or not self.labels.matches(pod.metadata.labels):
            return False
        if pod.namespace in self.names:
            return True
        return self.namespaces is not None and self.namespaces.matches(known.get(pod.namespace, {}))


def term(pod: Pod, one: PodAffinityTerm) -> Term:
    """Make a term of a Pod ready to be asked."""
    names = frozenset(one.namespaces or (() if one.namespace_selector is not None else (pod.namespace,)))
    labels = narrowed(one.label_selector, pod, one.match_label_keys, one.mismatch_label_keys)
    key = f"{one.topology_key}|{sorted(names)}|{_text(one.namespace_selector)}|{_text(labels)}"
    return Term(key, one.topology_key, names, one.namespace_selector, labels)


def narrowed(selector: LabelSelector | None, pod: Pod, match: Iterable[str] = (), mismatch: Iterable[str] = ()) -> LabelSelector | None:
    """Give the selector with the Pod's own values of ``matchLabelKeys`` and ``mismatchLabelKeys``."""
    if selector is None:
        return None
    labels = pod.metadata.labels
    more = [SelectorRequirement(key=key, operator="In", values=(labels[key],)) for key in match if key in labels]
    more += [SelectorRequirement(key=key, operator="NotIn", values=(labels[key],)) for key in mismatch if key in labels]
    if not more:
        return selector
    return LabelSelector(match_labels=selector.match_labels, match_expressions=(*selector.match_expressions, *more))


def _text(selector: LabelSelector | None) -> str:
    return "" if selector is None else str(codec.tree(selector))


def required(pod: Pod, kind: PodAffinity | None) -> tuple[Term, ...]:
    return tuple(term(pod, one) for one in kind.required) if kind is not None else ()


def preferred(pod: Pod) -> tuple[tuple[int, Term], ...]:
    """Give what a Pod would like, with weights: positive for being together, negative for being apart."""
    affinity = pod.spec.affinity
    if affinity is None:
        return ()
    together = affinity.pod_affinity.preferred if affinity.pod_affinity else ()
    apart = affinity.pod_anti_affinity.preferred if affinity.pod_anti_affinity else ()
    return (
        *((one.weight, term(pod, one.pod_affinity_term)) for one in together),
        *((-one.weight, term(pod, one.pod_affinity_term)) for one in apart),
    )


def anti(pod: Pod) -> tuple[Term, ...]:
    """Give the terms by which a Pod refuses others beside it."""
    return required(pod, pod.spec.affinity.pod_anti_affinity if pod.spec.affinity else None)


def looks_at_pods(pod: Pod) -> bool:
    """Say whether the placing of other Pods may make room for this one: it asks for company, or to be spread."""
    affinity = pod.spec.affinity
    return bool(pod.spec.topology_spread_constraints or (affinity and (affinity.pod_affinity or affinity.pod_anti_affinity)))
