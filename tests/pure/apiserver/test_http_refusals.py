"""Bad input and people who may not: always a Status, never a traceback."""

from __future__ import annotations

import base64
import http.client
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from running_apiserver import CONTROLLER, NODE, ApiServer

CM = "/api/v1/namespaces/default/configmaps"


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status", "reason"),
    [
        ("GET", "/api/v1/nonsense", None, "", 404, "NotFound"),
        ("GET", "/apis/none.example/v1/things", None, "", 404, "NotFound"),
        ("GET", "/nowhere", None, "", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/nodes", None, "", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/configmaps/a/b/c", None, "", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/configmaps/a/scale", None, "", 404, "NotFound"),
        ("GET", "/api/v1//configmaps", None, "", 404, "NotFound"),
        ("GET", "/api/v2", None, "", 404, "NotFound"),
        ("GET", "/apis/", None, "", 200, None),
        ("POST", "/version", b"{}", "application/json", 405, "MethodNotAllowed"),
        ("POST", CM + "/a", b"{}", "application/json", 405, "MethodNotAllowed"),
        ("PUT", CM, b"{}", "application/json", 405, "MethodNotAllowed"),
        ("POST", "/api/v1/configmaps", b"{}", "application/json", 400, "BadRequest"),
        ("POST", CM, b"{", "application/json", 400, "BadRequest"),
        ("POST", CM, b"", "application/json", 400, "BadRequest"),
        ("POST", CM, b"[]", "application/json", 400, "BadRequest"),
        ("POST", CM, b"null", "application/json", 400, "BadRequest"),
        ("POST", CM, b"[" * 5000, "application/json", 400, "BadRequest"),
        ("POST", CM, b'{"metadata": 5}', "application/json", 400, "BadRequest"),
        ("POST", CM, b'{"metadata": {"name": 5}}', "application/json", 400, "BadRequest"),
        ("POST", CM, b'{"data": "x", "metadata": {"name": "a"}}', "application/json", 400, "BadRequest"),
        ("POST", CM, b'{"kind": "Secret", "metadata": {"name": "a"}}', "application/json", 400, "BadRequest"),
        ("POST", CM, b'{"apiVersion": "v9", "metadata": {"name": "a"}}', "application/json", 400, "BadRequest"),
        ("POST", CM, b'{"metadata": {"name": "a", "namespace": "other"}}', "application/json", 400, "BadRequest"),
        ("POST", CM, b'{"metadata": {"name": "a", "resourceVersion": "5"}}', "application/json", 400, "BadRequest"),
        ("POST", CM, b'{"metadata": {"name": "A"}}', "application/json", 422, "Invalid"),
        ("POST", CM, b"{}", "application/json", 422, "Invalid"),
        ("POST", CM, b"a: [", "application/yaml", 400, "BadRequest"),
        ("POST", CM, b"\xff\xfe", "application/json", 400, "BadRequest"),
        ("POST", CM, b"<xml/>", "text/xml", 415, "UnsupportedMediaType"),
        ("POST", CM, b"k8s\0", "application/vnd.kubernetes.protobuf", 400, "BadRequest"),
        ("PATCH", "/api/v1/namespaces/kube-system", b"{}", "application/json", 415, "UnsupportedMediaType"),
        ("PATCH", "/api/v1/namespaces/kube-system", b"[", "application/merge-patch+json", 400, "BadRequest"),
        ("PATCH", "/api/v1/namespaces/kube-system", b"5", "application/merge-patch+json", 400, "BadRequest"),
        ("PATCH", "/api/v1/namespaces/kube-system", b"{}", "application/json-patch+json", 400, "BadRequest"),
        ("PATCH", "/api/v1/namespaces/kube-system", b'[{"op":"remove","path":"/no"}]', "application/json-patch+json", 422, "Invalid"),
        ("PATCH", "/api/v1/namespaces/kube-system", b'{"metadata":null}', "application/merge-patch+json", 400, "BadRequest"),
        ("DELETE", CM + "/a", b"[]", "application/json", 400, "BadRequest"),
        ("DELETE", CM + "/a", b'{"gracePeriodSeconds": "x"}', "application/json", 400, "BadRequest"),
        ("DELETE", CM + "/a", b'{"preconditions": "x"}', "application/json", 400, "BadRequest"),
        ("DELETE", CM + "/a", b'{"propagationPolicy": ["Orphan"]}', "application/json", 400, "BadRequest"),
        ("GET", "/api/v1/watch/pods", None, "", 404, "NotFound"),
        ("OPTIONS", CM, None, "", 405, "MethodNotAllowed"),
    ],
)
def test_bad_requests(call: Any, method: str, path: str, body: bytes | None, content_type: str, status: int, reason: str | None) -> None:
    got = call(method, path, body, content_type=content_type)
    assert got.status == status, got
    if reason is not None:
        assert (got.tree["kind"], got.tree["status"], got.tree["code"], got.tree["reason"]) == ("Status", "Failure", status, reason)
        assert got.tree["message"]


