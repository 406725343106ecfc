"""CertificateSigningRequests: who asks is not for him to say, and who approves and signs must be allowed to."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from certificate_requests import CLIENT, asking
from running_apiserver import ApiServer

Tree = dict[str, Any]
PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REQUEST = asking("ann", "team")[0]
SPEC = {"request": REQUEST, "signerName": CLIENT, "usages": ["client auth"]}
NOW = "2026-01-01T00:00:00Z"
MERGE = "application/merge-patch+json"


def condition(kind: str, status: str = "True") -> Tree:
    return {"type": kind, "status": status, "reason": "ByTest", "lastUpdateTime": NOW}


def made(call: Any, name: str, **spec: Any) -> Tree:
    got = call("POST", PATH, {"metadata": {"name": name}, "spec": SPEC | spec})
    assert got.status == 201, got
    tree: Tree = got.tree
    return tree


def allow(call: Any, user: str, *rules: Tree) -> None:
    name = f"signers-{user}"
    assert call("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)}).status == 201
    subject = {"kind": "User", "name": user}
    body = {"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name}, "subjects": [subject]}
    assert call("POST", f"{RBAC}/clusterrolebindings", body).status == 201


def own(*parts: str, verbs: tuple[str, ...] = ("get", "update", "patch")) -> Tree:
    resources = [f"certificatesigningrequests{part}" for part in parts]
    return {"apiGroups": ["certificates.k8s.io"], "resources": resources, "verbs": list(verbs)}


def signer(verb: str, *names: str) -> Tree:
    return {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": [verb], "resourceNames": list(names)}


def test_who_asks_is_written_by_the_server_and_what_is_asked_stays(call: Any) -> None:
    allow(call, "asker", own("", verbs=("create", "update", "get")))
    sent = {"metadata": {"name": "asked"}, "spec": SPEC | {"username": "admin", "groups": ["system:masters"], "uid": "1"}}
    sent["status"] = {"conditions": [condition("Approved")], "certificate": "eA=="}
    got = call("POST", PATH, sent, headers={"impersonate-user": "asker", "impersonate-group": "team"}).tree
    assert (got["spec"]["username"], got["spec"]["groups"], got["spec"].get("uid")) == ("asker", ["team", "system:authenticated"], None)
    assert got["status"] == {}
    changed = got | {"spec": SPEC | {"username": "admin", "usages": ["server auth"]}}
    kept = call("PUT", f"{PATH}/asked", changed).tree
    assert kept["spec"] == got["spec"]
    shown = call("GET", f"{PATH}/asked", headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}).tree
    assert shown["rows"][0]["cells"][2:] == [CLIENT, "asker", "<none>", "Pending"]


def test_nobody_asks_for_an_administrators_certificate(call: Any) -> None:
    got = call("POST", PATH, {"metadata": {"name": "king"}, "spec": SPEC | {"request": asking("ann", "a", "system:masters")[0]}})
    why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    assert (got.status, got.tree["message"]) == (403, f'certificatesigningrequests.certificates.k8s.io "king" is forbidden: {why}')


@pytest.mark.parametrize("name", ["kubernetes.io/kube-apiserver-client", "kubernetes.io/*"])
def test_who_may_approve(call: Any, name: str) -> None:
    user = f"approver{len(name)}"
    tree = made(call, user)
    headers = {"impersonate-user": user}
    allow(call, user, own("/approval"))
    approved = tree | {"status": {"conditions": [condition("Approved")]}}
    refused = call("PUT", f"{PATH}/{user}/approval", approved, headers=headers)
    why = f'user not permitted to approve requests with signerName "{CLIENT}"'
    assert (refused.status, refused.tree["message"]) == (
        403,
        f'certificatesigningrequests.certificates.k8s.io "{user}" is forbidden: {why}',
    )
    call("PATCH", f"{RBAC}/clusterroles/signers-{user}", {"rules": [own("/approval"), signer("approve", name)]}, content_type=MERGE)
    got = call("PUT", f"{PATH}/{user}/approval", approved, headers=headers)
    assert got.status == 200, got
    assert got.tree["status"]["conditions"][0]["lastTransitionTime"]
    # Approving is not signing.
    given = {"status": {"certificate": base64.b64encode(b"x").decode()}}
    assert call("PATCH", f"{PATH}/{user}/status", given, content_type=MERGE, headers=headers).status == 403
    denied = got.tree | {"status": {"conditions": [condition("Denied")]}}
    assert call("PUT", f"{PATH}/{user}/approval", denied, headers=headers).status == 422
    stale = call("PUT", f"{PATH}/{user}/approval", approved, headers=headers)
    assert (stale.status, stale.tree["reason"]) == (409, "Conflict")


def test_the_role_of_an_approver(call: Any) -> None:
    """Bound to upstream's role, somebody approves what it is for and nothing else."""
    allow(call, "clerk", own("/approval"))
    role = {"kind": "ClusterRole", "name": "system:certificates.k8s.io:kube-apiserver-client-approver"}
    call(
        "POST",
        f"{RBAC}/clusterrolebindings",
        {"metadata": {"name": "clerk"}, "roleRef": role, "subjects": [{"kind": "User", "name": "clerk"}]},
    )
    for name, spec, status in (("theirs", {}, 200), ("others", {"signerName": "kubernetes.io/kubelet-serving"}, 403)):
        approved = made(call, name, **spec) | {"status": {"conditions": [condition("Approved")]}}
        assert call("PUT", f"{PATH}/{name}/approval", approved, headers={"impersonate-user": "clerk"}).status == status


