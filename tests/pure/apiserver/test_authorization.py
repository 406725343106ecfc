"""Who may do what: nodes cell by cell, the bootstrap roles as users meet them, the words of refusals."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.auth import aggregation, bootstrap_policy, bootstrap_roles, nodes
from podwire.apiserver.auth.attributes import Attributes, refusal
from podwire.apiserver.auth.bootstrap_roles import AUTHENTICATED, AUTOUPDATE, NODE_RULES, UNAUTHENTICATED
from podwire.apiserver.auth.graph import Graph
from podwire.apiserver.auth.rbac import Policy
from podwire.apiserver.auth.rules import Grants
from podwire.apiserver.authentication import Certified, User, bearer, certified

Tree = dict[str, Any]
PODS = {
    ("default", "mine"): {
        "metadata": {"name": "mine"},
        "spec": {
            "serviceAccountName": "web",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [
                {
                    "envFrom": [{"configMapRef": {"name": "all"}}, {"secretRef": {"name": "all"}}],
                    "env": [{"valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}}, {"value": "plain"}],
                }
            ],
            "initContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "mounted"}},
                {"name": "b", "configMap": {"name": "mounted"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}},
                {"name": "d", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "projected"}}]}},
                {"name": "e", "ephemeral": {}},
                {"name": "f", "csi": {"nodePublishSecretRef": {"name": "driver"}}},
            ],
        },
    },
    ("default", "theirs"): {"metadata": {"name": "theirs"}, "spec": {"volumes": [{"name": "a", "secret": {"secretName": "hidden"}}]}},
}
GRANTS = Grants(NODE_RULES)


@pytest.fixture
def graph() -> Graph:
    graph = Graph(lambda namespace, name: PODS.get((namespace, name)))
    graph.put_pod("default", "mine", "n1")
    graph.put_pod("default", "theirs", "n2")
    graph.put_pod("default", "waiting", "")
    graph.put_volume(
        "pv",
        {
            "spec": {
                "claimRef": {"namespace": "default", "name": "disk"},
                "csi": {"nodeStageSecretRef": {"name": "stage", "namespace": "kube-system"}},
            }
        },
    )
    graph.put_volume("other", {"spec": {"claimRef": {"namespace": "default", "name": "another"}}})
    return graph


@pytest.mark.parametrize(
    ("verb", "group", "resource", "namespace", "name", "fields", "expected"),
    [
        ("list", "", "services", "", "", (), True),
        ("list", "apps", "deployments", "", "", (), False),
        ("create", "", "events", "default", "", (), True),
        ("delete", "", "events", "default", "e", (), False),
        ("get", "", "pods", "default", "mine", (), True),
        ("get", "", "pods", "default", "theirs", (), False),
        ("list", "", "pods", "", "", (("spec.nodeName", "n1"),), True),
        ("watch", "", "pods", "", "", (("spec.nodeName", "n2"),), False),
        ("list", "", "pods", "", "", (), False),
        ("watch", "", "pods", "default", "mine", (("metadata.name", "mine"),), True),
        ("patch", "", "pods", "default", "mine", (), False),
        ("deletecollection", "", "pods", "default", "", (("spec.nodeName", "n1"),), False),
        ("create", "", "pods/exec", "default", "mine", (), False),
        ("get", "", "pods/log", "default", "mine", (), False),
        ("patch", "", "pods/status", "default", "mine", (), True),
        ("create", "", "pods/eviction", "default", "mine", (), True),
        ("get", "", "nodes", "", "n1", (), True),
        ("watch", "", "nodes", "", "n1", (("metadata.name", "n1"),), True),
        ("get", "", "nodes", "", "n2", (), False),
        ("list", "", "nodes", "", "", (), False),
        ("delete", "", "nodes", "", "n1", (), False),
        ("get", "", "nodes/proxy", "", "n1", (), False),
        ("update", "coordination.k8s.io", "leases", "kube-node-lease", "n1", (), True),
        ("update", "coordination.k8s.io", "leases", "kube-node-lease", "n2", (), False),
        ("update", "coordination.k8s.io", "leases", "kube-system", "n1", (), False),
        ("list", "coordination.k8s.io", "leases", "kube-node-lease", "", (), False),
        *(("get", "", "secrets", "default", name, (), True) for name in ("pull", "all", "one", "mounted", "projected", "driver")),
        *(("get", "", "configmaps", "default", name, (), True) for name in ("all", "one", "mounted", "projected")),
        ("watch", "", "secrets", "default", "mounted", (("metadata.name", "mounted"),), True),
        ("get", "", "secrets", "kube-system", "stage", (), True),
        ("get", "", "secrets", "default", "hidden", (), False),
        ("get", "", "secrets", "other", "mounted", (), False),
        ("list", "", "secrets", "default", "", (), False),
        ("list", "", "secrets", "", "", (), False),
        ("update", "", "secrets", "default", "mounted", (), False),
        ("get", "", "persistentvolumeclaims", "default", "disk", (), True),
        ("get", "", "persistentvolumeclaims", "default", "mine-e", (), True),
        ("update", "", "persistentvolumeclaims/status", "default", "disk", (), True),
        ("get", "", "persistentvolumeclaims", "default", "another", (), False),
        ("get", "", "persistentvolumes", "", "pv", (), True),
        ("get", "", "persistentvolumes", "", "other", (), False),
        ("create", "", "serviceaccounts/token", "default", "web", (), True),
        ("create", "", "serviceaccounts/token", "default", "admin", (), False),
        ("create", "", "serviceaccounts/token", "kube-system", "web", (), False),
        ("create", "", "serviceaccounts", "default", "", (), False),
    ],
)
def test_nodes(graph: Graph, verb: str, group: str, resource: str, namespace: str, name: str, fields: Any, expected: bool) -> None:
    asked = Attributes(verb, group, resource, namespace, name, "", fields)
    assert nodes.decide("n1", asked, graph, GRANTS).allowed is expected


def test_a_pod_that_goes_takes_its_relations_with_it(graph: Graph) -> None:
    secret = ("secrets", "default", "mounted")
    assert graph.related("n1", secret)
    graph.put_pod("default", "mine", "n1")  # again: what it refers to is read anew
    assert graph.related("n1", secret)
    graph.delete_pod("default", "mine")
    assert not graph.related("n1", secret)
    assert not graph.related("n1", ("persistentvolumes", "", "pv"))
    assert not graph.related("n1", ("secrets", "kube-system", "stage"))
    graph.put_pod("default", "mine", "n3")
    assert graph.node_of("default", "mine") == "n3"
    assert graph.related("n3", secret)
    assert not graph.related("n1", secret)


def test_a_group_without_a_name_is_nobodys_node() -> None:
    assert nodes.node_name("mallory", ("system:nodes",)) == ""
    assert nodes.node_name("system:node:n1", ("others",)) is None
    assert nodes.node_name("system:node:n1", ("system:nodes",)) == "n1"


# The bootstrap roles -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy() -> Policy:
    policy = Policy()
    for tree in bootstrap_policy.wanted([]):
        name = (tree["metadata"].get("namespace", ""), tree["metadata"]["name"])
        if "roleRef" in tree:
            policy.put_binding(name, tree)
        else:
            policy.put_role(name, tree["rules"])
    for role in ("admin", "edit", "view"):
        subjects = [{"kind": "User", "name": role}]
        policy.put_binding(("team", role), {"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects})
    return policy


@pytest.mark.parametrize(
    ("user", "groups", "asked", "expected"),
    [
        ("ann", "system:masters", Attributes("deletecollection", "any.example", "things"), True),
        ("ann", AUTHENTICATED, Attributes("create", "authorization.k8s.io", "selfsubjectaccessreviews"), True),
        ("ann", AUTHENTICATED, Attributes("get", path="/apis/apps/v1"), True),
        ("ann", AUTHENTICATED, Attributes("get", path="/metrics"), False),
        ("ann", AUTHENTICATED, Attributes("post", path="/version"), False),
        ("ann", "system:monitoring", Attributes("get", path="/metrics"), True),
        ("x", UNAUTHENTICATED, Attributes("get", path="/healthz"), True),
        ("x", UNAUTHENTICATED, Attributes("get", path="/version"), True),
        ("x", UNAUTHENTICATED, Attributes("get", path="/healthz/etcd"), False),
        ("x", UNAUTHENTICATED, Attributes("get", path="/api"), False),
        ("x", UNAUTHENTICATED, Attributes("create", "authorization.k8s.io", "selfsubjectaccessreviews"), False),
        ("view", "", Attributes("list", "", "pods", "team"), True),
        ("view", "", Attributes("list", "", "secrets", "team"), False),
        ("view", "", Attributes("list", "", "pods", "other"), False),
        ("view", "", Attributes("create", "", "pods/exec", "team", "p"), False),
        ("edit", "", Attributes("create", "", "pods/exec", "team", "p"), True),
        ("edit", "", Attributes("get", "", "secrets", "team", "s"), True),
        ("edit", "", Attributes("create", "rbac.authorization.k8s.io", "rolebindings", "team"), False),
        ("admin", "", Attributes("create", "rbac.authorization.k8s.io", "rolebindings", "team"), True),
        ("admin", "", Attributes("list", "discovery.k8s.io", "endpointslices", "team"), True),
        ("admin", "", Attributes("update", "", "resourcequotas", "team", "q"), False),
        ("system:kube-scheduler", "", Attributes("create", "", "pods/binding", "default", "p"), True),
        ("system:kube-scheduler", "", Attributes("get", "", "secrets", "default", "p"), False),
        ("system:kube-proxy", "", Attributes("watch", "discovery.k8s.io", "endpointslices"), True),
        ("system:serviceaccount:kube-system:kube-dns", "", Attributes("watch", "", "services"), True),
        ("system:serviceaccount:kube-system:other", "system:serviceaccounts:kube-system", Attributes("watch", "", "services"), False),
        ("system:podwire:controllers", "system:podwire:controllers", Attributes("create", "", "pods/binding", "default", "x"), True),
        ("system:podwire:controllers", "system:podwire:controllers", Attributes("delete", "", "namespaces", "x", "x"), False),
        ("system:podwire:controllers", "system:podwire:controllers", Attributes("delete", "", "nodes", "", "n1"), False),
        (
            "system:podwire:controllers",
            "system:podwire:controllers",
            Attributes("create", "rbac.authorization.k8s.io", "clusterroles"),
            False,
        ),
        ("system:node:n1", "system:nodes", Attributes("watch", "discovery.k8s.io", "endpointslices"), True),
        ("system:node:n1", "system:nodes", Attributes("get", "", "secrets", "default", "any"), False),
        ("system:node:n1", "system:nodes", Attributes("list", "", "pods"), False),
    ],
)
def test_bootstrap_roles(policy: Policy, user: str, groups: str, asked: Attributes, expected: bool) -> None:
    assert policy.allows(user, (groups,), asked) is expected
    assert policy.decide(user, (groups,), asked).allowed is expected


def test_why(policy: Policy) -> None:
    asked = Attributes("list", "", "pods", "team")
    assert policy.decide("view", (), asked).reason == 'RBAC: allowed by RoleBinding "view/team" of ClusterRole "view" to User "view"'
    masters = policy.decide("ann", ("system:masters",), asked)
    assert masters.reason == 'RBAC: allowed by ClusterRoleBinding "cluster-admin" of ClusterRole "cluster-admin" to Group "system:masters"'
    policy.put_binding(("team", "lost"), {"roleRef": {"kind": "Role", "name": "gone"}, "subjects": [{"kind": "User", "name": "lost"}]})
    assert policy.decide("lost", (), asked) == (False, 'RBAC: role.rbac.authorization.k8s.io "gone" not found')


def test_roles_are_reconciled_and_what_was_added_stays() -> None:
    made = bootstrap_policy.wanted([])
    assert bootstrap_policy.wanted(made) == []
    view = next(tree for tree in made if tree["metadata"]["name"] == "system:aggregate-to-view")
    own = {"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}
    lacking = {**view, "metadata": {"name": view["metadata"]["name"]}, "rules": [own, *view["rules"][1:]]}
    others = [tree for tree in made if tree is not view]
    again = {tree["metadata"]["name"]: tree for tree in bootstrap_policy.wanted([*others, lacking])}
    repaired = again["system:aggregate-to-view"]
    assert own in repaired["rules"]
    assert view["rules"][0] in repaired["rules"]
    assert repaired["metadata"]["annotations"] == {AUTOUPDATE: "true"}
    assert own in again["admin"]["rules"]
    lacking["metadata"]["annotations"] = {AUTOUPDATE: "false"}
    assert "system:aggregate-to-view" not in {tree["metadata"]["name"] for tree in bootstrap_policy.wanted([*others, lacking])}


def test_a_binding_lacks_nobody() -> None:
    made = bootstrap_policy.wanted([])
    binding = next(tree for tree in made if tree["kind"] == "ClusterRoleBinding" and tree["metadata"]["name"] == "system:discovery")
    changed = {**binding, "subjects": [{"kind": "User", "name": "ann"}]}
    [repaired] = bootstrap_policy.wanted([*(tree for tree in made if tree is not binding), changed])
    assert repaired["subjects"] == [{"kind": "User", "name": "ann"}, *binding["subjects"]]


def test_roles_collect_others() -> None:
    def role(name: str, rules: list[Tree], labels: dict[str, str], selector: Tree | None = None) -> Tree:
        tree: Tree = {"metadata": {"name": name, "labels": labels}, "rules": rules}
        return tree | ({"aggregationRule": {"clusterRoleSelectors": [selector]}} if selector else {})

    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    inner = role("inner", [], {"to": "outer"}, {"matchLabels": {"to": "inner"}})
    outer = role("outer", [], {}, {"matchExpressions": [{"key": "to", "operator": "In", "values": ["outer"]}]})
    roles = [outer, inner, role("leaf", [rule], {"to": "inner"})]
    assert aggregation.changed(roles) == {"inner": [rule], "outer": [rule]}
    circle = [role("a", [rule], {"x": "1"}, {"matchLabels": {"x": "1"}}), role("b", [], {"x": "1"}, {"matchLabels": {"x": "1"}})]
    assert aggregation.changed(circle) == {"a": []}  # what is written by hand into a role that collects is overwritten


def test_tables_are_read_whole() -> None:
    for role in bootstrap_roles.cluster_roles():
        assert role["rules"] or role.get("aggregationRule"), role
        for rule in role["rules"]:
            assert rule["verbs"], role
            assert rule.get("nonResourceURLs") or (rule["apiGroups"] and rule["resources"]), role
    names = {role["metadata"]["name"] for role in bootstrap_roles.cluster_roles()}
    assert {binding["roleRef"]["name"] for binding in bootstrap_roles.cluster_role_bindings()} <= names


# Words -------------------------------------------------------------------------------------------------------------------


def test_refusals_read_as_upstream() -> None:
    assert refusal("system:node:n1", Attributes("list", "apps", "deployments")) == (
        'deployments.apps is forbidden: User "system:node:n1" cannot list resource "deployments" in API group "apps" at the cluster scope'
    )
    assert refusal("ann", Attributes("patch", "", "pods/status", "default", "web"), "why") == (
        'pods "web" is forbidden: User "ann" cannot patch resource "pods/status" in API group "" in the namespace "default": why'
    )
    assert refusal("ann", Attributes("get", path="/metrics")) == 'forbidden: User "ann" cannot get path "/metrics"'


def test_certificates() -> None:
    subject = ((("organizationName", "system:nodes"),), (("organizationName", "b"),), (("commonName", "system:node:n1"),))
    time = {"notBefore": "Jan  1 00:00:00 1970 GMT", "notAfter": "Jan  2 00:00:00 1970 GMT"}
    node = User("system:node:n1", ("system:nodes", "b", AUTHENTICATED))
    assert certified({"subject": subject, **time}) == Certified(node, 0, 86_400)
    assert certified({"subject": ((("organizationName", "system:masters"),),), **time}) is None
    assert certified({}) is None
    assert certified(None) is None


def test_bearer() -> None:
    assert bearer(b"Bearer abc") == "abc"
    assert bearer(b"bearer  abc ") == "abc"
    assert bearer(b"Basic abc") is None
    assert bearer(b"Bearer") is None
