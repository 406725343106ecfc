"""``authorizer`` in expressions: what it asks, what it costs, and policies and webhooks that go by it over HTTPS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from podwire.apiserver.auth.attributes import Attributes, Decision
from podwire.apiserver.authentication import User
from podwire.apiserver.cel import types
from podwire.apiserver.cel.authorization import OF_REQUEST, OWN, VARIABLES, Authorizer, ResourceCheck
from podwire.apiserver.cel.check import Rejected, compile_text
from podwire.apiserver.cel.values import CostExceeded, Fault
from running_apiserver import ApiServer

Tree = dict[str, Any]
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ANN = User("ann", ("dev",))


class Asked:
    """Who decides in these tests, and what he was asked."""

    def __init__(self) -> None:
        self.questions: list[tuple[User, Attributes, str]] = []

    def decide(self, user: User, asked: Attributes, fields: str) -> Decision:
        self.questions.append((user, asked, fields))
        return Decision(asked.verb == "get", f"{user.name} asked to {asked.verb}")

    def evaluate(self, text: str, budget: int = 1_000_000) -> Any:
        own = Authorizer(ANN, self.decide)
        values = {OWN: own, OF_REQUEST: ResourceCheck(own, "apps", "deployments", "scale", "x", "web"), "n": 3}
        return compile_text(text, {**VARIABLES, "n": types.DYN}).evaluate(values, budget)[0]


# What is asked -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "user", "asked", "fields"),
    [
        ("authorizer.path('/healthz')", ANN, Attributes("get", path="/healthz"), ""),
        ("authorizer.group('').resource('pods')", ANN, Attributes("get", "", "pods"), ""),
        (
            "authorizer.group('apps').resource('deployments').subresource('status').namespace('x').name('web')",
            ANN,
            Attributes("get", "apps", "deployments/status", "x", "web"),
            "",
        ),
        (
            "authorizer.group('').resource('pods').fieldSelector('spec.nodeName=n').labelSelector('a=b')",
            ANN,
            Attributes("get", "", "pods"),
            "spec.nodeName=n",
        ),
        ("authorizer.requestResource", ANN, Attributes("get", "apps", "deployments/scale", "x", "web"), ""),
        ("authorizer.requestResource.subresource('').name('y')", ANN, Attributes("get", "apps", "deployments", "x", "y"), ""),
        (
            "authorizer.serviceAccount('x', 'web').path('/')",
            User("system:serviceaccount:x:web", ("system:serviceaccounts", "system:serviceaccounts:x")),
            Attributes("get", path="/"),
            "",
        ),
    ],
)
def test_a_question_is_put_together_word_by_word(text: str, user: User, asked: Attributes, fields: str) -> None:
    judge = Asked()
    assert judge.evaluate(f"{text}.check('get').allowed()") is True
    assert judge.questions == [(user, asked, fields)]
    assert judge.evaluate(f"{text}.check('update').allowed()") is False
    assert judge.evaluate(f"{text}.check('update').reason()") == f"{user.name} asked to update"
    assert judge.evaluate(f"{text}.check('update').errored() || {text}.check('get').error() != ''") is False


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("authorizer.path(' ')", "path must not be empty"),
        ("authorizer.group('').resource('')", "resource must not be empty"),
        ("authorizer.serviceAccount('x', 'no@body')", "Invalid service account name"),
        ("authorizer.serviceAccount('a.b', 'web')", "Invalid service account namespace"),
        ("authorizer.group(n)", "no such overload"),
        ("dyn(authorizer).resource('pods')", "no such overload"),
        ("dyn(n).check('get')", "no such overload"),
    ],
)
def test_a_question_that_means_nothing(text: str, told: str) -> None:
    judge = Asked()
    with pytest.raises(Fault, match=told):
        judge.evaluate(text)
    assert judge.questions == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("authorizer.resource('pods')", "for 'resource' applied to 'kubernetes.authorization.Authorizer.(string)'"),
        ("authorizer.group('').check('get')", "found no matching overload for 'check'"),
        ("authorizer.path('/').check('get') == true", "found no matching overload for '_==_'"),
        ("authorizer.requestresource", "does not support field selection"),
        ("authorizer.path('/').check('get').allowed", "does not support field selection"),
        ("authorizer.group(1)", "found no matching overload for 'group'"),
    ],
)
def test_types_are_checked(text: str, told: str) -> None:
    with pytest.raises(Rejected) as rejected:
        compile_text(text, VARIABLES)
    assert told in str(rejected.value)


def test_a_name_of_ones_own_hides_it() -> None:
    assert Asked().evaluate("[{'requestResource': 1}].all(authorizer, authorizer.requestResource == 1)") is True


def test_an_expression_has_two_questions() -> None:
    one = "authorizer.path('/').check('get').allowed()"
    assert Asked().evaluate(f"{one} && {one}") is True
    with pytest.raises(CostExceeded):
        Asked().evaluate(f"{one} && {one} && {one}")
    selected = "authorizer.group('').resource('pods').fieldSelector('%s')"
    assert Asked().evaluate(f"{selected % 'a=b,c=d'} == {selected % 'a=b,c=d'}", 800) is True
    with pytest.raises(CostExceeded):
        Asked().evaluate(selected % ("a=b," * 10), 800)


# Over HTTPS ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tidy(call: Any) -> Iterator[None]:
    yield
    for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies", "validatingwebhookconfigurations"):
        assert call("DELETE", f"{ADMISSION}/{plural}").status == 200


@pytest.fixture
def ann(call: Any, namespace: str) -> Any:
    """A user who may write ConfigMaps in the test's namespace, and use those that are named ``own``; gives how she calls."""
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "patch", "get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["bless"], "resourceNames": ["own"]},
    ]
    assert call("POST", f"{RBAC}/namespaces/{namespace}/roles", {"metadata": {"name": "r"}, "rules": rules}).status == 201
    bound = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]
    bound |= {"metadata": {"name": "b"}, "subjects": subjects}
    assert call("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", bound).status == 201
    return lambda method, path, body: call(method, path, body, headers={"impersonate-user": "ann"})


