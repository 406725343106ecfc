"""Admission over HTTPS: ranges, quotas, priorities, policies, and webhooks that really answer."""

# ruff: noqa: E501 (requests are read better in one line)

from __future__ import annotations

import base64
import concurrent.futures
import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from running_apiserver import ApiServer
from webhook_server import Webhook

Tree = dict[str, Any]
DEADLINE_S = 20.0
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MERGE = "application/merge-patch+json"


def pod(name: str, **spec: Any) -> Tree:
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "nginx"}], **spec}}


def path(namespace: str, plural: str = "pods", name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}{'/' + name if name else ''}"


def until(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


# Runtime classes -------------------------------------------------------------------------------------------------------------


def test_a_runtime_class_gives_its_overhead_and_its_nodes(call: Any, namespace: str) -> None:
    scheduling = {"nodeSelector": {"sandbox": "gvisor"}, "tolerations": [{"key": "sandbox", "operator": "Exists"}]}
    sandboxed = {"metadata": {"name": namespace}, "handler": "gvisor", "overhead": {"podFixed": {"cpu": "250m", "memory": "64Mi"}}}
    assert call("POST", "/apis/node.k8s.io/v1/runtimeclasses", {**sandboxed, "scheduling": scheduling}).status == 201
    assert (
        call("POST", "/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": f"{namespace}-plain"}, "handler": "runc"}).status == 201
    )
    spec = call("POST", path(namespace), pod("a", runtimeClassName=namespace, tolerations=[{"key": "mine", "operator": "Exists"}])).tree[
        "spec"
    ]
    assert spec["overhead"] == {"cpu": "250m", "memory": "64Mi"}
    assert spec["nodeSelector"] == {"sandbox": "gvisor"}
    assert [one["key"] for one in spec["tolerations"][:2]] == ["mine", "sandbox"]
    assert len(spec["tolerations"]) == 4  # and those for nodes that are not ready
    same = call("POST", path(namespace), pod("same", runtimeClassName=namespace, overhead={"cpu": "0.25", "memory": "65536Ki"}))
    assert same.status == 201
    assert "overhead" not in call("POST", path(namespace), pod("plain", runtimeClassName=f"{namespace}-plain")).tree["spec"]
    for more, words in (
        ({"runtimeClassName": "nope"}, 'pod rejected: RuntimeClass "nope" not found'),
        (
            {"runtimeClassName": namespace, "overhead": {"cpu": "1"}},
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        ({"overhead": {"cpu": "1"}}, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"),
        (
            {"runtimeClassName": f"{namespace}-plain", "overhead": {"cpu": "1"}},
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            {"runtimeClassName": namespace, "nodeSelector": {"sandbox": "x"}},
            "conflict: runtimeClass.scheduling.nodeSelector[sandbox] = gvisor; pod.spec.nodeSelector[sandbox] = x",
        ),
    ):
        refused = call("POST", path(namespace), pod("b", **more))
        assert (refused.status, refused.tree["message"]) == (403, f'pods "b" is forbidden: {words}')
    changed = call("PATCH", f"/apis/node.k8s.io/v1/runtimeclasses/{namespace}", {"handler": "runc"}, content_type=MERGE)
    assert changed.tree["message"].endswith('handler: Invalid value: "runc": field is immutable')


def test_a_quota_counts_overhead(call: Any, namespace: str) -> None:
    sandboxed = {"metadata": {"name": namespace}, "handler": "gvisor", "overhead": {"podFixed": {"cpu": "250m", "memory": "64Mi"}}}
    assert call("POST", "/apis/node.k8s.io/v1/runtimeclasses", sandboxed).status == 201
    hard = {"requests.cpu": "1", "limits.cpu": "2", "requests.memory": "100Mi"}
    assert call("POST", path(namespace, "resourcequotas"), {"metadata": {"name": "q"}, "spec": {"hard": hard}}).status == 201
    until(lambda: call("GET", path(namespace, "resourcequotas", "q")).tree.get("status", {}).get("hard"))
    containers = [{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}, "limits": {"cpu": "200m"}}}]
    made = call("POST", path(namespace), pod("a", containers=containers, runtimeClassName=namespace))
    assert made.status == 201
    used = call("GET", path(namespace, "resourcequotas", "q")).tree["status"]["used"]
    assert used == {"requests.cpu": "350m", "limits.cpu": "450m", "requests.memory": "65Mi"}
    refused = call("POST", path(namespace), pod("b", containers=containers, runtimeClassName=namespace))
    assert (
        "exceeded quota: q, requested: requests.memory=65Mi, used: requests.memory=65Mi, limited: requests.memory=100Mi"
        in refused.tree["message"]
    )


