"""The API's doors tried as an attacker would: with proofs that are too little, with paths that mislead, with rights that others gave."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from running_apiserver import NODE, ApiServer

Tree = dict[str, Any]
DEADLINE_S = 20.0
MERGE = "application/merge-patch+json"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CONTAINERS = [{"name": "c", "image": "i"}]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def taken_for(name: str, *groups: str) -> dict[str, str]:
    return {"impersonate-user": name, **({"impersonate-group": groups[0]} if groups else {})}


@pytest.fixture(scope="module")
def port(server: ApiServer) -> int:
    return server.port


@pytest.fixture
def token(call: Any, namespace: str) -> str:
    call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "pod"}})
    got = call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/pod/token", {"spec": {}})
    assert got.status == 201
    return str(got.tree["status"]["token"])


def bind(call: Any, namespace: str, role: str, *rules: Tree, kind: str = "User", name: str = "bob") -> None:
    subject = {"kind": kind, "name": name, **({"namespace": namespace} if kind == "ServiceAccount" else {})}
    got = call("POST", f"{RBAC}/namespaces/{namespace}/roles", {"metadata": {"name": role}, "rules": list(rules)})
    assert got.status == 201, got
    body = {"metadata": {"name": role}, "roleRef": {"kind": "Role", "name": role}, "subjects": [subject]}
    assert call("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", body).status == 201


# A Pod's token ---------------------------------------------------------------------------------------------------------------


def test_a_pods_token_reads_no_secret_of_another_namespace(call: Any, namespace: str, token: str) -> None:
    call("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "treasure"}})
    call("POST", f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "own"}})
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}
    bind(call, namespace, "reader", rule, kind="ServiceAccount", name="pod")
    headers = bearer(token)
    assert call("GET", f"/api/v1/namespaces/{namespace}/secrets/own", identity=None, headers=headers).status == 200
    user = f"system:serviceaccount:{namespace}:pod"
    for path in (
        "/api/v1/namespaces/default/secrets/treasure",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/secrets",
        "/api/v1/secrets?watch=1",
        "/api/v1/secrets?fieldSelector=metadata.namespace%3D" + namespace,
        "/api/v1/watch/namespaces/default/secrets",
    ):
        got = call("GET", path, identity=None, headers=headers)
        assert got.status in (403, 404), (path, got)
    refused = call("GET", "/api/v1/namespaces/default/secrets/treasure", identity=None, headers=headers)
    assert (refused.status, refused.tree["message"]) == (
        403,
        f'secrets "treasure" is forbidden: User "{user}" cannot get resource "secrets" in API group "" in the namespace "default"',
    )
    assert refused.tree["details"] == {"name": "treasure", "kind": "secrets"}


def test_paths_that_mislead_lead_nowhere(call: Any, namespace: str, token: str) -> None:
    bind(call, namespace, "reader", {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}, kind="ServiceAccount", name="pod")
    call("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "treasure"}})
    headers = bearer(token)
    own = f"/api/v1/namespaces/{namespace}"
    for path in (
        f"{own}/../default/secrets/treasure",
        f"{own}/secrets/../../default/secrets/treasure",
        f"{own}%2f..%2fdefault/secrets/treasure",
        f"{own}/secrets/..%2f..%2fdefault%2fsecrets%2ftreasure",
        f"{own}/secrets/%2e%2e/%2e%2e/default/secrets/treasure",
        f"//api/v1/namespaces/default/secrets/treasure?{own}",
        f"{own}//../default/secrets/treasure",
        f"{own};/../default/secrets/treasure",
        "/api/v1/namespaces/default;x=1/secrets/treasure",
        "/api/v1/namespaces/default/secrets/treasure;x=1",
        "/api//v1/namespaces/default/secrets/treasure",
        "/./api/v1/namespaces/default/secrets/treasure",
        "/healthz/../api/v1/namespaces/default/secrets/treasure",
        "/version/%2e%2e/api/v1/namespaces/default/secrets/treasure",
        "/API/v1/namespaces/default/secrets/treasure",
        "/api/v1/namespaces/default/secrets/treasure%00",
        "/api/v1/namespaces/default%2fsecrets/secrets/treasure",
        "/api/v1/proxy/namespaces/default/secrets/treasure",
    ):
        got = call("GET", path, identity=None, headers=headers)
        assert got.status in (400, 403, 404), (path, got)
        assert got.tree["kind"] == "Status", path
    assert call("GET", f"{own}/secrets", identity=None, headers=headers).status == 200


def test_anonymous_paths(call: Any) -> None:
    for path in (
        "/healthz/../metrics",
        "/healthz%2f..%2fmetrics",
        "//metrics",
        "/version/..//api",
        "/healthz/etcd",
        "/logs",
        "/debug/pprof",
    ):
        got = call("GET", path, identity=None)
        assert got.status in (403, 404), (path, got)
    assert call("POST", "/healthz", {}, identity=None).status == 403


# A node's certificate --------------------------------------------------------------------------------------------------------


def test_a_node_touches_only_what_is_its_own(call: Any, namespace: str) -> None:
    core = f"/api/v1/namespaces/{namespace}"
    for name in ("used", "unused", "theirs"):
        call("POST", f"{core}/secrets", {"metadata": {"name": name}})
        call("POST", f"{core}/configmaps", {"metadata": {"name": name}})
    for name, node, secret in (("mine", "node-1", "used"), ("other", "node-2", "theirs")):
        spec = {"containers": CONTAINERS, "volumes": [{"name": "v", "secret": {"secretName": secret}}]}
        assert call("POST", f"{core}/pods", {"metadata": {"name": name}, "spec": spec}).status == 201
        assert call("GET", f"{core}/secrets/{secret}", identity=NODE).status == 403
        assert call("POST", f"{core}/pods/{name}/binding", {"target": {"kind": "Node", "name": node}}).status == 201
    assert call("GET", f"{core}/secrets/used", identity=NODE).status == 200
    by_name = call("GET", f"{core}/secrets?fieldSelector=metadata.name%3Dused", identity=NODE)
    assert [one["metadata"]["name"] for one in by_name.tree["items"]] == ["used"]
    for path in (
        "secrets/unused",
        "secrets/theirs",
        "secrets",
        "configmaps/used",
        "pods/other",
        "pods",
        "secrets?fieldSelector=type%3DOpaque",
    ):
        got = call("GET", f"{core}/{path}", identity=NODE)
        assert got.status == 403, (path, got)
    why = call("GET", f"{core}/secrets/theirs", identity=NODE).tree["message"]
    assert why.endswith(": no relationship found between node 'node-1' and this object")
    mine = call("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1", identity=NODE)
    assert {one["spec"]["nodeName"] for one in mine.tree["items"]} == {"node-1"}
    assert call("GET", "/api/v1/pods?fieldSelector=spec.nodeName%21%3Dnode-1", identity=NODE).status == 403
    assert call("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-2", identity=NODE).status == 403
    status = {"status": {"phase": "Running"}}
    assert call("PATCH", f"{core}/pods/mine/status", status, identity=NODE, content_type=MERGE).status == 200
    refused = call("PATCH", f"{core}/pods/other/status", status, identity=NODE, content_type=MERGE)
    assert (refused.status, refused.tree["message"]) == (
        403,
        'pods "other" is forbidden: node "node-1" can only update pod status for pods with spec.nodeName set to itself',
    )
    labels = {"metadata": {"labels": {"a": "b"}}}
    assert call("PATCH", f"{core}/pods/mine", labels, identity=NODE, content_type=MERGE).status == 403
    evicted = call("POST", f"{core}/pods/other/eviction", {"metadata": {"name": "other"}}, identity=NODE)
    assert evicted.tree["message"].endswith("node node-1 can only evict pods with spec.nodeName set to itself")
    deleted = call("DELETE", f"{core}/pods/other", identity=NODE)
    assert deleted.tree["message"] == 'pods "other" is forbidden: node "node-1" can only delete pods with spec.nodeName set to itself'
    made = call(
        "POST", f"{core}/pods", {"metadata": {"name": "x"}, "spec": {"containers": CONTAINERS, "nodeName": "node-1"}}, identity=NODE
    )
    assert (made.status, "can only create mirror pods" in made.tree["message"]) == (403, True)
    assert call("DELETE", f"{core}/pods/mine?gracePeriodSeconds=0", identity=NODE).status == 200
    assert call("GET", f"{core}/secrets/used", identity=NODE).status == 403


def test_a_node_gives_itself_no_rights(call: Any) -> None:
    nodes = "/api/v1/nodes"
    call("POST", nodes, {"metadata": {"name": "node-1"}}, identity=NODE)
    call("POST", nodes, {"metadata": {"name": "node-2"}})
    assert call("POST", nodes, {"metadata": {"name": "node-3"}}, identity=NODE).tree["message"] == (
        'nodes "node-3" is forbidden: node "node-1" is not allowed to modify node "node-3"'
    )

    def labelled(key: str) -> Any:
        return call("PATCH", f"{nodes}/node-1", {"metadata": {"labels": {key: "x"}}}, identity=NODE, content_type=MERGE)

    for key in ("topology.kubernetes.io/zone", "cloud.google.com/gke-nodepool", "own.node.kubernetes.io/x", "example.com/y", "plain"):
        assert labelled(key).status == 200, key
    for key in ("node-restriction.kubernetes.io/x", "kubernetes.io/role", "node-role.kubernetes.io/control-plane", "a.k8s.io/b"):
        got = labelled(key)
        assert (got.status, got.tree["message"]) == (403, f'nodes "node-1" is forbidden: is not allowed to modify labels: {key}')
    taint = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    got = call("PATCH", f"{nodes}/node-1", taint, identity=NODE, content_type=MERGE)
    assert got.tree["message"].endswith('node "node-1" is not allowed to modify taints')
    assert call("PATCH", f"{nodes}/node-2", {"metadata": {"labels": {"a": "b"}}}, identity=NODE, content_type=MERGE).status == 403
    assert (
        call("GET", f"{nodes}/node-2", identity=NODE)
        .tree["message"]
        .endswith("node 'node-1' cannot read 'node-2', only its own Node object")
    )
    assert call("DELETE", f"{nodes}/node-1", identity=NODE).status == 403
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    assert call("POST", leases, {"metadata": {"name": "node-2"}}, identity=NODE).status == 403


def test_a_node_gets_tokens_of_its_own_pods_only(call: Any, namespace: str) -> None:
    core = f"/api/v1/namespaces/{namespace}"
    uids = {}
    for name, node in (("mine", "node-1"), ("other", "node-2")):
        call("POST", f"{core}/serviceaccounts", {"metadata": {"name": name}})
        made = call("POST", f"{core}/pods", {"metadata": {"name": name}, "spec": {"containers": CONTAINERS, "serviceAccountName": name}})
        uids[name] = made.tree["metadata"]["uid"]
        call("POST", f"{core}/pods/{name}/binding", {"target": {"kind": "Node", "name": node}})

    def asked(account: str, pod: str = "", uid: str = "", headers: Any = None, audiences: tuple[str, ...] = ()) -> Any:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod, **({"uid": uid} if uid else {})}
        body = {"spec": {"boundObjectRef": bound, "audiences": audiences} if pod else {}}
        return call("POST", f"{core}/serviceaccounts/{account}/token", body, identity=NODE if headers is None else None, headers=headers)

    got = asked("mine", "mine", uids["mine"])
    assert got.status == 201
    token = got.tree["status"]["token"]
    who = call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, identity=None, headers=bearer(token)).tree
    assert who["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-uid"] == [uids["mine"]]
    assert asked("other", "other", uids["other"]).status == 403
    assert asked("mine").tree["message"].endswith("node requested token not bound to a pod")
    assert asked("mine", "mine").tree["message"].endswith("node requested token with a pod binding without a uid")
    assert asked("mine", "mine", "forged").status == 403
    assert asked("mine", "other", uids["other"]).tree["message"].endswith("bound to a pod scheduled on a different node")
    assert asked("mine", "gone", uids["mine"]).status == 404
    assert asked("mine", "mine", uids["mine"], audiences=("a", "b")).tree["message"].endswith("node may only request 0 or 1 audiences")
    foreign = asked("mine", "mine", uids["mine"], audiences=("vault",))
    why = 'audience "vault" not found in pod spec volume, system:node:node-1 is not authorized to request tokens for this audience'
    assert (foreign.status, foreign.tree["message"]) == (403, f'serviceaccounts "mine" is forbidden: {why}')
    allowed = {"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": ["vault"], "resourceNames": ["mine"]}
    bind(call, namespace, "vault", allowed, kind="Group", name="system:nodes")
    assert asked("mine", "mine", uids["mine"], audiences=("vault",)).status == 201
    call("DELETE", f"{core}/pods/mine?gracePeriodSeconds=0")
    assert call("GET", "/api", identity=None, headers=bearer(token)).status == 401


def test_token_requests(call: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    call("POST", path, {"metadata": {"name": "a"}})
    call("POST", path, {"metadata": {"name": "b"}})
    call(
        "POST",
        f"/api/v1/namespaces/{namespace}/pods",
        {"metadata": {"name": "p"}, "spec": {"containers": CONTAINERS, "serviceAccountName": "b"}},
    )

    def asked(**spec: Any) -> Any:
        return call("POST", f"{path}/a/token", {"spec": spec})

    def bound(kind: str, name: str, **more: str) -> Any:
        return asked(boundObjectRef={"apiVersion": "v1", "kind": kind, "name": name, **more})

    assert "may not specify a duration less than 10 minutes" in asked(expirationSeconds=599).tree["message"]
    assert "larger than 2^32 seconds" in asked(expirationSeconds=(1 << 32) + 1).tree["message"]
    assert bound("ConfigMap", "x").tree["message"] == "cannot bind token to object of type /v1, Kind=ConfigMap"
    assert bound("Pod", "gone").status == 404
    assert bound("Pod", "p").tree["message"] == (
        'cannot bind token for serviceaccount "a" to pod running with different serviceaccount name.'
    )
    assert bound("Pod", "p", uid="other").status == 409
    assert call("POST", f"{path}/gone/token", {"spec": {}}).status == 404
    assert call("POST", f"{path}/a/token", {"metadata": {"name": "b"}, "spec": {}}).status == 400
    review = "/apis/authentication.k8s.io/v1/tokenreviews"
    token = asked(audiences=["vault"]).tree["status"]["token"]
    assert call("POST", review, {"spec": {"token": token}}).tree["status"] == {"user": {}, "error": "invalid bearer token"}
    found = call("POST", review, {"spec": {"token": token, "audiences": ["vault", "x"]}}).tree["status"]
    assert (found["authenticated"], found["audiences"]) == (True, ["vault"])
    assert found["user"]["username"] == f"system:serviceaccount:{namespace}:a"
    assert call("POST", review, {"spec": {}}).status == 400


# Escalation ------------------------------------------------------------------------------------------------------------------


def test_nobody_grants_what_he_does_not_have(call: Any, namespace: str) -> None:
    rbac = f"{RBAC}/namespaces/{namespace}"
    own = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    manage = {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "rolebindings"],
        "verbs": ["create", "update", "patch", "get"],
    }
    bind(call, namespace, "manager", own, manage)
    bob = taken_for("bob")

    def role(name: str, *rules: Tree, method: str = "POST") -> Any:
        path = f"{rbac}/roles" + (f"/{name}" if method == "PUT" else "")
        return call(method, path, {"metadata": {"name": name}, "rules": list(rules)}, headers=bob)

    def binding(name: str, kind: str, of: str) -> Any:
        body = {"metadata": {"name": name}, "roleRef": {"kind": kind, "name": of}, "subjects": [{"kind": "User", "name": "bob"}]}
        return call("POST", f"{rbac}/rolebindings", body, headers=bob)

    assert role("same", own).status == 201
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    refused = role("more", secrets)
    assert (refused.status, refused.tree["message"]) == (
        403,
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "bob" (groups=["system:authenticated"]) is attempting to grant RBAC '
        'permissions not currently held:\n{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}',
    )
    assert role("same", own, secrets, method="PUT").status == 403
    assert role("wild", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}).status == 403
    assert binding("same", "Role", "same").status == 201
    assert binding("admin", "ClusterRole", "cluster-admin").status == 403
    assert binding("none", "ClusterRole", "gone").status == 404
    call("POST", f"{rbac}/roles", {"metadata": {"name": "secrets"}, "rules": [secrets]})
    assert binding("secrets", "Role", "secrets").status == 403
    named = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "resourceNames": ["secrets"], "verbs": ["bind"]}
    bind(call, namespace, "binder", named)
    assert binding("secrets", "Role", "secrets").status == 201
    bind(call, namespace, "escalator", {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]})
    assert role("wild", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}).status == 201


def test_a_rule_that_names_billions_of_things(call: Any, namespace: str) -> None:
    """A few kilobytes: for who has no such rights it is refused before it is counted out, for others it costs what it weighs."""
    many = [f"x{number}" for number in range(3000)]
    bomb = {"apiGroups": [*many, ""], "resources": [*many, "pods", "*/log"], "verbs": [*many, "get"], "resourceNames": ["a", "b"]}
    where = f"{RBAC}/namespaces/{namespace}/roles"
    bind(call, namespace, "maker", {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]}, name="bob")
    refused = call("POST", where, {"metadata": {"name": "bomb"}, "rules": [bomb]}, headers=taken_for("bob"))
    assert (refused.status, "combinations of verbs, groups and resources" in refused.tree["message"]) == (403, True)
    bind(call, namespace, "bomb", bomb, name="ann")
    for path, status in (("pods/a", 404), ("pods/b/log", 404), ("pods/c", 403), ("pods", 403), ("secrets/a", 403)):
        assert call("GET", f"/api/v1/namespaces/{namespace}/{path}", headers=taken_for("ann")).status == status, path


def test_collecting_roles_are_for_who_has_everything(call: Any) -> None:
    manage = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["*"]}
    rules = [{**manage, "verbs": ["create", "update", "delete"]}]
    call("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "maker"}, "rules": rules})
    subject = {"kind": "User", "name": "maker"}
    call(
        "POST",
        f"{RBAC}/clusterrolebindings",
        {"metadata": {"name": "m"}, "roleRef": {"kind": "ClusterRole", "name": "maker"}, "subjects": [subject]},
    )
    selector = {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}
    got = call("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "c"}, "aggregationRule": selector}, headers=taken_for("maker"))
    assert (got.status, '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}' in got.tree["message"]) == (403, True)
    assert call("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "c"}, "aggregationRule": selector}).status == 201
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    call("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "leaf", "labels": {"x": "y"}}, "rules": [rule]})
    until(lambda: call("GET", f"{RBAC}/clusterroles/c").tree.get("rules") == [rule])
    call("DELETE", f"{RBAC}/clusterroles/leaf")
    until(lambda: not call("GET", f"{RBAC}/clusterroles/c").tree.get("rules"))


def until(condition: Any) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it did not come to be"


def test_impersonation_is_granted_piece_by_piece(call: Any) -> None:
    rules = [
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["team"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "resourceNames": ["view"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "resourceNames": ["7"], "verbs": ["impersonate"]},
    ]
    call("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "impersonator"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "proxy", "namespace": "default"}
    role = {"kind": "ClusterRole", "name": "impersonator"}
    call("POST", f"{RBAC}/clusterrolebindings", {"metadata": {"name": "i"}, "roleRef": role, "subjects": [subject]})
    call("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "proxy"}})
    token = call("POST", "/api/v1/namespaces/default/serviceaccounts/proxy/token", {}).tree["status"]["token"]

    def as_(**headers: str) -> Any:
        asked = {f"impersonate-{key.replace('_', '-')}": value for key, value in headers.items()}
        return call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, identity=None, headers={**bearer(token), **asked})

    got = as_(user="ann", group="team", uid="7", extra_scopes="view")
    info = got.tree["status"]["userInfo"]
    assert (info["username"], info["groups"], info["uid"], info["extra"]) == (
        "ann",
        ["team", "system:authenticated"],
        "7",
        {"scopes": ["view"]},
    )
    account = as_(user="system:serviceaccount:shop:web").tree["status"]["userInfo"]
    assert account["groups"] == ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
    refused = as_(user="ann", group="system:masters")
    assert (refused.status, refused.tree["message"]) == (
        403,
        'groups "system:masters" is forbidden: User "system:serviceaccount:default:proxy" cannot impersonate resource "groups" '
        'in API group "" at the cluster scope',
    )
    for asked in (
        {"user": "eve"},
        {"user": "ann", "uid": "8"},
        {"user": "ann", "extra_scopes": "all"},
        {"user": "ann", "extra_other": "view"},
    ):
        assert as_(**asked).status == 403, asked
    assert as_(group="team").status == 400


# A token among protocols -------------------------------------------------------------------------------------------------------


def test_a_browsers_token_is_one_of_its_protocols(call: Any, namespace: str, token: str) -> None:
    """It counts as it does elsewhere, once and beside another protocol."""
    where = f"/api/v1/namespaces/{namespace}/pods/none/exec?command=id&stdout=true"
    bind(
        call,
        namespace,
        "exec",
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
        kind="ServiceAccount",
        name="pod",
    )
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }

    def asked(*protocols: str) -> int:
        headers = upgrade | {"sec-websocket-protocol": ", ".join(protocols)}
        return int(call("GET", where, identity=None, headers=headers).status)

    mine, wrong = (
        "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in (token, "x")
    )
    assert asked("v5.channel.k8s.io") == 403
    assert asked(mine, "v5.channel.k8s.io") == 404  # there is no such Pod
    for refused in ([wrong, "v5.channel.k8s.io"], [mine], [mine, mine, "v5.channel.k8s.io"], [f"{mine}*", "v5.channel.k8s.io"]):
        assert asked(*refused) == 401, refused
