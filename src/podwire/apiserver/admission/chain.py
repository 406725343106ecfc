"""Admission: the last who are asked before an object is stored.

Two lists, in order: those who change what is written, and those who refuse it. What they go by (ranges, quotas, policies, webhooks) is read
from the store when it changes, so that a write about which nobody has anything to say costs a few look-ups.

All but webhooks answer at once: they are part of the stretch without an ``await`` in which a write is made (``writing.py``). Webhooks are
asked before it, and what they were asked about is looked at again afterwards; so it is when the Pods of a namespace were (``levels.py``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from podwire.apiserver import conversion, keys, quantity, status
from podwire.apiserver.admission import authority, limits, mutations, pod_security, policies, runtime_classes, service_accounts, webhooks
from podwire.apiserver.admission.attributes import CREATE, UPDATE, Attributes
from podwire.apiserver.admission.matching import selects
from podwire.apiserver.admission.policies import P
from podwire.apiserver.admission.quotas import Quotas
from podwire.apiserver.answers import decode
from podwire.apiserver.auth.authorizer import Authorizer
from podwire.apiserver.calls import Calls
from podwire.apiserver.cel.check import Rejected
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds import admission as rows
from podwire.apiserver.kinds.certificates import requested
from podwire.apiserver.kinds.core import NAMESPACE
from podwire.apiserver.registry import Registry
from podwire.store import Change, Store, Transaction

Tree = dict[str, Any]
_LOG = logging.getLogger("podwire.apiserver")
_OF_CLASSES = frozenset({"priorityClassName", "runtimeClassName", "overhead"})
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
Change_ = Callable[["Admission", Attributes], None]


class Admission:
    """Who is asked, for one API. ``put`` takes an object into a transaction."""

    def __init__(
        self, store: Store, registry: Registry, put: Callable[[Transaction, Kind, Tree], object], calls: Calls, authorizer: Authorizer
    ) -> None:
        self.store = store
        self.registry = registry
        self.quotas = Quotas(store, registry, put)
        asking = partial(authority.values, authorizer)
        self.judge = policies.Judge(self.labels, registry.alike, self.namespace, asking)
        self.mutator = mutations.Mutator(self.labels, registry.alike, self.namespace, asking)
        self.caller = webhooks.Caller(calls, self.labels, registry.alike, asking)
        self.mutating: list[webhooks.Webhook] = []
        self.validating: list[webhooks.Webhook] = []
        self.ranges: dict[str, dict[str, Tree]] = {}
        self.guarded: dict[str, pod_security.Policy] = {}
        self.classes_for_all: dict[str, Tree] = {}
        for kind in (rows.MUTATING_WEBHOOKS, rows.VALIDATING_WEBHOOKS):
            self._hooks_changed(kind, None)
            store.observe(kind.resource, partial(self._hooks_changed, kind))
        for resource, taken in (
            (rows.POLICY.resource, partial(_take_policy, self.judge, policies.Policy)),
            (rows.POLICY_BINDING.resource, partial(_take_binding, self.judge)),
            (rows.MUTATING_POLICY.resource, partial(_take_policy, self.mutator, mutations.Mutating)),
            (rows.MUTATING_POLICY_BINDING.resource, partial(_take_binding, self.mutator)),
            ("limitranges", self._take_range),
            ("priorityclasses.scheduling.k8s.io", self._take_class),
            (NAMESPACE.resource, self._take_namespace),
        ):
            for record in store.range(f"{resource}/"):
                taken(record.key, decode(record.value))
            store.observe(resource, partial(_follow, taken))

    # What is gone by ---------------------------------------------------------------------------------------------------------

    def _hooks_changed(self, kind: Kind, _change: Change | None) -> None:
        found: list[webhooks.Webhook] = []
        for record in self.store.range(keys.prefix(kind)):  # in the order of their names
            try:
                found += webhooks.of_configuration(decode(record.value))
            except Rejected as error:
                _LOG.error("%s: %s", record.key, error)
        if kind is rows.MUTATING_WEBHOOKS:
            self.mutating = found
        else:
            self.validating = found

    def _take_range(self, key: str, tree: Tree | None) -> None:
        namespace, name = keys.names(key)
        found = self.ranges.setdefault(namespace, {})
        found.pop(name, None)
        if tree is not None:
            found[name] = tree
        if not found:
            del self.ranges[namespace]

    def _take_class(self, key: str, tree: Tree | None) -> None:
        self.classes_for_all.pop(key, None)
        if tree is not None and tree.get("globalDefault"):
            self.classes_for_all[key] = tree

    def _take_namespace(self, key: str, tree: Tree | None) -> None:
        name = keys.names(key)[1]
        self.guarded.pop(name, None)
        held = pod_security.policy(tree["metadata"].get("labels", {})) if tree is not None else None
        if held is not None and not held.is_open:
            self.guarded[name] = held

    def namespace(self, name: str) -> Tree | None:
        record = self.store.latest(f"namespaces/{name}")
        return None if record is None else decode(record.value)

    def labels(self, namespace: str) -> Mapping[str, str]:
        """Give the labels of a namespace."""
        tree = self.namespace(namespace)
        found: Mapping[str, str] = tree["metadata"].get("labels", {}) if tree is not None else {}
        return found

    async def params(self, about: Tree, reference: Tree, namespace: str) -> list[Tree]:
        """Give the objects that a binding names as parameters, in the version that its policy names. Raises Failure."""
        kind = self.registry.find_kind(about["apiVersion"], about["kind"])
        if kind is None:
            return []
        where = reference.get("namespace") or namespace if kind.namespaced else ""
        if name := reference.get("name"):
            record = self.store.latest(keys.key(kind, where, name))
            records = [] if record is None else [record]
        else:
            records = self.store.latest_range(keys.prefix(kind, where))
        trees = [decode(record.value) for record in await conversion.shown(kind, records)]
        return [tree for tree in trees if name or selects(reference.get("selector"), tree["metadata"].get("labels", {}))]

    # Asking --------------------------------------------------------------------------------------------------------------------

    @property
    def asks_of_deletions(self) -> bool:
        """Whether there is anybody who may refuse a deletion."""
        return bool(self.mutating or self.validating or self.judge.bindings)

    def variant(self, namespace: str, pod: Tree) -> bytes | None:
        """Say by what, beside its spec, it is settled how a new Pod is stored; None when somebody but quotas may have a say about it."""
        if (
            self.mutating
            or self.validating
            or self.judge.bindings
            or self.mutator.bindings
            or self.classes_for_all
            or namespace in self.ranges
        ):
            return None
        spec, metadata = pod.get("spec"), pod.get("metadata")
        if not isinstance(spec, dict) or not isinstance(metadata, dict):
            return None
        if not _OF_CLASSES.isdisjoint(spec) or service_accounts.is_mirror(pod):
            return None
        name = service_accounts.name(spec)
        record = self.store.latest(f"serviceaccounts/{namespace}/{name}")
        account = None if record is None else record.value
        if (account is None and name != "default") or service_accounts.gives_pull_secrets(account):
            return None
        return b"+token" if service_accounts.gives_token(spec, account) else b"-token"

    def change(self, asked: Attributes) -> None:
        """Let those change ``asked.tree`` who answer at once. Raises Failure."""
        if asked.operation == CREATE:
            for step in CHANGES.get(asked.kind.resource, ()):
                step(self, asked)

    def may_refuse(self, kind: Kind, namespace: str) -> bool:
        """Say whether there is anybody to ask about a write of a kind in a namespace."""
        return bool(self.validating or self.judge.bindings or self.ranges) or namespace in self.guarded or kind is NAMESPACE

    def refuse(self, asked: Attributes) -> None:
        """Ask those who answer at once whether they refuse it. Raises Failure."""
        if self.ranges and not asked.subresource and asked.tree is not None:
            _check_ranges(self, asked)
        if asked.namespace in self.guarded and asked.tree is not None:
            _check_security(self.guarded[asked.namespace], asked)
        if asked.operation == UPDATE and asked.kind.resource == "persistentvolumeclaims" and not asked.subresource:
            _check_growth(self, asked)

    def charge(self, kind: Kind, tree: Tree, old: Tree | None) -> list[Tree]:
        """Give the quotas that are stored with an object. Raises Failure (403)."""
        return self.quotas.charge(kind, tree, old)


def _take_policy(bound: policies.Bound[P], make: Callable[[Tree], P], key: str, tree: Tree | None) -> None:
    name = keys.names(key)[1]
    bound.policies.pop(name, None)
    if tree is not None:
        try:
            bound.policies[name] = make(tree)
        except Rejected as error:
            _LOG.error("%s: %s", key, error)


def _take_binding(bound: policies.Bound[P], key: str, tree: Tree | None) -> None:
    name = keys.names(key)[1]
    bound.bindings.pop(name, None)
    if tree is not None:
        bound.bindings[name] = tree


def _follow(taken: Callable[[str, Tree | None], None], change: Change) -> None:
    taken(change.key, None if change.record is None else decode(change.record.value))


# Those who change ------------------------------------------------------------------------------------------------------------


def _account(admission: Admission, asked: Attributes) -> None:
    """ServiceAccount: one that is named must be there. The namespace's own, ``default``, may be on its way."""
    tree = asked.tree or {}
    spec = tree.get("spec")
    if not isinstance(spec, dict) or service_accounts.is_mirror(tree):
        return
    name = service_accounts.name(spec)
    record = admission.store.latest(f"serviceaccounts/{asked.namespace}/{name}")
    if record is None and name != "default":
        why = f'error looking up service account {asked.namespace}/{name}: serviceaccount "{name}" not found'
        raise status.forbidden(asked.kind, asked.name, why)
    service_accounts.fill(spec, None if record is None else record.value)