# Ranges, priorities, claims ------------------------------------------------------------------------------------------------


def test_a_range_fills_in_and_refuses(call: Any, namespace: str) -> None:
    limit = {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1", "memory": "1Gi"}}
    assert call("POST", path(namespace, "limitranges"), {"metadata": {"name": "r"}, "spec": {"limits": [limit]}}).status == 201
    made = call("POST", path(namespace), pod("a"))
    assert made.tree["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }
    assert made.tree["metadata"]["annotations"] == {
        "kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    }
    big = [{"name": "c", "image": "nginx", "resources": {"limits": {"cpu": "2", "memory": "2Gi"}}}]
    refused = call("POST", path(namespace), pod("b", containers=big))
    assert (refused.status, refused.tree["reason"]) == (403, "Forbidden")
    assert refused.tree["message"] == (
        'pods "b" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, but limit is 2Gi]'
    )


def test_priorities_and_accounts(call: Any, namespace: str) -> None:
    made = call("POST", path(namespace), pod("a", priorityClassName="system-cluster-critical"))
    assert made.tree["spec"]["priority"] == 2_000_000_000
    refused = call("POST", path(namespace), pod("b", priorityClassName="nope"))
    assert refused.tree["message"] == 'pods "b" is forbidden: no PriorityClass with name nope was found'
    refused = call("POST", path(namespace), pod("b", serviceAccountName="nobody"))
    assert refused.tree["message"] == (
        f'pods "b" is forbidden: error looking up service account {namespace}/nobody: serviceaccount "nobody" not found'
    )


def test_a_claim_gets_the_default_class(call: Any, namespace: str) -> None:
    named = {"name": "quick", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    assert call("POST", "/apis/storage.k8s.io/v1/storageclasses", {"metadata": named, "provisioner": "x/y"}).status == 201
    claim = {"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    assert call("POST", path(namespace, "persistentvolumeclaims"), claim).tree["spec"]["storageClassName"] == "quick"


# Quotas ----------------------------------------------------------------------------------------------------------------------


def quota(call: Any, namespace: str, **spec: Any) -> None:
    assert call("POST", path(namespace, "resourcequotas"), {"metadata": {"name": "q"}, "spec": spec}).status == 201


def used(call: Any, namespace: str) -> Tree:
    return call("GET", path(namespace, "resourcequotas", "q")).tree.get("status", {}).get("used", {})


def test_a_quota_counts(call: Any, namespace: str) -> None:
    call("POST", path(namespace), pod("before"))
    quota(call, namespace, hard={"pods": "2", "requests.cpu": "1", "count/configmaps": "1", "services.loadbalancers": "0"})
    until(lambda: used(call, namespace).get("pods") == "1")
    refused = call("POST", path(namespace), pod("a"))
    assert refused.tree["message"] == 'pods "a" is forbidden: failed quota: q: must specify requests.cpu for: c'
    small = [{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "600m"}}}]
    assert call("POST", path(namespace) + "?dryRun=All", pod("a", containers=small)).status == 201
    assert used(call, namespace)["pods"] == "1"
    assert call("POST", path(namespace), pod("a", containers=small)).status == 201
    assert used(call, namespace) == {"pods": "2", "requests.cpu": "600m", "count/configmaps": "0", "services.loadbalancers": "0"}
    refused = call("POST", path(namespace), pod("b", containers=small))
    assert (refused.status, refused.tree["message"]) == (
        403,
        'pods "b" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=600m, used: pods=2,requests.cpu=600m, '
        "limited: pods=2,requests.cpu=1",
    )
    assert call("DELETE", path(namespace, "pods", "a")).status == 200
    until(lambda: used(call, namespace)["pods"] == "1")
    balancer = {"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}
    assert "services.loadbalancers=1" in call("POST", path(namespace, "services"), balancer).tree["message"]


def test_no_two_writers_use_the_same_room(server: ApiServer, call: Any, namespace: str) -> None:
    quota(call, namespace, hard={"configmaps": "10"})

    def write(number: int) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=DEADLINE_S)
        body = json.dumps({"metadata": {"name": f"c{number}"}})
        connection.request("POST", path(namespace, "configmaps"), body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(write, range(30)))
    assert (found.count(201), found.count(403)) == (10, 20)
    assert used(call, namespace)["configmaps"] == "10"


def test_scopes_of_quotas(call: Any, namespace: str) -> None:
    quota(call, namespace, hard={"pods": "1"}, scopes=["BestEffort"])
    until(lambda: used(call, namespace).get("pods") == "0")
    asked = [{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "1"}}}]
    assert [call("POST", path(namespace), pod(name, containers=asked)).status for name in "ab"] == [201, 201]
    assert [call("POST", path(namespace), pod(name)).status for name in "cd"] == [201, 403]


# Policies ------------------------------------------------------------------------------------------------------------------


def policy(call: Any, name: str, namespace: str, actions: list[str], *, binding: Tree | None = None, **spec: Any) -> None:
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]
    made = call("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": rules}, **spec}})  # fmt: skip
    assert made.status == 201, made.tree
    match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    bound = {"policyName": name, "validationActions": actions, "matchResources": match, **(binding or {})}
    made = call("POST", f"{ADMISSION}/validatingadmissionpolicybindings", {"metadata": {"name": f"{name}-b"}, "spec": bound})
    assert made.status == 201, made.tree


