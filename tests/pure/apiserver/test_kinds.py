# ruff: noqa: E501  (messages are written whole, so that they can be searched for)
"""Defaults, rules and columns of Pods, workloads and the small kinds."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from podwire.apiserver import schema, tables
from podwire.apiserver.cells import age, duration, selector
from podwire.apiserver.kind import Kind
from podwire.apiserver.registry import REGISTRY
from podwire.apiserver.validation import Path, invalid, required, summary

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BORN = "2026-01-01T23:55:00Z"


def kind(plural: str) -> Kind:
    return next(one for one in REGISTRY if one.plural == plural)


def made(plural: str, name: str = "x", **fields: Any) -> dict[str, Any]:
    """A new object as it would be stored, whether right or not."""
    row = kind(plural)
    tree: dict[str, Any] = {"metadata": {"name": name}, **copy.deepcopy(fields)}
    if row.namespaced:
        tree["metadata"]["namespace"] = "default"
    tree["metadata"] |= fields.get("metadata", {})
    assert schema.prune_and_check(row, tree) == []
    row.for_create(tree)
    return tree


def errors(plural: str, name: str = "x", **fields: Any) -> list[str]:
    return [str(error) for error in kind(plural).check(made(plural, name, **fields), None)]


def changed(plural: str, old: dict[str, Any], **fields: Any) -> list[str]:
    new = copy.deepcopy(old)
    new.update(copy.deepcopy(fields))
    row = kind(plural)
    schema.prune_and_check(row, new)
    row.for_update(new, old)
    return [str(error) for error in row.check(new, old)]


def cells(plural: str, tree: dict[str, Any]) -> list[Any]:
    tree["metadata"]["creationTimestamp"] = BORN
    found: list[Any] = tables.row(kind(plural), tree, NOW)["cells"]
    assert len(found) == len(kind(plural).columns)
    return found


CONTAINER = {"name": "a", "image": "nginx"}
POD = {"containers": [CONTAINER]}
WEB = {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD}}

# Rows ----------------------------------------------------------------------------------------------------------------------


def test_every_row_prints_an_empty_object_and_keeps_what_it_made() -> None:
    for row in REGISTRY:
        tree: dict[str, Any] = {"metadata": {"name": "x", "namespace": "default"} if row.namespaced else {"name": "x"}}
        row.for_create(tree)
        assert len(row.row(tree, NOW)) == len(row.columns), row.kind
        again = copy.deepcopy(tree)
        row.for_update(again, tree)
        assert again == tree, row.kind
        for read in row.selectable_fields.values():
            assert isinstance(read(tree), str)


def test_names_are_unique() -> None:
    # Metrics are called like what is measured: nodes, pods.
    rows = [row for row in REGISTRY if row.conversion is None and row.group != "metrics.k8s.io"]
    words = [word for row in rows for word in {row.plural, row.singular, *row.short_names}]
    assert sorted(word for word in words if words.count(word) > 1) == []


def test_generation_counts_what_is_wanted() -> None:
    row = kind("deployments")
    old = made("deployments", spec=WEB)
    assert old["metadata"]["generation"] == 1
    labelled = copy.deepcopy(old)
    labelled["metadata"]["labels"] = {"a": "b"}
    row.for_update(labelled, old)
    assert labelled["metadata"]["generation"] == 1
    scaled = copy.deepcopy(old)
    scaled["spec"]["replicas"] = 3
    row.for_update(scaled, old)
    assert scaled["metadata"]["generation"] == 2
    told = copy.deepcopy(scaled)
    told["status"] = {"replicas": 3}
    told["spec"]["replicas"] = 7
    row.for_update(told, scaled, "status")
    assert (told["metadata"]["generation"], told["spec"]["replicas"], told["status"]) == (2, 3, {"replicas": 3})


def test_a_status_cannot_be_created_but_that_of_a_node() -> None:
    assert made("deployments", spec=WEB, status={"replicas": 9})["status"] == {}
    node = made("nodes", status={"capacity": {"cpu": "2"}})
    assert node["status"] == {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}


# Metadata ------------------------------------------------------------------------------------------------------------------

_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


@pytest.mark.parametrize(
    ("plural", "name", "metadata", "expected"),
    [
        ("configmaps", "A", {}, [f'metadata.name: Invalid value: "A": {_SUBDOMAIN}']),
        ("configmaps", "", {}, ["metadata.name: Required value: name or generateName is required"]),
        (
            "services",
            "1a",
            {},
            [
                "metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
                "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
            ],
        ),
        (
            "namespaces",
            "a.b",
            {},
            [
                "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
                "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ],
        ),
        ("configmaps", "x" * 254, {}, [f'metadata.name: Invalid value: "{"x" * 254}": must be no more than 253 characters']),
        (
            "configmaps",
            "x",
            {"labels": {"a": "b c"}},
            [
                "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
                "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
                "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ],
        ),
        (
            "configmaps",
            "x",
            {"annotations": {"a/b/c": ""}},
            [
                "metadata.annotations: Invalid value: \"a/b/c\": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
                "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') "
                "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ],
        ),
        ("configmaps", "x", {"annotations": {"a": "x" * 262144}}, ["metadata.annotations: Too long: may not be more than 262144 bytes"]),
        (
            "configmaps",
            "x",
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]},
            ['metadata.ownerReferences[0].uid: Invalid value: "": must not be empty'],
        ),
        ("nodes", "x", {"namespace": "default"}, ["metadata.namespace: Forbidden: not allowed on this type"]),
    ],
)
def test_metadata(plural: str, name: str, metadata: dict[str, Any], expected: list[str]) -> None:
    found = errors(plural, name, metadata={"name": name, **metadata})
    assert [error for error in found if error.startswith("metadata")] == expected


def test_metadata_that_never_changes() -> None:
    old = made("configmaps")
    old["metadata"] |= {"uid": "1", "creationTimestamp": BORN}
    assert changed("configmaps", old, metadata={}) == []
    assert changed("configmaps", old, metadata={**old["metadata"], "uid": "2"}) == ['metadata.uid: Invalid value: "2": field is immutable']
    dying = copy.deepcopy(old)
    dying["metadata"] |= {"deletionTimestamp": BORN, "finalizers": ["a/b"]}
    assert changed("configmaps", dying, metadata={"finalizers": []}) == []
    assert changed("configmaps", dying, metadata={"finalizers": ["a/b", "c/d"]}) == [
        'metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"c/d"}'
    ]


def test_one_error_stands_alone_and_several_in_brackets() -> None:
    one, two = invalid(Path("a"), 1, "x"), required(Path("b") / "c" @ 2 % "d")
    assert summary([one]) == "a: Invalid value: 1: x"
    assert summary([one, two, one]) == "[a: Invalid value: 1: x, b.c[2][d]: Required value]"
    assert (two.message, two.reason, two.field) == ("Required value", "FieldValueRequired", "b.c[2][d]")


# Pods ------------------------------------------------------------------------------------------------------------------------


def test_defaults_of_a_pod() -> None:
    container = {
        "name": "a",
        "image": "nginx",
        "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": 80}},
        "livenessProbe": {"grpc": {"port": 80}, "periodSeconds": 3},
        "resources": {"limits": {"cpu": "1"}},
    }
    tree = made("pods", spec={"containers": [container], "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}}]})
    assert tree["status"] == {"phase": "Pending", "qosClass": "Burstable"}
    spec = tree["spec"]
    assert spec["containers"] == [
        {
            **container,
            "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "readinessProbe": {
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
            "livenessProbe": {
                "grpc": {"port": 80, "service": ""},
                "timeoutSeconds": 1,
                "periodSeconds": 3,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
        }
    ]
    assert spec["volumes"] == [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 420}}]
    del spec["containers"], spec["volumes"]
    lost = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    assert spec == {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "enableServiceLinks": True,
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
        "tolerations": [{"key": "node.kubernetes.io/not-ready", **lost}, {"key": "node.kubernetes.io/unreachable", **lost}],
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("a:5000/nginx", "Always"),
        ("a:5000/n:1", "IfNotPresent"),
        ("n@sha256:0", "IfNotPresent"),
    ],
)
def test_pull_policy(image: str, policy: str) -> None:
    assert made("pods", spec={"containers": [{"name": "a", "image": image}]})["spec"]["containers"][0]["imagePullPolicy"] == policy


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ([{}], "BestEffort"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
    ],
)
def test_quality_of_service(resources: list[dict[str, Any]], quality: str) -> None:
    # What is said of the whole Pod counts alone.
    whole = {"limits": {"cpu": "1", "memory": "1Gi"}}
    pod = made("pods", spec={"resources": whole, "containers": [{"name": "c", "image": "a", "resources": resources[0]}]})
    assert pod["status"]["qosClass"] == "Guaranteed"
    containers = [{"name": f"c{index}", "image": "a", "resources": one} for index, one in enumerate(resources)]
    assert made("pods", spec={"containers": containers})["status"]["qosClass"] == quality


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ["spec.containers: Required value"]),
        ({"containers": [{}]}, ["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"]),
        ({"containers": [CONTAINER, CONTAINER]}, ['spec.containers[1].name: Duplicate value: "a"']),
        ({"containers": [CONTAINER], "initContainers": [CONTAINER]}, ['spec.containers[0].name: Duplicate value: "a"']),
        ({**POD, "restartPolicy": "Perhaps"}, ['spec.restartPolicy: Unsupported value: "Perhaps": supported values: "Always", "Never", "OnFailure"']),
        ({**POD, "dnsPolicy": "X"}, ['spec.dnsPolicy: Unsupported value: "X": supported values: "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"']),
        ({**POD, "dnsPolicy": "None"}, ["spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"]),
        ({"containers": [{**CONTAINER, "ports": [{"containerPort": 0}]}]}, ["spec.containers[0].ports[0].containerPort: Required value"]),
        ({"containers": [{**CONTAINER, "ports": [{"containerPort": 70000}]}]}, ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"]),
        ({"containers": [{**CONTAINER, "ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}]}, ['spec.containers[0].ports[1].name: Duplicate value: "a"']),
        ({"containers": [{**CONTAINER, "ports": [{"containerPort": 1, "name": "a-very-long-name"}]}]}, ['spec.containers[0].ports[0].name: Invalid value: "a-very-long-name": must be no more than 15 characters']),
        ({"containers": [{**CONTAINER, "env": [{"name": "A=B"}]}]}, ["spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='"]),
        ({"containers": [{**CONTAINER, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}, ['spec.containers[0].volumeMounts[0].name: Not found: "v"']),
        ({"containers": [{**CONTAINER, "livenessProbe": {}}]}, ["spec.containers[0].livenessProbe: Required value: must specify a handler type"]),
        ({"containers": [{**CONTAINER, "livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}}]}, ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"]),
        ({"containers": [{**CONTAINER, "readinessProbe": {"tcpSocket": {"port": 1}, "exec": {"command": ["a"]}}}]}, ["spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"]),
        ({"containers": [{**CONTAINER, "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}]}, ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1']),
        ({"containers": [{**CONTAINER, "resources": {"limits": {"cpu": "-1"}}}]}, ['spec.containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0', 'spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0']),
        ({**POD, "tolerations": [{"operator": "Equal"}]}, ['spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"']),
        ({**POD, "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}, ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"]),
        ({**POD, "hostAliases": [{"ip": "x"}]}, ['spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)']),
    ],
)  # fmt: skip
def test_pods_that_are_refused(spec: dict[str, Any], expected: list[str]) -> None:
    assert errors("pods", spec=spec) == expected


def test_what_may_change_in_a_pod() -> None:
    old = made("pods", spec=POD)

    def change(**fields: Any) -> list[str]:
        return changed("pods", old, spec={**old["spec"], **fields})

    assert change(containers=[{**old["spec"]["containers"][0], "image": "other:2"}]) == []
    assert change(tolerations=[*old["spec"]["tolerations"], {"operator": "Exists"}]) == []
    assert change(activeDeadlineSeconds=5) == []
    assert change(containers=[]) == [
        "spec.containers: Required value",
        "spec.containers: Forbidden: pod updates may not add or remove containers",
    ]
    assert change(tolerations=[]) == ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    [error] = change(nodeName="n1")
    assert error.startswith(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    )


def _pod(status: dict[str, Any], **metadata: Any) -> list[Any]:
    tree = made("pods", spec={"containers": [CONTAINER, {"name": "b", "image": "b"}], "initContainers": [{"name": "i", "image": "i"}]})
    tree["status"] = status
    tree["metadata"] |= metadata
    return cells("pods", tree)


RUNNING = {"running": {"startedAt": BORN}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Pending"}, ["0/2", "Pending", "0"]),
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}, ["0/2", "SchedulingGated", "0"]),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": RUNNING}]}, ["0/2", "Init:0/1", "0"]),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}, ["0/2", "Init:CrashLoopBackOff", "3"]),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2}}}]}, ["0/2", "Init:ExitCode:2", "0"]),
        ({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, ["0/2", "ContainerCreating", "0"]),
        ({"phase": "Running", "containerStatuses": [{"ready": True, "state": RUNNING}, {"ready": False, "state": RUNNING}]}, ["1/2", "Running", "0"]),
        ({"phase": "Running", "containerStatuses": [
            {"ready": True, "state": RUNNING, "restartCount": 2, "lastState": {"terminated": {"finishedAt": "2026-01-01T23:58:00Z"}}}, {"ready": True, "state": RUNNING}]},
         ["2/2", "Running", "2 (2m ago)"]),
        ({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}, {"ready": True, "state": RUNNING}]}, ["1/2", "Error", "0"]),
        ({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, {"ready": True, "state": RUNNING}]}, ["1/2", "NotReady", "0"]),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}, ["0/2", "Signal:9", "0"]),
        ({"phase": "Failed", "reason": "Evicted"}, ["0/2", "Evicted", "0"]),
        ({"phase": "Succeeded"}, ["0/2", "Succeeded", "0"]),
    ],
)  # fmt: skip
def test_how_pods_are_printed(status: dict[str, Any], expected: list[str]) -> None:
    assert _pod(status)[1:4] == expected


def test_how_a_pod_is_printed_wide_and_going() -> None:
    row = _pod({"phase": "Running", "podIPs": [{"ip": "10.4.0.2"}]}, deletionTimestamp=BORN)
    assert row == ["x", "0/2", "Terminating", "0", "5m", "10.4.0.2", "<none>", "<none>", "<none>"]


# Workloads ---------------------------------------------------------------------------------------------------------------------


def test_defaults_of_a_deployment() -> None:
    spec = made("deployments", spec=WEB)["spec"]
    template = spec.pop("template")
    assert spec == {
        "selector": {"matchLabels": {"app": "web"}},
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    assert template["spec"]["restartPolicy"] == "Always"
    assert "tolerations" not in template["spec"]
    assert "enableServiceLinks" not in template["spec"]
    assert made("replicasets", spec=WEB)["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({**WEB, "replicas": -1}, ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        ({**WEB, "selector": {"matchLabels": {"app": "other"}}}, ['spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`']),
        ({**WEB, "selector": {}}, ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]),
        ({"template": WEB["template"]}, ["spec.selector: Required value"]),
        ({**WEB, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}, ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0']),
        ({**WEB, "strategy": {"rollingUpdate": {"maxSurge": "x"}}}, ["spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"]),
        ({**WEB, "strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}, ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%']),
        ({**WEB, "strategy": {"type": "Recreate", "rollingUpdate": {}}}, ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]),
        ({**WEB, "strategy": {"type": "Slow"}}, ['spec.strategy.type: Unsupported value: "Slow": supported values: "Recreate", "RollingUpdate"']),
        ({**WEB, "minReadySeconds": 600}, ["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"]),
        ({**WEB, "template": {**WEB["template"], "spec": {**POD, "restartPolicy": "Never"}}}, ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"']),
        ({**WEB, "template": {**WEB["template"], "spec": {}}}, ["spec.template.spec.containers: Required value"]),
        ({**WEB, "selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}, ["spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"]),
    ],
)  # fmt: skip
def test_deployments_that_are_refused(spec: dict[str, Any], expected: list[str]) -> None:
    assert errors("deployments", spec=spec) == expected


def test_a_selector_never_changes() -> None:
    old = made("deployments", spec=WEB)
    labels = {"app": "web", "tier": "a"}
    new = {**old["spec"], "selector": {"matchLabels": labels}, "template": {**old["spec"]["template"], "metadata": {"labels": labels}}}
    message = 'spec.selector: Invalid value: {"matchLabels":{"app":"web","tier":"a"}}: field is immutable'
    assert changed("deployments", old, spec=new) == [message]
    assert changed("replicasets", made("replicasets", spec=WEB), spec=new) == [message]


def test_how_workloads_are_printed() -> None:
    tree = made("deployments", "web", spec={**WEB, "replicas": 3})
    assert cells("deployments", tree) == ["web", "0/3", 0, 0, "5m", "a", "nginx", "app=web"]
    tree["status"] = {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}
    assert cells("deployments", tree)[1:4] == ["2/3", 3, 1]
    tree = made("replicasets", "web-1", spec={**WEB, "replicas": 3})
    tree["status"] = {"replicas": 2, "readyReplicas": 1}
    assert cells("replicasets", tree) == ["web-1", 3, 2, 1, "5m", "a", "nginx", "app=web"]


# The small kinds -----------------------------------------------------------------------------------------------------------------


def test_namespaces() -> None:
    tree = made("namespaces", "shop")
    assert tree["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert (tree["spec"], tree["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})
    assert cells("namespaces", tree) == ["shop", "Active", "5m"]
    new = copy.deepcopy(tree)
    del new["spec"]
    kind("namespaces").for_update(new, tree)
    assert new["spec"] == {"finalizers": ["kubernetes"]}


def test_config_maps_and_secrets() -> None:
    assert errors("configmaps", data={"a b": ""}) == [
        "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
    ]
    assert errors("configmaps", data={"..": ""}) == ["data[..]: Invalid value: \"..\": must not be '..'"]
    assert errors("configmaps", data={"a": "x" * 1048577}) == ["[]: Too long: may not be more than 1048576 bytes"]
    secret = made("secrets", stringData={"a": "b"}, data={"c": "ZA=="})
    assert (secret["data"], secret["type"], "stringData" in secret) == ({"c": "ZA==", "a": "Yg=="}, "Opaque", False)
    assert cells("secrets", secret) == ["x", "Opaque", 2, "5m"]
    assert errors("secrets", type="kubernetes.io/tls") == ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
    assert changed("secrets", secret, type="other") == ['type: Invalid value: "other": field is immutable']
    frozen = made("configmaps", data={"a": "1"}, immutable=True)
    assert changed("configmaps", frozen, data={"a": "2"}) == ["data: Forbidden: field is immutable when `immutable` is set"]
    assert changed("configmaps", frozen, metadata={"labels": {"a": "b"}}) == []
    assert cells("configmaps", frozen) == ["x", 1, "5m"]


def test_nodes() -> None:
    node = made("nodes", "n1", spec={"podCIDR": "10.4.0.0/24"}, metadata={"name": "n1", "labels": {"node-role.kubernetes.io/worker": ""}})
    assert node["spec"]["podCIDRs"] == ["10.4.0.0/24"]
    assert errors("nodes", spec={"podCIDR": "10.4.0.0"}) == [
        'spec.podCIDRs[0]: Invalid value: "10.4.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'
    ]
    assert changed("nodes", node, spec={"podCIDR": "10.4.1.0/24", "podCIDRs": ["10.4.1.0/24"]}) == [
        'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'
    ]
    assert cells("nodes", node) == ["n1", "Unknown", "worker", "5m", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"]
    node["spec"]["unschedulable"] = True
    node["status"] = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "10.128.0.2"}],
        "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.18", "containerRuntimeVersion": "podwire://1"},
    }
    expected = ["n1", "Ready,SchedulingDisabled", "worker", "5m", "v1.37.0", "10.128.0.2", "<none>", "Debian", "6.18", "podwire://1"]
    assert cells("nodes", node) == expected
    told = copy.deepcopy(node)
    told["metadata"]["labels"] = {"a": "b"}
    kind("nodes").for_update(told, node, "status")
    assert told["metadata"]["labels"] == {"a": "b"}, "a node's agent labels it together with its status"


def test_endpoint_slices() -> None:
    fields: dict[str, Any] = {
        "addressType": "IPv4",
        "endpoints": [{"addresses": [f"10.4.0.{n}"]} for n in range(2, 7)],
        "ports": [{"port": 80, "name": "http"}, {"name": "all"}],
    }
    tree = made("endpointslices", **fields)
    assert tree["ports"][0]["protocol"] == "TCP"
    assert cells("endpointslices", tree) == ["x", "IPv4", "80,all", "10.4.0.2,10.4.0.3,10.4.0.4 + 2 more...", "5m"]
    assert errors("endpointslices", **{**fields, "endpoints": [{"addresses": ["fd00::1"]}, {}]}) == [
        'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address',
        "endpoints[1].addresses: Required value: must contain at least 1 address",
    ]
    assert errors("endpointslices", endpoints=[]) == ["addressType: Required value"]
    assert changed("endpointslices", tree, addressType="IPv6", endpoints=[]) == ['addressType: Invalid value: "IPv6": field is immutable']
    many = [{"addresses": ["10.4.0.2"]}] * 1001
    assert errors("endpointslices", addressType="IPv4", endpoints=many) == ["endpoints: Too many: must have at most 1000 items"]
    assert cells("endpointslices", made("endpointslices", addressType="IPv6")) == ["x", "IPv6", "<unset>", "<unset>", "5m"]


def test_endpoints() -> None:
    subsets = [{"addresses": [{"ip": "10.4.0.2"}, {"ip": "fd00::2"}], "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}]
    tree = made("endpoints", subsets=subsets)
    assert cells("endpoints", tree) == ["x", "10.4.0.2:80,[fd00::2]:80,10.4.0.2:81 + 1 more...", "5m"]
    assert cells("endpoints", made("endpoints")) == ["x", "<none>", "5m"]
    assert errors("endpoints", subsets=[{"ports": [{"port": 0}]}]) == [
        "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
        "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
    ]


def test_events() -> None:
    event = made(
        "events",
        "e",
        involvedObject={"kind": "Pod", "name": "web", "namespace": "default", "fieldPath": "spec"},
        reason="Started",
        message="Started it\n",
        source={"component": "kubelet", "host": "n1"},
        firstTimestamp="2026-01-01T23:50:00Z",
        lastTimestamp="2026-01-01T23:59:30Z",
        count=4,
    )
    assert cells("events", event) == ["30s", "Normal", "Started", "pod/web", "spec", "kubelet, n1", "Started it", "10m", 4, "e"]
    assert errors("events", involvedObject={"namespace": "other"}) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]


def test_leases() -> None:
    lease = made("leases", spec={"holderIdentity": "n1", "leaseDurationSeconds": 40})
    assert cells("leases", lease) == ["x", "n1", "5m"]
    assert errors("leases", spec={"leaseDurationSeconds": 0}) == ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]


# Cells -----------------------------------------------------------------------------------------------------------------------------


def test_lengths_of_time() -> None:
    day = 86400
    expected = {
        -5: "<invalid>", -0.5: "0s", 0: "0s", 119: "119s", 120: "2m", 185: "3m5s", 599: "9m59s", 600: "10m", 10799: "179m", 10800: "3h", 11000: "3h3m",
        8 * 3600: "8h", 2 * day - 1: "47h", 2 * day: "2d", 2 * day + 7200: "2d2h", 8 * day: "8d", 729 * day: "729d", 730 * day: "2y", 800 * day: "2y70d", 4000 * day: "10y",
    }  # fmt: skip
    assert {seconds: duration(seconds) for seconds in expected} == expected
    assert age(None, NOW) == "<unknown>"
    assert age("2026-01-01T23:59:00.5+00:00", NOW) == "59s"


def test_selectors_are_printed_as_they_are_written() -> None:
    requirements = [
        {"key": "tier", "operator": "In", "values": ["b", "a"]},
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "x", "operator": "Exists"},
        {"key": "y", "operator": "NotIn", "values": ["z"]},
    ]
    assert selector({"matchLabels": {"app": "web"}, "matchExpressions": requirements}) == "app=web,!old,tier in (a,b),x,y notin (z)"
    assert selector(None) == "<none>"


def test_a_table_is_whole() -> None:
    tree = made("namespaces", "shop")
    whole = tables.table(kind("namespaces"), [tree], NOW, metadata={"resourceVersion": "7"})
    assert (whole["kind"], whole["apiVersion"], whole["metadata"]) == ("Table", "meta.k8s.io/v1", {"resourceVersion": "7"})
    assert [column["name"] for column in whole["columnDefinitions"]] == ["Name", "Status", "Age"]
    assert whole["rows"][0]["object"] == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": tree["metadata"]}
    assert tables.row(kind("namespaces"), tree, NOW, "Object")["object"] == tree
    assert "object" not in tables.row(kind("namespaces"), tree, NOW, "None")