def test_yaml_is_read(call: Any) -> None:
    got = call("POST", CM, b"metadata:\n  name: from-yaml\ndata: {k: 'v'}\n", content_type="application/yaml")
    assert (got.status, got.tree["data"]) == (201, {"k": "v"})


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large(server: ApiServer, announced: bool) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=20)
    big = b"x" * (3 * 1024 * 1024 + 1)
    headers = {"content-type": "application/json"}
    try:
        if announced:
            connection.putrequest("POST", CM)
            connection.putheader("content-length", str(len(big)))
            connection.endheaders()
        else:
            connection.request("POST", CM, iter([big[:65536]] * 48 + [b"xx"]), headers, encode_chunked=True)
        got = connection.getresponse()
        assert got.status == 413
        assert b"RequestEntityTooLarge" in got.read()
    finally:
        connection.close()


def test_anonymous_sees_only_whether_it_is_alive(call: Any) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        got = call("GET", path, identity=None)
        assert (got.status, got.tree) == (200, b"ok")
    assert call("GET", "/version", identity=None).status == 200
    for path in (CM, "/api", "/apis/apps/v1", "/openapi/v3", "/metrics", "/", "/nowhere"):
        got = call("GET", path, identity=None)
        assert (got.status, got.tree["reason"]) == (403, "Forbidden"), path
        assert 'User "system:anonymous" cannot' in got.tree["message"]


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer ", "Basic dTpw", "nonsense", "Bearer \xe9"])
def test_a_wrong_proof_is_refused_even_beside_a_right_one(call: Any, header: str) -> None:
    assert call("GET", "/version", headers={"authorization": header}).status == 401


def test_tokens_of_service_accounts(call: Any) -> None:
    account = {"metadata": {"name": "reader", "namespace": "kube-system"}}
    subject = {"kind": "ServiceAccount", **account["metadata"]}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    binding = {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]}
    assert call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).status == 201
    made = call("POST", "/api/v1/namespaces/kube-system/serviceaccounts", account).tree
    secret = {
        "metadata": {"name": "reader-token", "annotations": {"kubernetes.io/service-account.name": "reader"}},
        "type": "kubernetes.io/service-account-token",
        "data": {"token": base64.b64encode(b"a-secret-token").decode()},
    }
    kept = call("POST", "/api/v1/namespaces/kube-system/secrets", secret).tree
    # What somebody wrote into a Secret proves nothing.
    assert call("GET", "/api/v1/services", identity=None, headers={"authorization": "Bearer a-secret-token"}).status == 401
    bound = {"apiVersion": "v1", "kind": "Secret", "name": "reader-token", "uid": kept["metadata"]["uid"]}
    asked = {"spec": {"boundObjectRef": bound, "expirationSeconds": 1 << 32}}
    given = call("POST", "/api/v1/namespaces/kube-system/serviceaccounts/reader/token", asked).tree["status"]["token"]
    token = {"authorization": f"Bearer {given}"}
    who = call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, identity=None, headers=token)
    info = who.tree["status"]["userInfo"]
    assert (info["username"], info["uid"]) == ("system:serviceaccount:kube-system:reader", made["metadata"]["uid"])
    assert call("GET", "/api/v1/services", identity=None, headers=token).status == 200
    refused = call("DELETE", "/api/v1/namespaces/default/services/kubernetes", identity=None, headers=token)
    assert (refused.status, refused.tree["message"]) == (
        403,
        'services "kubernetes" is forbidden: User "system:serviceaccount:kube-system:reader" cannot delete resource "services" '
        'in API group "" in the namespace "default"',
    )
    # A ServiceAccount that is made anew is another one.
    call("DELETE", "/api/v1/namespaces/kube-system/serviceaccounts/reader")
    assert call("GET", "/api/v1/services", identity=None, headers=token).status == 401
    call("POST", "/api/v1/namespaces/kube-system/serviceaccounts", account)
    assert call("GET", "/api/v1/services", identity=None, headers=token).status == 401
    given = call("POST", "/api/v1/namespaces/kube-system/serviceaccounts/reader/token", asked).tree["status"]["token"]
    token = {"authorization": f"Bearer {given}"}
    assert call("GET", "/api/v1/services", identity=None, headers=token).status == 200
    call("DELETE", "/api/v1/namespaces/kube-system/secrets/reader-token")
    assert call("GET", "/api/v1/services", identity=None, headers=token).status == 401