@pytest.fixture
def tidy(call: Any) -> Iterator[None]:
    yield
    for plural in (
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicies",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ):
        assert call("DELETE", f"{ADMISSION}/{plural}").status == 200


def test_a_policy_denies_and_warns(call: Any, namespace: str, tidy: None) -> None:
    policy(
        call,
        "few-keys",
        namespace,
        ["Deny"],
        variables=[{"name": "keys", "expression": "has(object.data) ? object.data.size() : 0"}],
        matchConditions=[{"name": "not-free", "expression": "!object.metadata.name.startsWith('free')"}],
        validations=[
            {"expression": "variables.keys <= 2", "messageExpression": "'%d keys are too many'.format([variables.keys])"},
            {"expression": "request.operation != 'CREATE' || object.metadata.name != 'bad'", "reason": "Forbidden"},
        ],
    )
    policy(call, "warn", namespace, ["Warn"], validations=[{"expression": "has(object.data)", "message": "no data"}])
    configs = path(namespace, "configmaps")
    many = {"a": "1", "b": "2", "c": "3"}
    refused = call("POST", configs, {"metadata": {"name": "x"}, "data": many})
    told = "ValidatingAdmissionPolicy 'few-keys' with binding 'few-keys-b' denied request: "
    assert (refused.status, refused.tree["reason"]) == (422, "Invalid")
    assert refused.tree["message"] == f'configmaps "x" is forbidden: {told}3 keys are too many'
    assert refused.tree["details"]["causes"] == [{"message": f"{told}3 keys are too many"}]
    assert call("POST", configs, {"metadata": {"name": "free"}, "data": many}).status == 201
    refused = call("POST", configs, {"metadata": {"name": "bad"}, "data": {"a": "1"}})
    assert (refused.status, refused.tree["reason"]) == (403, "Forbidden")
    assert refused.tree["message"].endswith("failed expression: request.operation != 'CREATE' || object.metadata.name != 'bad'")
    warned = call("POST", configs, {"metadata": {"name": "y"}})
    assert warned.status == 201
    assert warned.headers["Warning"] == "299 - \"Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn-b': no data\""
    assert call("PATCH", configs + "/y", {"data": many}, content_type=MERGE).status == 422


def test_a_policy_with_parameters(call: Any, namespace: str, tidy: None) -> None:
    reference = {"name": "limit", "parameterNotFoundAction": "Deny"}
    policy(
        call,
        "limited",
        namespace,
        ["Deny"],
        binding={"paramRef": reference},
        paramKind={"apiVersion": "v1", "kind": "Secret"},
        validations=[{"expression": "object.data.size() <= int(string(base64.decode(params.data.most)))"}],
    )
    configs = path(namespace, "configmaps")
    refused = call("POST", configs, {"metadata": {"name": "x"}, "data": {"a": "1"}})
    assert refused.tree["message"].endswith("no params found for policy binding with `Deny` parameterNotFoundAction")
    assert call("POST", path(namespace, "secrets"), {"metadata": {"name": "limit"}, "stringData": {"most": "1"}}).status == 201
    assert call("POST", configs, {"metadata": {"name": "x"}, "data": {"a": "1"}}).status == 201
    assert call("POST", configs, {"metadata": {"name": "y"}, "data": {"a": "1", "b": "2"}}).status == 422


def test_a_policy_is_asked_about_parts_of_objects(call: Any, namespace: str, tidy: None) -> None:
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods/ephemeralcontainers"]}]
    policy(
        call,
        "no-debugging",
        namespace,
        ["Deny"],
        matchConstraints={"resourceRules": rules},
        validations=[{"expression": "size(object.spec.ephemeralContainers) == 0", "message": "no debugging here"}],
    )
    assert call("POST", path(namespace), pod("a")).status == 201
    assert call("PATCH", path(namespace, name="a"), {"metadata": {"labels": {"b": "c"}}}, content_type=MERGE).status == 200
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}}
    for query in ("", "?dryRun=All"):
        where = path(namespace, name="a/ephemeralcontainers") + query
        refused = call("PATCH", where, debug, content_type="application/strategic-merge-patch+json")
        assert (refused.status, refused.tree["message"].split(": ")[-1]) == (422, "no debugging here")
    assert "ephemeralContainers" not in call("GET", path(namespace, name="a")).tree["spec"]