def _fill_ranges(admission: Admission, asked: Attributes) -> None:
    """LimitRanger: containers that say nothing get what the namespace's ranges have for them."""
    ranges = admission.ranges.get(asked.namespace)
    if ranges and asked.tree is not None:
        asked.kind.default(asked.tree)  # requests that follow from limits go before those of a range
        limits.fill(asked.tree, ranges.values())


def _priority(admission: Admission, asked: Attributes) -> None:
    """Priority: the number of a Pod's class; without a class, that of the class for all."""
    spec = (asked.tree or {}).get("spec", {})
    name = spec.get("priorityClassName")
    if name:
        record = admission.store.latest(f"priorityclasses.scheduling.k8s.io/{name}")
        if record is None:
            raise status.forbidden(asked.kind, asked.name, f"no PriorityClass with name {name} was found")
        found = decode(record.value)
    elif not admission.classes_for_all:
        return
    else:
        found = min(admission.classes_for_all.values(), key=lambda one: one["value"])
        spec["priorityClassName"] = found["metadata"]["name"]
    value = found.get("value", 0)
    if spec.get("priority", value) != value:
        message = f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission controller "
        raise status.forbidden(asked.kind, asked.name, message + f"computed {value} from the given PriorityClass name")
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", found.get("preemptionPolicy", "PreemptLowerPriority"))


