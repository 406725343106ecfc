"""MutatingAdmissionPolicies over HTTPS: configurations that are applied, patches, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from webhook_server import Webhook

Tree = dict[str, Any]
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{ADMISSION}/mutatingadmissionpolicies", f"{ADMISSION}/mutatingadmissionpolicybindings"
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"


@pytest.fixture(autouse=True)
def tidy(call: Any) -> Iterator[None]:
    yield
    for path in (BINDINGS, POLICIES, f"{ADMISSION}/mutatingwebhookconfigurations"):
        assert call("DELETE", path).status == 200


def configured(expression: str) -> Tree:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patched(expression: str) -> Tree:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


def spec_of(group: str, resource: str, *mutations: Tree, **more: Any) -> Tree:
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
    return {"matchConstraints": {"resourceRules": [rule]}, "reinvocationPolicy": "Never", "mutations": list(mutations), **more}


def policy(call: Any, namespace: str, name: str, spec: Tree, **binding: Any) -> None:
    made = call("POST", POLICIES, {"metadata": {"name": name}, "spec": spec})
    assert made.status == 201, made.tree
    match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    made = call("POST", BINDINGS, {"metadata": {"name": f"{name}-b"}, "spec": {"policyName": name, "matchResources": match, **binding}})
    assert made.status == 201, made.tree


def path(namespace: str, plural: str = "configmaps") -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}"


# The page's own example, without a list that would be replaced as a whole.
SIDECAR = """
Object{
  spec: Object.spec{
    initContainers: [
      Object.spec.initContainers{
        name: "mesh-proxy",
        image: "mesh/proxy:v1.0.0",
        restartPolicy: "Always"
      }
    ]
  }
}"""


def test_a_configuration_is_merged(call: Any, namespace: str) -> None:
    condition = {"name": "no-proxy-yet", "expression": '!object.spec.initContainers.exists(ic, ic.name == "mesh-proxy")'}
    labels = configured('Object{metadata: Object.metadata{labels: {"mesh": has(object.metadata.labels) ? "old" : "new"}}}')
    init = [{"name": "first", "image": "busybox"}]
    policy(call, namespace, "mesh", spec_of("", "pods", configured(SIDECAR), labels, matchConditions=[condition]))
    containers = [{"name": "c", "image": "nginx"}]
    pod = {"metadata": {"name": "a", "labels": {"app": "a"}}, "spec": {"containers": containers, "initContainers": init}}
    made = call("POST", path(namespace, "pods"), pod)
    assert made.status == 201, made.tree
    assert sorted(one["name"] for one in made.tree["spec"]["initContainers"]) == ["first", "mesh-proxy"]
    proxy = next(one for one in made.tree["spec"]["initContainers"] if one["name"] == "mesh-proxy")
    assert (proxy["restartPolicy"], proxy["image"]) == ("Always", "mesh/proxy:v1.0.0")
    assert proxy["imagePullPolicy"] == "IfNotPresent"  # defaults come after
    assert made.tree["metadata"]["labels"] == {"app": "a", "mesh": "old"}
    has_one = {"metadata": {"name": "b"}, "spec": {"containers": containers, "initContainers": [{"name": "mesh-proxy", "image": "mine"}]}}
    kept = call("POST", path(namespace, "pods"), has_one).tree
    assert ([one["image"] for one in kept["spec"]["initContainers"]], "labels" in kept["metadata"]) == (["mine"], False)
    none = call("POST", path(namespace, "pods"), {"metadata": {"name": "c"}, "spec": {"containers": containers}})
    assert none.status == 403  # the condition asks of a field that is not there
    assert none.tree["message"].startswith(
        "policy 'mesh' with binding 'mesh-b' denied request: expression '!object.spec.initContainers.exists("
    )


def test_patches_variables_and_parameters(call: Any, namespace: str) -> None:
    variables = [
        {"name": "key", "expression": "'example.com/' + params.data.key"},
        {"name": "missing", "expression": "!has(object.metadata.annotations)"},
    ]
    expression = """(variables.missing ? [JSONPatch{op: 'add', path: '/metadata/annotations', value: {}}] : []) + [
        JSONPatch{op: "add", path: "/metadata/annotations/" + jsonpatch.escapeKey(variables.key), value: string(size(object.data))},
        JSONPatch{op: "copy", from: "/data/a", path: "/data/b"}
    ]"""
    tested = '[JSONPatch{op: "test", path: "/data/a", value: "x"}, JSONPatch{op: "remove", path: "/data/a"}]'
    spec = spec_of("", "configmaps", patched(expression), patched(tested), variables=variables)
    spec |= {"paramKind": {"apiVersion": "v1", "kind": "Secret"}}
    policy(call, namespace, "patch", spec, paramRef={"name": "p", "parameterNotFoundAction": "Deny"})
    refused = call("POST", path(namespace), {"metadata": {"name": "a"}, "data": {"a": "1"}})
    assert refused.tree["message"] == (
        "policy 'patch' with binding 'patch-b' denied request: no params found for policy binding with `Deny` parameterNotFoundAction"
    )
    assert (refused.status, refused.tree["reason"]) == (403, "Invalid")
    assert refused.tree["details"]["causes"] == [{"message": refused.tree["message"]}]
    assert call("POST", path(namespace, "secrets"), {"metadata": {"name": "p"}, "data": {"key": "a~b"}}).status == 400  # no base64
    assert call("POST", path(namespace, "secrets"), {"metadata": {"name": "p"}, "data": {"key": "YWJj"}}).status == 201
    made = call("POST", path(namespace), {"metadata": {"name": "a"}, "data": {"a": "1"}}).tree
    assert made["metadata"]["annotations"] == {"example.com/YWJj": "1"}
    assert made["data"] == {"a": "1", "b": "1"}  # the test failed: nothing was removed
    made = call("POST", path(namespace), {"metadata": {"name": "x"}, "data": {"a": "x"}}).tree
    assert made["data"] == {"b": "x"}
    (owned,) = (one["fieldsV1"]["f:data"] for one in made["metadata"]["managedFields"])
    assert "f:b" not in owned  # nobody wrote it
    changed = call("PATCH", f"{path(namespace)}/a", {"data": {"a": "2"}}, content_type=MERGE).tree
    assert changed["data"] == {"a": "2", "b": "2"}


def test_an_object_as_the_value_of_a_patch(call: Any, namespace: str) -> None:
    expression = """[JSONPatch{op: "add", path: "/spec/template/spec/containers/-",
        value: Object.spec.template.spec.containers{name: "b", image: "x", ?args: optional.none(),
            ports: [Object.spec.template.spec.containers.ports{containerPort: 8080}]}}]"""
    policy(call, namespace, "second", spec_of("apps", "deployments", patched(expression)))
    template = {"metadata": {"labels": {"a": "a"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
    deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "a"}}, "template": template}}
    made = call("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment)
    assert made.status == 201, made.tree
    second = made.tree["spec"]["template"]["spec"]["containers"][1]
    assert (second["name"], second["ports"]) == ("b", [{"containerPort": 8080, "protocol": "TCP"}])


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        (
            configured("Object{spec: Object.specx{replicas: 1}}"),
            'type mismatch: unexpected type name "Object.specx", expected "Object.spec", '
            "which matches field name path from root Object type",
        ),
        (
            configured("""Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
                containers: [Object.spec.template.spec.containers{name: "a", args: ["x"]}]}}}}"""),
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            ".spec.template.spec.containers[0].args",
        ),
        (
            configured("Object{spec: Object.spec{replicasx: 1}}"),
            "error applying patch: failed to convert patch object to typed object: .spec.replicasx: field not declared in schema",
        ),
        (
            configured('Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {"l": "v"}}}}'),
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
        (
            configured("Object{spec: Object.spec{replicas: object.spec.nope}}"),
            "expression 'Object{spec: Object.spec{replicas: object.spec.nope}}' resulted in error: no such key: nope",
        ),
        (patched('[JSONPatch{op: "remove", path: "/spec/nope"}]'), None),
    ],
)
def test_changes_that_cannot_be_made(call: Any, namespace: str, mutation: Tree, why: str | None) -> None:
    policy(call, namespace, "wrong", spec_of("apps", "deployments", mutation))
    template = {"metadata": {"labels": {"a": "a"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
    deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "a"}}, "template": template}}
    where = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    refused = call("POST", f"{where}?dryRun=All", deployment)
    said = "policy 'wrong' with binding 'wrong-b' denied request: "
    assert (refused.status, refused.tree["reason"]) == (403, "Invalid")
    assert refused.tree["message"] == said + why if why else refused.tree["message"].startswith(f"{said}JSONPath: ")
    ignored = [{"op": "replace", "path": "/spec/failurePolicy", "value": "Ignore"}]
    assert call("PATCH", f"{POLICIES}/wrong", ignored, content_type=JSON_PATCH).status == 200
    assert call("POST", f"{where}?dryRun=All", deployment).status == 201


def test_fields_that_nobody_knows(call: Any, namespace: str) -> None:
    policy(call, namespace, "unknown", spec_of("", "configmaps", patched('[JSONPatch{op: "add", path: "/nope", value: 1}]')))
    refused = call("POST", path(namespace), {"metadata": {"name": "a"}})
    assert (refused.status, refused.tree["message"]) == (500, 'Internal error occurred: strict decoding error: unknown field "nope"')


def test_who_asks_for_it_is_put_again_to_what_others_made(call: Any, namespace: str, tmp_path: Path) -> None:
    count = "'n' + string(has(object.data) ? object.data.size() : 0)"
    counting = spec_of("", "configmaps", configured(f"Object{{data: {{{count}: 'x'}}}}"))
    policy(call, namespace, "a-count", counting | {"reinvocationPolicy": "IfNeeded"})
    policy(call, namespace, "b-add", spec_of("", "configmaps", configured("Object{data: {'added': 'y'}}")))
    made = call("POST", path(namespace), {"metadata": {"name": "a"}}).tree
    assert made["data"] == {"n0": "x", "added": "y", "n2": "x"}
    # Policies come before webhooks, which see what they made.
    hook = Webhook(tmp_path)
    hook.answers["/see"] = lambda _request: {"allowed": True}
    try:
        webhook = {
            "name": "see.hooks.example.com",
            "clientConfig": {"url": hook.url("/see"), "caBundle": hook.bundle},
            "rules": counting["matchConstraints"]["resourceRules"],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        tree = {"metadata": {"name": "see"}, "webhooks": [webhook]}
        assert call("POST", f"{ADMISSION}/mutatingwebhookconfigurations", tree).status == 201
        assert call("POST", path(namespace), {"metadata": {"name": "b"}}).status == 201
        assert sorted(hook.asked[0]["object"]["data"]) == ["added", "n0"]
    finally:
        hook.close()


RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
WRONG = [
    (
        {"mutations": []},
        ["spec.mutations: Required value: mutations must contain at least one item"],
    ),
    ({"reinvocationPolicy": None}, ["spec.reinvocationPolicy: Required value"]),
    (
        {"reinvocationPolicy": "Often"},
        ['spec.reinvocationPolicy: Unsupported value: "Often": supported values: "IfNeeded", "Never"'],
    ),
    (
        {"mutations": [{"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}}]},
        [
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            'spec.mutations[0].applyConfiguration: Invalid value: "{applyConfiguration}": '
            "must not be specified when patchType is JSONPatch",
        ],
    ),
    (
        {"mutations": [configured(" ")]},
        ["spec.mutations[0].applyConfiguration.expression: Required value"],
    ),
    (
        {"matchConstraints": {"resourceRules": [{**RULE, "operations": ["CREATE", "DELETE"]}]}},
        [
            'spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": '
            'supported values: "*", "CONNECT", "CREATE", "UPDATE"'
        ],
    ),
    (
        {"mutations": [configured("'tea'")]},
        ["spec.mutations[0].applyConfiguration.expression: Invalid value: \"'tea'\": must evaluate to Object but got string"],
    ),
    (
        {"mutations": [configured("Object.spec{}")]},
        ['spec.mutations[0].applyConfiguration.expression: Invalid value: "Object.spec{}": must evaluate to Object but got Object.spec'],
    ),
    (
        {"mutations": [patched("[1]")]},
        ['spec.mutations[0].jsonPatch.expression: Invalid value: "[1]": must evaluate to list(JSONPatch) but got list(int)'],
    ),
]


@pytest.mark.parametrize(("change", "wanted"), WRONG)
def test_policies_that_are_refused(call: Any, change: Tree, wanted: list[str]) -> None:
    spec = spec_of("", "pods", configured("Object{}")) | change
    refused = call("POST", POLICIES, {"metadata": {"name": "p"}, "spec": spec})
    assert refused.status == 422, refused.tree
    assert [f"{one['field']}: {one['message']}" for one in refused.tree["details"]["causes"]] == wanted


def test_what_does_not_compile(call: Any) -> None:
    spec = spec_of("", "pods", patched('[JSONPatch{op: "add", path: "/a", valu: 1}]'), configured("Thing{}"))
    refused = call("POST", POLICIES, {"metadata": {"name": "p"}, "spec": spec})
    assert "undefined field 'valu'" in refused.tree["message"]
    assert "undeclared reference to 'Thing'" in refused.tree["message"]
    judging = {"matchConstraints": spec["matchConstraints"], "validations": [{"expression": "Object{} == Object{}"}]}
    refused = call("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": judging})
    assert "undeclared reference to 'Object'" in refused.tree["message"]


def test_tables(call: Any, namespace: str) -> None:
    policy(call, namespace, "t", spec_of("", "pods", configured("Object{}")))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = call("GET", POLICIES, headers=accept).tree
    assert ([one["name"] for one in table["columnDefinitions"]], table["rows"][0]["cells"][:3]) == (
        ["Name", "Mutations", "ParamKind", "Age"],
        ["t", 1, "<unset>"],
    )
    assert call("GET", BINDINGS, headers=accept).tree["rows"][0]["cells"][:3] == ["t-b", "t", "<unset>"]


MANIFEST = """
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata:
  name: by-kubectl
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  failurePolicy: Fail
  reinvocationPolicy: Never
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: '[JSONPatch{op: "add", path: "/data", value: {"made": "by " + request.userInfo.username}}]'
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata:
  name: by-kubectl
spec:
  policyName: by-kubectl
  matchResources:
    namespaceSelector:
      matchLabels: {kubernetes.io/metadata.name: %s}
"""


def test_with_kubectl(kubectl: Any, namespace: str) -> None:
    applied = kubectl("apply", "-f", "-", stdin=MANIFEST % namespace)
    assert applied.stdout.splitlines() == [
        "mutatingadmissionpolicy.admissionregistration.k8s.io/by-kubectl created",
        "mutatingadmissionpolicybinding.admissionregistration.k8s.io/by-kubectl created",
    ], applied.stderr
    assert kubectl("create", "configmap", "a", "-n", namespace).returncode == 0
    assert kubectl("get", "configmap", "a", "-n", namespace, "-o", "jsonpath={.data.made}").stdout == "by podwire-admin"
    assert kubectl("get", "mutatingadmissionpolicies", "--no-headers").stdout.split()[:3] == ["by-kubectl", "1", "<unset>"]
    assert "ApplyConfiguration" in kubectl("explain", "mutatingadmissionpolicy.spec.mutations.patchType").stdout