def test_what_cannot_be_noted_refuses(call: Any, namespace: str, tidy: None) -> None:
    """Whatever the binding says, unless the policy may fail; what is no text refuses in any case."""
    noted = [{"key": "k", "valueExpression": "object.data.nope"}]
    policy(call, "notes", namespace, ["Warn"], auditAnnotations=noted)
    configs = path(namespace, "configmaps")
    told = "ValidatingAdmissionPolicy 'notes' with binding 'notes-b' denied request: "
    refused = call("POST", configs, {"metadata": {"name": "x"}, "data": {"a": "1"}})
    assert (refused.status, refused.tree["message"]) == (
        422,
        f"configmaps \"x\" is forbidden: {told}expression 'object.data.nope' resulted in error: no such key: nope",
    )
    where = f"{ADMISSION}/validatingadmissionpolicies/notes"
    assert call("PATCH", where, {"spec": {"failurePolicy": "Ignore"}}, content_type=MERGE).status == 200
    assert call("POST", configs, {"metadata": {"name": "x"}, "data": {"a": "1"}}).status == 201
    dyn = {"spec": {"auditAnnotations": [{"key": "k", "valueExpression": "object.data"}]}}
    assert call("PATCH", where, dyn, content_type=MERGE).status == 200
    refused = call("POST", configs, {"metadata": {"name": "y"}, "data": {"a": "1"}})
    assert refused.tree["message"].endswith(
        f"{told}valueExpression 'object.data' resulted in unsupported return type: map(dyn, dyn). Return type must be either string or null."
    )
    number = {"spec": {"auditAnnotations": [{"key": "k", "valueExpression": "1"}]}}
    refused = call("PATCH", where, number, content_type=MERGE)
    assert (refused.status, refused.tree["details"]["causes"][0]) == (
        422,
        {
            "reason": "FieldValueInvalid",
            "message": 'Invalid value: "1": must evaluate to one of [string null_type] but got int',
            "field": "spec.auditAnnotations[0].valueExpression",
        },
    )