def test_a_node_writes_its_own(call: Any) -> None:
    pods = "/api/v1/namespaces/default/pods"
    for name, node in (("mine", "node-1"), ("theirs", "node-2")):
        call("POST", pods, {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
        assert call("POST", f"{pods}/{name}/binding", {"target": {"kind": "Node", "name": node}}).status == 201
    change = {"status": {"phase": "Running"}}
    merge = "application/merge-patch+json"
    assert call("PATCH", f"{pods}/mine/status", change, identity=NODE, content_type=merge).status == 200
    refused = call("PATCH", f"{pods}/theirs/status", change, identity=NODE, content_type=merge)
    assert (refused.status, refused.tree["reason"]) == (403, "Forbidden")
    assert call("PATCH", f"{pods}/mine", {"metadata": {"labels": {"a": "b"}}}, identity=NODE, content_type=merge).status == 403
    assert call("DELETE", f"{pods}/theirs", identity=NODE).status == 403
    assert call("POST", "/api/v1/nodes", {"metadata": {"name": "node-1"}}, identity=NODE).status == 201
    assert call("PATCH", "/api/v1/nodes/node-1/status", {"status": {}}, identity=NODE, content_type=merge).status == 200
    call("POST", "/api/v1/nodes", {"metadata": {"name": "node-2"}})
    assert call("PATCH", "/api/v1/nodes/node-2/status", {"status": {"phase": "x"}}, identity=NODE, content_type=merge).status == 403
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    assert call("POST", leases, {"metadata": {"name": "node-1"}}, identity=NODE).status == 201
    assert call("GET", leases, identity=NODE).status == 403


def test_a_controller_writes_what_it_controls(call: Any) -> None:
    assert call("POST", CM, {"metadata": {"name": "by-controller"}}, identity=CONTROLLER).status == 201
    assert call("DELETE", "/api/v1/namespaces/kube-public", identity=CONTROLLER).status == 403
    assert call("DELETE", "/api/v1/nodes/any", identity=CONTROLLER).status == 403
    whether = {"spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}}
    got = call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", whether, identity=CONTROLLER)
    assert (got.status, got.tree["status"]["allowed"]) == (201, False)
    assert call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", whether).tree["status"]["allowed"] is True
    rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    assert call("POST", rules, {"spec": {"namespace": "default"}}, identity=CONTROLLER).status == 201
    assert call("POST", rules, {}, identity=CONTROLLER).tree["message"] == "no namespace on request"


def test_discovery(call: Any) -> None:
    accept = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"}
    for path in ("/api", "/apis"):
        got = call("GET", path, headers=accept)
        assert got.tree["kind"] == "APIGroupDiscoveryList"
        assert got.headers["content-type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    older = call("GET", "/apis", headers={"accept": accept["accept"].replace("v=v2", "v=v2beta1")})
    assert older.tree["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
    assert call("GET", "/api").tree["versions"] == ["v1"]
    groups = {group["name"] for group in call("GET", "/apis").tree["groups"]}
    assert {"apps", "discovery.k8s.io", "coordination.k8s.io", "compute.podwire.dev"} <= groups
    resources = {one["name"]: one for one in call("GET", "/api/v1").tree["resources"]}
    assert {"pods", "pods/status", "pods/binding", "services", "nodes"} <= set(resources)
    assert call("GET", "/apis/apps").tree["preferredVersion"]["groupVersion"] == "apps/v1"
    index = call("GET", "/openapi/v3").tree["paths"]
    document = call("GET", index["apis/apps/v1"]["serverRelativeURL"]).tree
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}
    assert call("GET", "/openapi/v3/apis/none/v1").status == 404


def test_documents_of_openapi_are_kept_by_clients(call: Any) -> None:
    place = call("GET", "/openapi/v3").tree["paths"]["apis/apps/v1"]["serverRelativeURL"]
    whole = call("GET", place)
    assert (whole.status, whole.headers["cache-control"], whole.headers["vary"]) == (200, "public, immutable", "Accept")
    assert parsedate_to_datetime(whole.headers["expires"]) - parsedate_to_datetime(whole.headers["date"]) >= timedelta(days=364)
    etag = whole.headers["etag"]
    assert etag == f'"{place.partition("=")[2]}"'
    again = call("GET", place, headers={"if-none-match": etag})
    assert (again.status, again.tree, again.headers["etag"]) == (304, b"", etag)
    assert call("GET", place, headers={"if-none-match": '"another"'}).status == 200
    plain = call("GET", "/openapi/v3/apis/apps/v1")
    assert (plain.status, plain.headers["cache-control"], plain.headers["etag"]) == (200, "no-cache, private", etag)
    moved = call("GET", "/openapi/v3/apis/apps/v1?hash=ABC")
    assert (moved.status, moved.headers["location"]) == (301, place)


def test_a_policy_of_deletion_that_there_is_not(call: Any) -> None:
    got = call("DELETE", CM + "/none?propagationPolicy=Sideways")
    assert (got.status, got.tree["reason"]) == (422, "Invalid")
    assert got.tree["message"] == (
        'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": '
        'supported values: "Foreground", "Background", "Orphan", "nil"'
    )


def test_metrics_say_what_they_are(call: Any) -> None:
    lines = call("GET", "/metrics").tree.decode().splitlines()
    told = {line.split()[2] for line in lines if line.startswith("# TYPE ")}
    assert told == {line.split()[2] for line in lines if line.startswith("# HELP ")}
    assert told == {line.partition("{")[0].split()[0] for line in lines if not line.startswith("#")}
    assert "apiserver_storage_revision" in told


def test_who_may_can_be_taken_for_another(call: Any) -> None:
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    got = call("POST", review, {}, headers={"impersonate-user": "ann", "impersonate-group": "team", "impersonate-uid": "7"})
    info = got.tree["status"]["userInfo"]
    assert (info["username"], info["uid"], info["groups"]) == ("ann", "7", ["team", "system:authenticated"])
    assert call("GET", CM, headers={"impersonate-user": "ann"}).status == 403
    assert call("GET", CM, headers={"impersonate-user": "ann", "impersonate-group": "system:masters"}).status == 200
    assert call("GET", CM, headers={"impersonate-group": "team"}).status == 400
    refused = call("GET", CM, identity=CONTROLLER, headers={"impersonate-user": "ann"})
    assert refused.tree["message"].startswith(
        'users "ann" is forbidden: User "system:podwire:controllers" cannot impersonate resource "users"'
    )


@pytest.mark.parametrize("depth", [200, 300, 900, 5000])
@pytest.mark.parametrize("where", ["data", "metadata", "deep"])
def test_objects_that_are_nested_deeply(call: Any, namespace: str, depth: int, where: str) -> None:
    """Told to be wrong or too deep, by every way of writing; never an error of the server's own."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    body = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"%b":%b}' % (where.encode(), nested)
    made = b'{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"a.b"},"spec":%b}' % nested
    for method, target, sent, media in (
        ("POST", path, body, "application/json"),
        ("PATCH", path + "/a?fieldManager=m", body, "application/apply-patch+yaml"),
        ("PATCH", path + "/kube-root-ca.crt", body, "application/merge-patch+json"),
        ("PATCH", path + "/kube-root-ca.crt", body, "application/strategic-merge-patch+json"),
        ("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", made, "application/json"),
    ):
        got = call(method, target, sent, content_type=media)
        assert got.status < 500 or "field not declared in schema" in got.tree["message"], got
        call("DELETE", path + "/a")