def _runtime_class(admission: Admission, asked: Attributes) -> None:
    """RuntimeClass: the overhead of a Pod's class, and the nodes that can run it."""
    spec = (asked.tree or {}).get("spec", {})
    name = spec.get("runtimeClassName")
    found = None
    if name:
        record = admission.store.latest(f"runtimeclasses.node.k8s.io/{name}")
        if record is None:
            raise status.forbidden(asked.kind, asked.name, runtime_classes.not_found(name))
        found = decode(record.value)
    why = runtime_classes.fill(spec, found) or (runtime_classes.place(spec, found) if found is not None else "")
    if why:
        raise status.forbidden(asked.kind, asked.name, why)


def _storage_class(admission: Admission, asked: Attributes) -> None:
    """DefaultStorageClass: a claim that names no class gets the cluster's; of several, the newest."""
    spec = (asked.tree or {}).setdefault("spec", {})
    if "storageClassName" in spec or (asked.tree or {})["metadata"].get("annotations", {}).get("volume.beta.kubernetes.io/storage-class"):
        return
    trees = (decode(record.value) for record in admission.store.latest_range("storageclasses.storage.k8s.io/"))
    found = [one for one in trees if one["metadata"].get("annotations", {}).get(_DEFAULT_CLASS) == "true"]
    if found:
        newest = max(found, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))
        spec["storageClassName"] = newest["metadata"]["name"]