def test_all_policies_have_their_say_before_one_refuses(call: Any, namespace: str, tidy: None) -> None:
    for name, actions in (("first", ["Deny"]), ("second", ["Warn"]), ("third", ["Deny"])):
        policy(call, name, namespace, actions, validations=[{"expression": "false", "message": f"says {name}"}])
    refused = call("POST", path(namespace, "configmaps"), {"metadata": {"name": "x"}})
    assert refused.tree["message"].endswith("says first")
    assert [text.rpartition(": ")[2] for text in refused.headers.get_all("Warning")] == ['says second"']


def test_expressions_of_a_policy_have_a_limit_together(call: Any, namespace: str, tidy: None) -> None:
    twice = "[1, 2].all(n, !authorizer.path('/nowhere').check('nothing').errored())"
    policy(call, "dear", namespace, ["Deny"], validations=[{"expression": twice}] * 14)
    configs = path(namespace, "configmaps")
    assert call("POST", configs, {"metadata": {"name": "x"}}).status == 201
    policy(call, "dearer", namespace, ["Deny"], validations=[{"expression": twice}] * 15)
    refused = call("POST", configs, {"metadata": {"name": "y"}})
    assert refused.tree["message"].endswith("validation failed due to running out of cost budget, no further validation rules will be run")


def test_a_policy_that_does_not_compile(call: Any, namespace: str) -> None:
    spec = {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}]}}
    refused = call("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": {**spec, "validations": [{"expression": "nope > 1"}]}})  # fmt: skip
    assert refused.status == 422
    assert refused.tree["details"]["causes"][0]["field"] == "spec.validations[0].expression"
    assert "undeclared reference to 'nope'" in refused.tree["message"]
    refused = call("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": {**spec, "validations": [{"expression": "1 + 1"}]}})  # fmt: skip
    assert refused.tree["message"].endswith('spec.validations[0].expression: Invalid value: "1 + 1": must evaluate to bool but got int')


