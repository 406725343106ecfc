"""The record of who did what, from a running server's file."""

from __future__ import annotations

import contextlib
import http.client
import json
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from podwire.apiserver.admission import verdicts
from podwire.apiserver.answers import Answer
from podwire.apiserver.auth.audit import Audit
from podwire.apiserver.auth.authorizer import Authorizer
from podwire.store import Store
from running_apiserver import ADMIN, ApiServer, start
from webhook_server import Webhook

CM = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def audited() -> Iterator[ApiServer]:
    with tempfile.TemporaryDirectory(prefix="api") as folder:
        running = start(Path(folder), auditLog=f"{folder}/audit/audit.log", auditLevel="RequestResponse")
        yield running
        running.stop()
        running.listener.close()
        assert "Traceback" not in running.log(), running.log()


def send(server: ApiServer, method: str, path: str, body: Any = None, identity: Any = ADMIN, **headers: str) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(identity), timeout=20)
    sent = None if body is None else json.dumps(body).encode()
    connection.request(method, path, sent, {"content-type": "application/json", "user-agent": "test/1", **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def lines(server: ApiServer) -> list[Any]:
    return [json.loads(line) for line in (server.folder / "audit/audit.log").read_text().splitlines()]


def events(server: ApiServer, path: str) -> list[Any]:
    """What was noted of one path; the last request has been answered when its line is there, or is a moment later."""
    return [event for event in lines(server) if event["requestURI"].split("?")[0] == path]


def test_who_did_what(audited: ApiServer) -> None:
    pod = {"metadata": {"name": "seen"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert send(audited, "POST", PODS, pod) == 201
    send(audited, "GET", "/healthz", identity=None)  # its predecessor's line is there
    [event] = events(audited, PODS)
    assert (event["kind"], event["apiVersion"], event["level"], event["stage"]) == (
        "Event",
        "audit.k8s.io/v1",
        "RequestResponse",
        "ResponseComplete",
    )
    assert (event["verb"], event["user"]["username"], event["userAgent"]) == ("create", "podwire-admin", "test/1")
    assert event["objectRef"] == {"resource": "pods", "namespace": "default", "apiVersion": "v1"}
    assert event["requestObject"] == pod
    assert event["responseObject"]["metadata"]["name"] == "seen"
    assert event["responseStatus"] == {"metadata": {}, "code": 201}
    assert event["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert event["sourceIPs"] == ["127.0.0.1"]
    assert event["requestReceivedTimestamp"] <= event["stageTimestamp"]


def test_what_was_refused_and_for_whom(audited: ApiServer) -> None:
    path = f"{PODS}/other"
    assert send(audited, "DELETE", path, **{"impersonate-user": "ann"}) == 403
    assert send(audited, "GET", path, identity=None, authorization="Bearer wrong") == 401
    assert send(audited, "OPTIONS", path) == 405
    send(audited, "GET", "/healthz", identity=None)
    refused, unknown, odd = events(audited, path)
    assert (refused["user"]["username"], refused["impersonatedUser"]["username"]) == ("podwire-admin", "ann")
    assert (refused["responseStatus"]["code"], refused["responseStatus"]["reason"]) == (403, "Forbidden")
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert (unknown["user"], unknown["responseStatus"]["code"]) == ({}, 401)
    assert odd["responseStatus"]["code"] == 405


def test_no_secret_is_written_and_the_file_is_private(audited: ApiServer) -> None:
    for path, tree in (
        ("/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}, "stringData": {"k": "TREASURE"}}),
        (CM, {"metadata": {"name": "c"}, "data": {"k": "TREASURE"}}),
        ("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "TREASURE"}}),
    ):
        assert send(audited, "POST", path, tree) == 201
    send(audited, "POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "a"}})
    assert send(audited, "POST", "/api/v1/namespaces/default/serviceaccounts/a/token", {"spec": {}}) == 201
    send(audited, "GET", "/healthz", identity=None, authorization="Bearer TREASURE")
    send(audited, "GET", "/healthz", identity=None)
    text = (audited.folder / "audit/audit.log").read_text()
    assert "secrets" in text
    assert "TREASURE" not in text
    assert "eyJ" not in text
    assert stat.S_IMODE((audited.folder / "audit/audit.log").stat().st_mode) == 0o600
    assert stat.S_IMODE((audited.folder / "audit").stat().st_mode) == 0o700


def test_what_admission_notes(audited: ApiServer) -> None:
    prefix = "pod-security.kubernetes.io/"
    held = {"name": "held", "labels": {f"{prefix}enforce": "baseline", f"{prefix}audit": "restricted"}}
    assert send(audited, "POST", "/api/v1/namespaces", {"metadata": held}) == 201
    where = "/api/v1/namespaces/held/pods"
    for name, context, code in (("a", {}, 201), ("b", {"privileged": True}, 403)):
        pod = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "securityContext": context}]}}
        assert send(audited, "POST", where, pod) == code
    send(audited, "GET", "/healthz", identity=None)
    for event in events(audited, where):
        assert event["annotations"]["authorization.k8s.io/decision"] == "allow"
        assert event["annotations"][f"{prefix}enforce-policy"] == "baseline:latest"
        assert event["annotations"][f"{prefix}audit-violations"].startswith('would violate PodSecurity "restricted:latest": ')


def test_what_policies_note_and_what_they_fail(audited: ApiServer) -> None:
    """Of two validations one fails, of five annotations two are there."""
    api = "/apis/admissionregistration.k8s.io/v1"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["serviceaccounts"]}]
    noted = [
        {"key": "who", "valueExpression": "' ' + object.metadata.name + ' by ' + request.userInfo.username"},
        {"key": "may", "valueExpression": "authorizer.requestResource.check('bless').allowed() ? 'yes' : 'no'"},
        {"key": "blank", "valueExpression": "'  '"},
        {"key": "nothing", "valueExpression": "null"},
        {"key": "ignored", "valueExpression": "object.nope"},
    ]
    told = {"expression": "object.metadata.name != 'bad'", "messageExpression": "'<no> ' + object.metadata.name"}
    noting = {"failurePolicy": "Ignore", "auditAnnotations": noted, "validations": [{"expression": "true"}, told]}
    refusing = {"validations": [{"expression": "object.metadata.name != 'bad'", "reason": "Forbidden"}]}
    for name, actions, policy in (("noting", ["Audit", "Warn"], noting), ("refusing", ["Deny", "Audit"], refusing)):
        spec = {"matchConstraints": {"resourceRules": rules}, **policy}
        assert send(audited, "POST", f"{api}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec}) == 201
        bound = {"metadata": {"name": f"{name}-b"}, "spec": {"policyName": name, "validationActions": actions}}
        assert send(audited, "POST", f"{api}/validatingadmissionpolicybindings", bound) == 201
    where = "/api/v1/namespaces/default/serviceaccounts"
    before = len(events(audited, where))
    for name, code in (("bad", 403), ("good", 201)):
        assert send(audited, "POST", where, {"metadata": {"name": name}}) == code
    send(audited, "GET", "/healthz", identity=None)
    refused, made = (event["annotations"] for event in events(audited, where)[before:])
    assert (refused["noting/who"], refused["noting/may"]) == ("bad by podwire-admin", "yes")
    assert (made["noting/who"], made["noting/may"]) == ("good by podwire-admin", "yes")
    assert {key for key in refused if not key.startswith("authorization.k8s.io/")} == {"noting/who", "noting/may", verdicts.FAILURES}
    assert verdicts.FAILURES not in made
    assert refused[verdicts.FAILURES] == (
        '[{"message":"\\u003cno\\u003e bad","policy":"noting","binding":"noting-b","expressionIndex":1,'
        '"validationActions":["Audit","Warn"]},'
        '{"message":"failed expression: object.metadata.name != \'bad\'","policy":"refusing","binding":"refusing-b","expressionIndex":0,'
        '"validationActions":["Deny","Audit"]}]'
    )


def test_what_a_webhook_notes_is_under_its_name(audited: ApiServer, tmp_path: Path) -> None:
    with contextlib.closing(Webhook(tmp_path)) as hook:
        hook.answers["/note"] = lambda _request: {"allowed": True, "auditAnnotations": {"seen": "yes"}}
        webhook = {
            "name": "note.hooks.example.com",
            "clientConfig": {"url": hook.url("/note"), "caBundle": hook.bundle},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        assert send(audited, "POST", hooks, {"metadata": {"name": "noting"}, "webhooks": [webhook]}) == 201
        where = "/api/v1/namespaces/default/services"
        assert send(audited, "POST", where, {"metadata": {"name": "noted"}, "spec": {"ports": [{"port": 80}]}}) == 201
        send(audited, "GET", "/healthz", identity=None)
    [event] = events(audited, where)
    assert event["annotations"]["note.hooks.example.com/seen"] == "yes"


async def test_a_large_file_is_turned_over(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    audit = Audit(Authorizer(store), str(tmp_path / "a/audit.log"), "Metadata", largest=2000, now=lambda: moment)
    scope = {"method": "GET", "path": "/healthz", "query_string": b"", "headers": []}
    for _ in range(20):
        audit.end(audit.begin(scope), Answer(200, b"ok"))
    audit.close()
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files[:2] == ["audit.log", "audit.log.1"]
    for path in (tmp_path / "a").iterdir():
        assert path.stat().st_size <= 2000
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert all(json.loads(line)["verb"] == "get" for line in path.read_text().splitlines())
    await store.close()