def _requested(_admission: Admission, asked: Attributes) -> None:
    """A certificate is asked for by who asks."""
    if asked.tree is not None:
        requested(asked.tree, asked.user)


def _protect(finalizer: str) -> Change_:
    """StorageObjectInUseProtection: what is in use goes when it no longer is."""

    def step(_admission: Admission, asked: Attributes) -> None:
        finalizers = (asked.tree or {})["metadata"].setdefault("finalizers", [])
        if finalizer not in finalizers:
            finalizers.append(finalizer)

    return step


# Tolerations of a Pod for nodes that are not ready (DefaultTolerationSeconds) are among its defaults: kinds/pod_defaults.py.
CHANGES: Mapping[str, tuple[Change_, ...]] = {
    "pods": (
        _account,  # first: nothing else matters to a Pod that may not be
        _priority,  # before ranges and quotas, which may be for Pods of some priority
        _runtime_class,  # before ranges and quotas, which count the overhead
        _fill_ranges,  # before quotas, which count what it fills in
    ),
    "persistentvolumeclaims": (
        _storage_class,  # before quotas, which count by class
        _protect("kubernetes.io/pvc-protection"),
    ),
    "certificatesigningrequests.certificates.k8s.io": (_requested,),
    "persistentvolumes": (_protect("kubernetes.io/pv-protection"),),
}


# Those who refuse ------------------------------------------------------------------------------------------------------------


def _check_growth(admission: Admission, asked: Attributes) -> None:
    """PersistentVolumeClaimResize: a claim asks for more only where its class lets volumes grow."""
    sizes = [
        quantity.value(str((tree or {}).get("spec", {}).get("resources", {}).get("requests", {}).get("storage", 0)))
        for tree in (asked.old, asked.tree)
    ]
    if sizes[1] <= sizes[0]:
        return
    name = (asked.tree or {})["spec"].get("storageClassName", "")
    record = admission.store.latest(f"storageclasses.storage.k8s.io/{name}") if name else None
    if record is None or not decode(record.value).get("allowVolumeExpansion"):
        words = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
        raise status.forbidden(asked.kind, asked.name, words)


def _check_ranges(admission: Admission, asked: Attributes) -> None:
    """LimitRanger: what is asked for is within the namespace's ranges."""
    ranges = admission.ranges.get(asked.namespace)
    if not ranges or asked.kind.resource not in CHANGES or asked.tree is None:
        return
    if asked.operation == UPDATE and asked.kind.resource == "pods":
        return
    why = limits.refusals(asked.kind.plural, asked.tree, ranges.values())
    if why:
        raise status.forbidden(asked.kind, asked.name, why[0] if len(why) == 1 else f"[{', '.join(why)}]")


def _check_security(held: pod_security.Policy, asked: Attributes) -> None:
    """PodSecurity: a Pod keeps to the standard of its namespace; who writes the template of Pods that would not is warned."""
    tree, resource = asked.tree or {}, asked.kind.resource
    if resource == "pods" and asked.subresource not in pod_security.UNCONCERNED:
        said = pod_security.of_pod(held, tree, asked.old)
    elif resource in pod_security.TEMPLATES and not asked.subresource:
        said = pod_security.of_workload(held, resource, tree)
    else:
        return
    asked.annotations.update(said.annotations)
    if said.refusal:
        raise status.forbidden(asked.own, asked.name, said.refusal)
    if said.warning:
        asked.warnings.append(said.warning)