def test_expressions_are_checked_against_the_kinds_that_they_name(call: Any, namespace: str, tidy: None) -> None:
    rules = [
        {
            "apiGroups": ["apps"],
            "apiVersions": ["v1"],
            "operations": ["*"],
            "resources": ["deployments", "replicasets", "deployments/scale"],
        },
        {"apiGroups": ["*"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]},  # nobody knows what else
    ]
    spec: Tree = {
        "matchConstraints": {"resourceRules": rules},
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "wanted", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "object.spec.strategy.type != params.data.strategy", "messageExpression": "'no ' + object.metadata.nam"},
            {"expression": "variables.wanted <= 5 && object.spec.template.spec.containers.all(c, c.image.startsWith('a/'))"},
            {"expression": "object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z') && variables.wanted == 'x'"},
        ],
    }
    path = f"{ADMISSION}/validatingadmissionpolicies"
    made = call("POST", path, {"metadata": {"name": "typed"}, "spec": spec})
    assert made.status == 201, made.tree
    seen = until(lambda: (tree := call("GET", f"{path}/typed").tree).get("status", {}).get("observedGeneration") == 1 and tree)
    found = {one["fieldRef"]: one["warning"] for one in seen["status"]["typeChecking"]["expressionWarnings"]}
    assert list(found) == ["spec.validations[0].expression", "spec.validations[0].messageExpression", "spec.validations[2].expression"]
    assert found["spec.validations[0].expression"] == (
        "apps/v1, Kind=ReplicaSet: ERROR: <input>:1:12: undefined field 'strategy'\n"
        " | object.spec.strategy.type != params.data.strategy\n"
        " | ...........^\n"
    )
    both = found["spec.validations[0].messageExpression"]
    assert [line.split(": ERROR")[0] for line in both.split("\n") if "ERROR" in line] == [
        "apps/v1, Kind=Deployment",
        "apps/v1, Kind=ReplicaSet",
    ]
    assert "found no matching overload for '_==_' applied to '(int, string)'" in found["spec.validations[2].expression"]
    # Another generation is looked at again.
    fixed = [{"op": "replace", "path": "/spec/validations", "value": [{"expression": "object.spec.replicas < 3"}]}]
    assert call("PATCH", f"{path}/typed", fixed, content_type="application/json-patch+json").status == 200
    seen = until(lambda: (tree := call("GET", f"{path}/typed").tree)["status"].get("observedGeneration") == 2 and tree)
    assert seen["status"]["typeChecking"] == {}
    wrong = {**spec, "validations": [{"expression": "request.nope == 1"}]}
    refused = call("POST", path, {"metadata": {"name": "p"}, "spec": wrong})
    assert "undefined field 'nope'" in refused.tree["message"]


# Webhooks --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Webhook]:
    running = Webhook(tmp_path)
    yield running
    running.close()


def register(call: Any, hook: Webhook, namespace: str, plural: str, *places: str, **more: Any) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
    hooks = [
        {
            "name": f"{place.strip('/')}.hooks.example.com",
            "clientConfig": {"url": hook.url(place), "caBundle": hook.bundle},
            "rules": [rule],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **more,
        }
        for place in places
    ]
    made = call("POST", f"{ADMISSION}/{plural}", {"metadata": {"name": f"{namespace}-{plural[:3]}"}, "webhooks": hooks})
    assert made.status == 201, made.tree


def patched(*operations: Tree) -> Callable[[Tree], Tree]:
    return lambda _request: {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}


MUTATING, VALIDATING = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"


