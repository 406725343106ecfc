"""Who may do what: one literal table, one pure function.

Here: the table. A row lets a subject do verbs on resources; what no row lets is refused. Not here: who somebody is, what a request asks.
The table speaks of users, groups, verbs and resources in the words of RBAC, whose objects can take its place.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/ and, for nodes, .../node/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podwire.apiserver.authentication import AUTHENTICATED, User

MASTERS, NODES, CONTROLLERS = "system:masters", "system:nodes", "system:podwire:controllers"
NODE_PREFIX = "system:node:"
PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version")
DISCOVERY_PATHS = ("/api", "/apis", "/openapi", *PUBLIC_PATHS)

_READ = frozenset({"get", "list", "watch"})
_ANY = frozenset({"*"})


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked of a resource. ``resource`` is ``plural`` or ``plural/subresource``."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


Guard = Callable[[str, Attributes, Callable[[str, str], str]], bool]


def _own_name(node: str, asked: Attributes, _node_of: Callable[[str, str], str]) -> bool:
    return asked.name == node


def _own_or_unnamed(node: str, asked: Attributes, _node_of: Callable[[str, str], str]) -> bool:
    """A create names no object in its path; the object's own name is the writer's."""
    return asked.name in ("", node)


def _own_pod(node: str, asked: Attributes, node_of: Callable[[str, str], str]) -> bool:
    return bool(asked.name) and node_of(asked.namespace, asked.name) == node


def _own_lease(node: str, asked: Attributes, _node_of: Callable[[str, str], str]) -> bool:
    return asked.namespace == "kube-node-lease" and asked.name in ("", node)


@dataclass(frozen=True, slots=True)
class Rule:
    """``subject`` is a group. ``guard`` narrows a node's rule to what is its own."""

    subject: str
    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    guard: Guard | None = None


def _rule(subject: str, verbs: str | frozenset[str], groups: str, resources: str, guard: Guard | None = None) -> Rule:
    verbs = verbs if isinstance(verbs, frozenset) else frozenset(verbs.split())
    return Rule(
        subject, verbs, frozenset("" if group == "core" else group for group in groups.split()), frozenset(resources.split()), guard
    )


RULES: tuple[Rule, ...] = (
    _rule(MASTERS, _ANY, "*", "*"),
    # Whoever is known may ask what they may do.
    _rule(AUTHENTICATED, "create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
    _rule(AUTHENTICATED, "create", "authentication.k8s.io", "selfsubjectreviews"),
    # A node: what its kubelet and its service proxy read ...
    _rule(NODES, _READ, "core", "pods services endpoints nodes namespaces configmaps secrets serviceaccounts"),
    _rule(NODES, _READ, "discovery.k8s.io", "endpointslices"),
    _rule(NODES, _READ, "networking.k8s.io", "networkpolicies"),
    _rule(NODES, _READ, "compute.podwire.dev", "addresses forwardingrules targetpools instances"),
    # ... and what it writes: itself, its lease, the Pods that run on it, Events.
    _rule(NODES, "create", "core", "nodes", _own_or_unnamed),
    _rule(NODES, "update patch", "core", "nodes nodes/status", _own_name),
    _rule(NODES, "get create update patch delete", "coordination.k8s.io", "leases", _own_lease),
    _rule(NODES, "update patch", "core", "pods/status", _own_pod),
    _rule(NODES, "delete", "core", "pods", _own_pod),
    _rule(NODES, "create", "core", "pods/eviction", _own_pod),
    _rule(NODES, "create update patch", "core events.k8s.io", "events"),
    # The controllers of this program write what their loops need. They end no node and no Namespace.
    _rule(CONTROLLERS, _READ, "*", "*"),
    _rule(
        CONTROLLERS,
        "create update patch delete deletecollection",
        "core",
        "pods pods/status pods/binding pods/eviction services services/status endpoints configmaps secrets serviceaccounts events "
        "replicationcontrollers replicationcontrollers/status replicationcontrollers/scale limitranges resourcequotas/status "
        "persistentvolumeclaims persistentvolumeclaims/status persistentvolumes persistentvolumes/status",
    ),
    _rule(CONTROLLERS, "create update patch", "core", "nodes nodes/status namespaces namespaces/status namespaces/finalize"),
    _rule(
        CONTROLLERS,
        _ANY,
        "apps batch autoscaling policy coordination.k8s.io discovery.k8s.io events.k8s.io networking.k8s.io extensions compute.podwire.dev",
        "*",
    ),
    # The system's own Pods: cluster DNS and the like.
    _rule("system:serviceaccounts:kube-system", _READ, "core", "services endpoints pods namespaces nodes"),
    _rule("system:serviceaccounts:kube-system", _READ, "discovery.k8s.io", "endpointslices"),
)


def allows(user: User, asked: Attributes, node_of: Callable[[str, str], str]) -> bool:
    """Say whether the table lets a user do this. ``node_of(namespace, pod)`` names the node that a Pod is on, ``""`` for none."""
    node = user.name.removeprefix(NODE_PREFIX) if user.name.startswith(NODE_PREFIX) else ""
    for rule in RULES:
        if rule.subject not in user.groups or not (asked.verb in rule.verbs or "*" in rule.verbs):
            continue
        if not (asked.group in rule.groups or "*" in rule.groups) or not (asked.resource in rule.resources or "*" in rule.resources):
            continue
        if rule.subject == NODES and not node:
            continue
        if rule.guard is None or rule.guard(node, asked, node_of):
            return True
    return False


def allows_path(user: User, method: str, path: str) -> bool:
    """Say whether a user may read a path that is not a resource's: the public ones anybody, discovery whoever is known."""
    if MASTERS in user.groups:
        return True
    if method not in ("GET", "HEAD", "OPTIONS"):
        return False
    known = DISCOVERY_PATHS if AUTHENTICATED in user.groups else PUBLIC_PATHS
    return any(path == public or path.startswith(public + "/") for public in known)


def refusal(user: User, asked: Attributes) -> str:
    """Say in the API's words what a user may not do."""
    plural = asked.resource.split("/")[0]
    what = f"{plural}.{asked.group}" if asked.group else plural
    named = f'{what} "{asked.name}"' if asked.name else what
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    return f'{named} is forbidden: User "{user.name}" cannot {asked.verb} resource "{asked.resource}" in API group "{asked.group}" {where}'