def policy(call: Any, name: str, namespace: str, **spec: Any) -> Any:
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]
    tree = {"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": rules}, **spec}}
    made = call("POST", f"{ADMISSION}/validatingadmissionpolicies", tree)
    match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    bound = {"policyName": name, "validationActions": ["Deny"], "matchResources": match}
    assert call("POST", f"{ADMISSION}/validatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": bound}).status == 201
    return made


def test_a_policy_asks_who_may_do_what(call: Any, namespace: str, ann: Any, tidy: None) -> None:
    made = policy(
        call,
        "blessed",
        namespace,
        matchConditions=[{"name": "not-admins", "expression": "!authorizer.group('').resource('nodes').check('delete').allowed()"}],
        variables=[{"name": "blessing", "expression": "authorizer.requestResource.check('bless')"}],
        validations=[{"expression": "variables.blessing.allowed()", "messageExpression": "'no blessing for ' + object.metadata.name"}],
    )
    assert made.status == 201, made.tree
    where = f"/api/v1/namespaces/{namespace}/configmaps"
    refused = ann("POST", where, {"metadata": {"name": "other"}})
    assert (refused.status, refused.tree["message"].rpartition(": ")[2]) == (422, "no blessing for other")
    assert ann("POST", where, {"metadata": {"name": "own"}}).status == 201
    assert ann("PUT", f"{where}/own", {"metadata": {"name": "own"}, "data": {"a": "b"}}).status == 200
    assert call("POST", where, {"metadata": {"name": "other"}}).status == 201


def test_a_policy_asks_about_an_account_and_why(call: Any, namespace: str, ann: Any, tidy: None) -> None:
    account = f"authorizer.serviceAccount('{namespace}', 'web').group('').resource('configmaps').namespace('{namespace}')"
    made = policy(
        call,
        "for-web",
        namespace,
        validations=[
            {"expression": f"{account}.name('own').check('bless').allowed()"},
            {"expression": f"{account}.name('own').check('bless').reason().contains('RoleBinding')"},
        ],
    )
    assert made.status == 201, made.tree
    where = f"/api/v1/namespaces/{namespace}/configmaps"
    assert ann("POST", where, {"metadata": {"name": "a"}}).status == 422
    subjects = [{"kind": "ServiceAccount", "name": "web", "namespace": namespace}]
    bound = {"metadata": {"name": "web"}, "subjects": subjects}
    bound |= {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}}
    assert call("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", bound).status == 201
    assert ann("POST", where, {"metadata": {"name": "a"}}).status == 201


def test_expressions_that_ask_nobody_have_no_authorizer(call: Any, namespace: str, tidy: None) -> None:
    message = "authorizer.path('/').check('get').reason()"
    refused = policy(call, "p", namespace, validations=[{"expression": "true", "messageExpression": message}])
    assert refused.status == 422
    assert refused.tree["details"]["causes"][0]["field"] == "spec.validations[0].messageExpression"
    assert "undeclared reference to 'authorizer'" in refused.tree["message"]
    wrong = policy(call, "q", namespace, validations=[{"expression": "authorizer.resource('pods').check('get').allowed()"}])
    assert "found no matching overload for 'resource'" in wrong.tree["message"]


def test_a_webhook_is_asked_by_who_may_do_what(server: ApiServer, call: Any, namespace: str, ann: Any, tidy: None) -> None:
    """Nobody answers at the webhook's address: who is let through was not put to it."""
    port = server.port

    def configure(expression: str) -> Any:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
        hook = {
            "name": "a.b.example.com",
            "clientConfig": {"url": f"https://127.0.0.1:{port}/nobody"},
            "rules": [rule],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "matchConditions": [{"name": "c", "expression": expression}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        return call("POST", f"{ADMISSION}/validatingwebhookconfigurations", {"metadata": {"name": namespace}, "webhooks": [hook]})

    refused = configure("authorizer.check('get')")
    assert refused.status == 422
    assert refused.tree["details"]["causes"][0]["field"] == "webhooks[0].matchConditions[0].expression"
    assert configure("!authorizer.requestResource.check('bless').allowed()").status == 201
    where = f"/api/v1/namespaces/{namespace}/configmaps"
    assert ann("POST", where, {"metadata": {"name": "own"}}).status == 201
    assert call("POST", where, {"metadata": {"name": "any"}}).status == 201
    assert ann("POST", where, {"metadata": {"name": "other"}}).status == 500