def test_webhooks_change_and_refuse(call: Any, namespace: str, hook: Webhook, tidy: None) -> None:
    hook.answers["/label"] = patched({"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}})
    hook.answers["/data"] = patched({"op": "add", "path": "/data", "value": {"made": "up"}})
    hook.answers["/judge"] = lambda request: (
        {"allowed": True, "warnings": ["mind the gap"]}
        if request["operation"] == "DELETE" or request["object"]["metadata"]["name"] != "bad"
        else {"allowed": False, "status": {"code": 418, "message": "no teapots"}}
    )
    register(call, hook, namespace, MUTATING, "/label", "/data", reinvocationPolicy="IfNeeded")
    register(call, hook, namespace, VALIDATING, "/judge")
    configs = path(namespace, "configmaps")
    made = call("POST", configs, {"metadata": {"name": "good"}})
    assert (made.status, made.tree["metadata"]["labels"], made.tree["data"]) == (201, {"seen": "yes"}, {"made": "up"})
    assert made.headers["Warning"] == '299 - "mind the gap"'
    assert [one["path"] for one in hook.asked] == [
        "/label",
        "/data",
        "/label",
        "/judge",
    ]  # the first again, for the second changed something
    judged = hook.asked[-1]
    assert (judged["operation"], judged["resource"]["resource"], judged["userInfo"]["username"]) == (
        "CREATE",
        "configmaps",
        "podwire-admin",
    )
    assert judged["object"]["data"] == {"made": "up"}
    refused = call("POST", configs, {"metadata": {"name": "bad"}})
    assert refused.status == 418
    assert refused.tree["message"] == 'admission webhook "judge.hooks.example.com" denied the request: no teapots'
    dry = call("POST", configs + "?dryRun=All", {"metadata": {"name": "dry"}})
    assert (dry.status, hook.asked[-1]["dryRun"]) == (201, True)
    assert call("DELETE", configs + "/good").status == 200
    assert (hook.asked[-1]["operation"], hook.asked[-1]["oldObject"]["metadata"]["name"]) == ("DELETE", "good")


@pytest.mark.parametrize(
    ("group", "other"), [("extensions/v1beta1", "networking.k8s.io/v1"), ("networking.k8s.io/v1", "extensions/v1beta1")]
)
def test_a_webhook_is_shown_the_group_that_it_names(call: Any, namespace: str, hook: Webhook, tidy: None, group: str, other: str) -> None:
    """The rule names one group, the client speaks another of the same objects."""
    hook.answers["/judge"] = lambda _request: {"allowed": False, "status": {"message": "no"}}
    rule = {"apiGroups": [group.split("/")[0]], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["ingresses"]}
    register(call, hook, namespace, VALIDATING, "/judge", rules=[rule])
    backend = {"serviceName": "a", "servicePort": 1} if "extensions" in other else {"service": {"name": "a", "port": {"number": 1}}}
    spec = {"backend" if "extensions" in other else "defaultBackend": backend}
    refused = call("POST", f"/apis/{other}/namespaces/{namespace}/ingresses", {"metadata": {"name": "i"}, "spec": spec})
    assert refused.tree["message"] == 'admission webhook "judge.hooks.example.com" denied the request: no'
    asked = hook.asked[-1]
    assert (asked["kind"]["group"], asked["requestKind"]["group"]) == (group.split("/")[0], other.split("/")[0])
    assert (asked["object"]["apiVersion"], "backend" in asked["object"]["spec"]) == (group, "extensions" in group)


def test_a_webhook_that_cannot_be_asked(call: Any, namespace: str, hook: Webhook, tidy: None) -> None:
    gone = {"url": "https://127.0.0.1:1/x"}
    register(call, hook, namespace, VALIDATING, "/gone", clientConfig=gone, matchConditions=[{"name": "c", "expression": "object.metadata.name != 'skip'"}])  # fmt: skip
    configs = path(namespace, "configmaps")
    refused = call("POST", configs, {"metadata": {"name": "a"}})
    assert (refused.status, refused.tree["reason"]) == (500, "InternalError")
    assert 'failed calling webhook "gone.hooks.example.com": failed to call webhook: ' in refused.tree["message"]
    assert call("POST", configs, {"metadata": {"name": "skip"}}).status == 201
    ignored = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]
    changed = call("PATCH", f"{ADMISSION}/{VALIDATING}/{namespace}-val", ignored, content_type="application/json-patch+json")
    assert changed.status == 200
    assert call("POST", configs, {"metadata": {"name": "a"}}).status == 201


def test_a_write_that_is_overtaken_is_made_anew(call: Any, server: ApiServer, namespace: str, hook: Webhook, tidy: None) -> None:
    """While a webhook thinks, somebody else writes: nothing of that is lost."""
    configs = path(namespace, "configmaps")
    call("POST", configs, {"metadata": {"name": "a"}, "data": {"n": "0"}})

    def think(request: Tree) -> Tree:
        if request["userInfo"]["username"] == "podwire-admin" and request["object"]["data"].get("mine") and len(hook.asked) == 1:
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=DEADLINE_S)
            body = json.dumps({"data": {"theirs": "yes"}})
            connection.request("PATCH", configs + "/a", body, {"content-type": MERGE})
            assert connection.getresponse().status == 200
            connection.close()
        return {"allowed": True}

    hook.answers["/think"] = think
    register(call, hook, namespace, VALIDATING, "/think")
    done = call("PATCH", configs + "/a", {"data": {"mine": "yes"}}, content_type=MERGE)
    assert (done.status, done.tree["data"]) == (200, {"n": "0", "mine": "yes", "theirs": "yes"})
