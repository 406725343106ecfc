"""The table of who may do what, cell by cell."""

from __future__ import annotations

import pytest

from podwire.apiserver.authentication import ANONYMOUS, AUTHENTICATED, User, bearer, certificate_user
from podwire.apiserver.authorization import RULES, Attributes, allows, allows_path, refusal

ADMIN = User("admin", ("system:masters", AUTHENTICATED))
NODE = User("system:node:n1", ("system:nodes", AUTHENTICATED))
IMPOSTOR = User("mallory", ("system:nodes", AUTHENTICATED))
CONTROLLER = User("system:podwire:controllers", ("system:podwire:controllers", AUTHENTICATED))
SYSTEM_POD = User("system:serviceaccount:kube-system:kube-dns", ("system:serviceaccounts:kube-system", AUTHENTICATED))
OTHER_POD = User("system:serviceaccount:default:default", ("system:serviceaccounts:default", AUTHENTICATED))


def node_of(namespace: str, pod: str) -> str:
    return {"default/mine": "n1", "default/theirs": "n2"}.get(f"{namespace}/{pod}", "")


@pytest.mark.parametrize(
    ("user", "verb", "group", "resource", "namespace", "name", "expected"),
    [
        (ADMIN, "deletecollection", "any.example", "things", "", "", True),
        (NODE, "list", "", "services", "", "", True),
        (NODE, "watch", "discovery.k8s.io", "endpointslices", "", "", True),
        (NODE, "list", "apps", "deployments", "", "", False),
        (NODE, "create", "", "pods", "default", "", False),
        (NODE, "patch", "", "pods/status", "default", "mine", True),
        (NODE, "patch", "", "pods/status", "default", "theirs", False),
        (NODE, "patch", "", "pods/status", "default", "unknown", False),
        (NODE, "patch", "", "pods", "default", "mine", False),
        (NODE, "delete", "", "pods", "default", "mine", True),
        (NODE, "delete", "", "pods", "default", "theirs", False),
        (NODE, "patch", "", "nodes/status", "n1", "n1", True),
        (NODE, "patch", "", "nodes/status", "", "n2", False),
        (NODE, "delete", "", "nodes", "", "n1", False),
        (NODE, "update", "coordination.k8s.io", "leases", "kube-node-lease", "n1", True),
        (NODE, "update", "coordination.k8s.io", "leases", "kube-node-lease", "n2", False),
        (NODE, "update", "coordination.k8s.io", "leases", "kube-system", "n1", False),
        (NODE, "create", "", "events", "default", "", True),
        (NODE, "delete", "", "events", "default", "e", False),
        # A group without a node's name is nobody's node.
        (IMPOSTOR, "list", "", "services", "", "", False),
        (IMPOSTOR, "patch", "", "pods/status", "default", "unknown", False),
        (CONTROLLER, "create", "", "pods/binding", "default", "x", True),
        (CONTROLLER, "update", "", "namespaces/finalize", "x", "x", True),
        (CONTROLLER, "delete", "", "namespaces", "x", "x", False),
        (CONTROLLER, "delete", "", "nodes", "", "n1", False),
        (CONTROLLER, "deletecollection", "compute.podwire.dev", "addresses", "", "", True),
        (CONTROLLER, "create", "rbac.authorization.k8s.io", "clusterroles", "", "", False),
        (SYSTEM_POD, "watch", "", "services", "", "", True),
        (SYSTEM_POD, "get", "", "secrets", "kube-system", "x", False),
        (OTHER_POD, "get", "", "services", "default", "x", False),
        (OTHER_POD, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", "", True),
        (ANONYMOUS, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", "", False),
        (ANONYMOUS, "get", "", "pods", "default", "x", False),
    ],
)
def test_table(user: User, verb: str, group: str, resource: str, namespace: str, name: str, expected: bool) -> None:
    assert allows(user, Attributes(verb, group, resource, namespace, name), node_of) is expected


@pytest.mark.parametrize(
    ("user", "method", "path", "expected"),
    [
        (ANONYMOUS, "GET", "/healthz", True),
        (ANONYMOUS, "GET", "/healthz/etcd", True),
        (ANONYMOUS, "GET", "/healthzz", False),
        (ANONYMOUS, "GET", "/api", False),
        (OTHER_POD, "GET", "/apis/apps/v1", True),
        (OTHER_POD, "GET", "/openapi/v3", True),
        (OTHER_POD, "POST", "/version", False),
        (OTHER_POD, "GET", "/metrics", False),
        (ADMIN, "POST", "/anything", True),
    ],
)
def test_paths(user: User, method: str, path: str, expected: bool) -> None:
    assert allows_path(user, method, path) is expected


def test_refusals_read_as_upstream() -> None:
    assert refusal(NODE, Attributes("list", "apps", "deployments")) == (
        'deployments.apps is forbidden: User "system:node:n1" cannot list resource "deployments" in API group "apps" at the cluster scope'
    )
    assert refusal(NODE, Attributes("patch", "", "pods/status", "default", "web")) == (
        'pods "web" is forbidden: User "system:node:n1" cannot patch resource "pods/status" in API group "" in the namespace "default"'
    )


def test_no_row_is_without_effect() -> None:
    assert all(rule.verbs and rule.groups and rule.resources for rule in RULES)


def test_certificates() -> None:
    subject = ((("organizationName", "system:nodes"),), (("organizationName", "b"),), (("commonName", "system:node:n1"),))
    assert certificate_user({"subject": subject}) == User("system:node:n1", ("system:nodes", "b", AUTHENTICATED))
    assert certificate_user({"subject": ((("organizationName", "system:masters"),),)}) is None
    assert certificate_user({}) is None
    assert certificate_user(None) is None


def test_bearer() -> None:
    assert bearer(b"Bearer abc") == "abc"
    assert bearer(b"bearer  abc ") == "abc"
    assert bearer(b"Basic abc") is None
    assert bearer(b"Bearer") is None