def test_who_may_sign(call: Any, server: ApiServer) -> None:
    made(call, "signed")
    allow(call, "signer", own("/status"))
    authority = base64.b64encode(Path(f"{server.paths.pki}/ca.crt").read_bytes()).decode()
    headers, where = {"impersonate-user": "signer"}, f"{PATH}/signed/status"
    refused = call("PATCH", where, {"status": {"certificate": authority}}, content_type=MERGE, headers=headers)
    assert f'user not permitted to sign requests with signerName "{CLIENT}"' in refused.tree["message"]
    call("PATCH", f"{RBAC}/clusterroles/signers-signer", {"rules": [own("/status"), signer("sign", CLIENT)]}, content_type=MERGE)
    for state, words in (
        ({"conditions": [condition("Approved")]}, "updates may not add a condition of type Approved"),
        ({"certificate": "eA=="}, "must contain at least one CERTIFICATE PEM block"),
        ({"conditions": [condition("Failed", "False")]}, 'status.conditions[0].status: Unsupported value: "False"'),
    ):
        got = call("PATCH", where, {"status": state}, content_type=MERGE, headers=headers)
        assert (got.status, words in got.tree["message"]) == (422, True), got
    assert call("PATCH", where, {"status": {"certificate": authority}}, content_type=MERGE, headers=headers).status == 200
    changed = call("PATCH", where, {"status": {"certificate": None}}, content_type=MERGE, headers=headers)
    assert (changed.status, "may not modify a certificate" in changed.tree["message"]) == (422, True)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"request": ""}, "spec.request: Required value"),
        ({"request": base64.b64encode(b"x").decode()}, "PEM block type must be CERTIFICATE REQUEST"),
        ({"usages": []}, "spec.usages: Required value"),
        ({"usages": ["fun"]}, 'spec.usages[0]: Unsupported value: "fun"'),
        ({"usages": ["client auth", "client auth"]}, "spec.usages[1]: Duplicate value"),
        ({"expirationSeconds": 599}, "may not specify a duration less than 600 seconds (10 minutes)"),
        ({"signerName": ""}, "spec.signerName: Required value"),
        ({"signerName": "kubernetes.io/legacy-unknown"}, "not allowed via this API version"),
        ({"signerName": "nothing"}, "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        ({"signerName": "short/x"}, "should be a domain with at least two segments separated by dots"),
    ],
)
def test_what_is_wrong_with_a_request(call: Any, spec: Tree, words: str) -> None:
    got = call("POST", PATH, {"metadata": {"name": "wrong"}, "spec": SPEC | spec})
    assert (got.status, words in got.tree["message"]) == (422, True), got


def test_a_request_with_another_key_than_it_is_signed_with(call: Any) -> None:
    pem = bytearray(base64.b64decode(REQUEST))
    at = pem.rindex(b"-----END") - 12  # in the signature
    pem[at : at + 4] = b"AAAA"
    got = call("POST", PATH, {"metadata": {"name": "forged"}, "spec": SPEC | {"request": base64.b64encode(pem).decode()}})
    assert got.status == 422
