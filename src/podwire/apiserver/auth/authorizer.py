"""The authorizers in their order, kept in step with the store.

    system:masters ─> a node's own rights (nodes.py) ─> RBAC (rbac.py) ─> no

Who is let through by one is let through; what nobody lets through is refused with what each had to say. ``allows`` is for every request and
costs a few look-ups; ``decide`` also says why.

Here: what is learnt from the store, and the order. Not here: any rule.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#using-configuration-file-for-authorization
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson

from podwire.apiserver import keys, status
from podwire.apiserver.auth import nodes
from podwire.apiserver.auth.attributes import Attributes, Decision, refusal
from podwire.apiserver.auth.bootstrap_roles import GROUP, MASTERS, NODE_RULES
from podwire.apiserver.auth.graph import Graph
from podwire.apiserver.auth.rbac import Policy
from podwire.apiserver.auth.rules import Grants
from podwire.apiserver.authentication import User
from podwire.apiserver.kinds.core import POD
from podwire.apiserver.requests import Target
from podwire.apiserver.selectors import facts, field_terms
from podwire.store import Change, Record, Store

_SELECTING = ("list", "watch", "deletecollection")
_EPHEMERAL = b'"ephemeralContainers"'
_COMMON = Grants(NODE_RULES)


class Authorizer:
    """``policy`` and ``graph`` are what is known; both follow the store."""

    def __init__(self, store: Store) -> None:
        self.policy = Policy()
        self.graph = Graph(self._pod)
        self._store = store
        self._pods_after_start: list[Record] | None = store.range("pods/")
        for table, learn in (
            (f"roles.{GROUP}", self._role),
            (f"clusterroles.{GROUP}", self._role),
            (f"rolebindings.{GROUP}", self._binding),
            (f"clusterrolebindings.{GROUP}", self._binding),
            ("persistentvolumes", self._volume),
        ):
            for record in store.range(f"{table}/"):
                learn(record.key, record)
            store.observe(table, partial(_changed, learn))
        store.observe("pods", self._pod_changed)

    def allows(self, user: User, asked: Attributes) -> bool:
        """Say whether a user may do this."""
        groups = user.groups
        if MASTERS in groups:
            return True
        node = nodes.node_name(user.name, groups)
        if node and nodes.decide(node, asked, self._graph(), _COMMON).allowed:
            return True
        return self.policy.allows(user.name, groups, asked)

    def decide(self, user: User, asked: Attributes) -> Decision:
        """Say whether a user may do this, and why."""
        if MASTERS in user.groups:
            return Decision(True)
        reasons = []
        node = nodes.node_name(user.name, user.groups)
        if node is not None:
            unknown = Decision(False, f'unknown node for user "{user.name}"')
            own = nodes.decide(node, asked, self._graph(), _COMMON) if node else unknown
            if own.allowed:
                return own
            reasons.append(own.reason)
        bound = self.policy.decide(user.name, user.groups, asked)
        return bound if bound.allowed else Decision(False, "\n".join(filter(None, (*reasons, bound.reason))))

    def demand(self, user: User, asked: Attributes, details: Mapping[str, Any] | None = None) -> None:
        """Raise Failure (403) when a user may not do this."""
        if self.allows(user, asked):
            return
        if details is None:
            details = {"name": asked.name, "group": asked.group, "kind": asked.resource.partition("/")[0]}
        kept = {key: value for key, value in details.items() if value}
        raise status.forbidden_text(refusal(user.name, asked, self.decide(user, asked).reason), kept)

    def related(self, node: str, thing: tuple[str, str, str]) -> bool:
        """Say whether a Pod on a node refers to something: plural, namespace, name."""
        return self._graph().related(node, thing)

    def node_of(self, namespace: str, pod: str) -> str:
        """Name the node that a Pod is on; ``""`` for none."""
        return self._graph().node_of(namespace, pod)

    # What is learnt --------------------------------------------------------------------------------------------------------

    def _role(self, key: str, record: Record | None) -> None:
        if record is None:
            self.policy.delete_role(keys.names(key))
        else:
            self.policy.put_role(keys.names(key), orjson.loads(record.value).get("rules") or [])

    def _binding(self, key: str, record: Record | None) -> None:
        if record is None:
            self.policy.delete_binding(keys.names(key))
        else:
            self.policy.put_binding(keys.names(key), orjson.loads(record.value))

    def _volume(self, key: str, record: Record | None) -> None:
        if record is None:
            self.graph.delete_volume(keys.names(key)[1])
        else:
            self.graph.put_volume(keys.names(key)[1], orjson.loads(record.value))

    def _graph(self) -> Graph:
        """The graph, with the Pods that were there at the start: where these are is read when a node first asks."""
        records, self._pods_after_start = self._pods_after_start, None
        for record in records or ():
            if self._store.get(record.key) is record:
                self._put_pod(record)
        return self.graph

    def _put_pod(self, record: Record) -> None:
        self.graph.put_pod(*keys.names(record.key), facts(POD, record).fields["spec.nodeName"])

    def _pod_changed(self, change: Change) -> None:
        record, previous = change.record, change.previous
        if record is None:
            self.graph.delete_pod(*keys.names(change.key))
            return
        moved = previous is None or facts(POD, record).fields["spec.nodeName"] != facts(POD, previous).fields["spec.nodeName"]
        if moved or _EPHEMERAL in record.value:
            self._put_pod(record)

    def _pod(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        record = self._store.get(f"pods/{namespace}/{name}")
        return None if record is None else orjson.loads(record.value)


def _changed(learn: Callable[[str, Record | None], None], change: Change) -> None:
    learn(change.key, change.record)


def attributes(verb: str, target: Target, field_selector: str = "") -> Attributes:
    """Say what is asked by a request for a resource. Raises Failure (400) for a selector that cannot be read."""
    resource = f"{target.plural}/{target.subresource}" if target.subresource else target.plural
    # A Namespace is in itself: that is how rules for a namespace reach it.
    namespace = target.name if target.plural == "namespaces" and not target.group else target.namespace
    name = target.name
    fields: tuple[tuple[str, str], ...] = ()
    if field_selector and verb in _SELECTING:
        fields = tuple((field, value) for field, equal, value in field_terms(field_selector) if equal)
        name = name or dict(fields).get("metadata.name", "")
    return Attributes(verb, target.group, resource, namespace, name, "", fields)
