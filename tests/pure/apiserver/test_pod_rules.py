"""Rules of Pods beyond their containers' names and ports: volumes, mounts, affinity, security."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from podwire.apiserver import schema
from podwire.apiserver.registry import REGISTRY

Tree = dict[str, Any]
KIND = next(kind for kind in REGISTRY if kind.plural == "pods")
CONTAINER: Tree = {"name": "c", "image": "i"}
REQUIRED, PREFERRED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"


def errors(**spec: Any) -> list[str]:
    tree: Tree = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [CONTAINER], **copy.deepcopy(spec)}}
    assert schema.prune_and_check(KIND, tree) == []
    KIND.for_create(tree)
    return [str(error) for error in KIND.check(tree, None)]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ({"emptyDir": {}}, []),
        ({"configMap": {}}, ["spec.volumes[0].configMap.name: Required value"]),
        ({"secret": {"optional": True}}, ["spec.volumes[0].secret.secretName: Required value"]),
        (
            {"secret": {"secretName": "s", "defaultMode": 512}},
            ["spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"],
        ),
        (
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "/a"}, {"key": "", "path": "a/../b"}]}},
            [
                'spec.volumes[0].configMap.items[0].path: Invalid value: "/a": must be a relative path',
                "spec.volumes[0].configMap.items[1].key: Required value",
                "spec.volumes[0].configMap.items[1].path: Invalid value: \"a/../b\": must not contain '..'",
            ],
        ),
        ({"hostPath": {"path": ""}}, ["spec.volumes[0].hostPath.path: Required value"]),
        ({"hostPath": {"path": "/a/.."}}, ["spec.volumes[0].hostPath.path: Invalid value: \"/a/..\": must not contain '..'"]),
        ({"persistentVolumeClaim": {}}, ["spec.volumes[0].persistentVolumeClaim.claimName: Required value"]),
        ({"nfs": {"server": "n", "path": "p"}}, ['spec.volumes[0].nfs.path: Invalid value: "p": must be an absolute path']),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}, {"secret": {}}]}},
            [
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: "
                "may not specify a duration less than 10 minutes",
                "spec.volumes[0].projected.sources[1].secret.name: Required value",
            ],
        ),
        (
            {"downwardAPI": {"items": [{"path": "a"}]}},
            ["spec.volumes[0].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required"],
        ),
        (
            {"emptyDir": {}, "nfs": {"server": "n", "path": "/p"}},
            ["spec.volumes[0].nfs: Forbidden: may not specify more than 1 volume type"],
        ),
    ],
)
def test_volumes(source: Tree, wanted: list[str]) -> None:
    assert errors(volumes=[{"name": "v", **source}]) == wanted


def test_mounts() -> None:
    mounts = [{"name": "v", "mountPath": "/a", "subPath": "/x"}, {"name": "v", "mountPath": "/b", "subPath": "x", "subPathExpr": "y"}]
    assert errors(volumes=[{"name": "v", "emptyDir": {}}], containers=[CONTAINER | {"volumeMounts": mounts}]) == [
        'spec.containers[0].volumeMounts[0].subPath: Invalid value: "/x": must be a relative path',
        'spec.containers[0].volumeMounts[1].subPathExpr: Invalid value: "y": subPathExpr and subPath are mutually exclusive',
    ]


def test_security() -> None:
    context = {"runAsUser": -1, "privileged": True, "allowPrivilegeEscalation": False}
    where = "spec.containers[0].securityContext"
    assert errors(containers=[CONTAINER | {"securityContext": context}]) == [
        f"{where}.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        f"{where}.allowPrivilegeEscalation: Invalid value: false: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
    ]


def test_what_begins_before_others_is_not_probed() -> None:
    probed = CONTAINER | {"name": "first", "readinessProbe": {"tcpSocket": {"port": 80}}}
    text = "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"
    assert errors(initContainers=[probed]) == [text]
    assert errors(initContainers=[probed | {"restartPolicy": "Always"}]) == []


def test_containers_for_debugging_come_later() -> None:
    assert errors(ephemeralContainers=[CONTAINER | {"name": "d"}]) == ["spec.ephemeralContainers: Forbidden: cannot be set on create"]


@pytest.mark.parametrize(
    ("system", "signal", "wanted"),
    [
        ({"name": "linux"}, "SIGRTMIN+3", ""),
        ({"name": "windows"}, "SIGKILL", ""),
        (None, "SIGTERM", ".stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"),
        ({"name": "windows"}, "SIGINT", '.stopSignal: Unsupported value: "SIGINT": supported values: "SIGKILL", "SIGTERM"'),
        ({"name": "linux"}, "SIGRTMIN+16", '.stopSignal: Unsupported value: "SIGRTMIN+16": supported values: "SIGABRT", "SIGALRM", '),
        ({"name": "linux"}, "TERM", '.stopSignal: Unsupported value: "TERM": supported values: "SIGABRT", "SIGALRM", '),
    ],
)
def test_signals_that_end_containers(system: Tree | None, signal: str, wanted: str) -> None:
    found = errors(containers=[CONTAINER | {"lifecycle": {"stopSignal": signal}}], **({"os": system} if system else {}))
    assert len(found) == bool(wanted)
    assert "".join(found).startswith(f"spec.containers[0].lifecycle{wanted}" if wanted else "")


def test_systems() -> None:
    assert errors(os={"name": "plan9"}) == ['spec.os.name: Unsupported value: "plan9": supported values: "linux", "windows"']
    assert errors(os={"name": ""}) == ["spec.os.name: Required value: cannot be empty"]


def test_affinity() -> None:
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
    right = {
        "nodeAffinity": {
            REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [zone]}]},
            PREFERRED: [{"weight": 1, "preference": {"matchExpressions": [zone]}}],
        },
        "podAffinity": {REQUIRED: [term]},
        "podAntiAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": term}]},
    }
    assert errors(affinity=right) == []
    wrong = {
        "nodeAffinity": {
            REQUIRED: {"nodeSelectorTerms": []},
            PREFERRED: [
                {"weight": 0, "preference": {"matchExpressions": [{"key": "z", "operator": "Near"}, {"key": "z", "operator": "In"}]}}
            ],
        },
        "podAntiAffinity": {REQUIRED: [{"topologyKey": ""}]},
    }
    node, preference = "spec.affinity.nodeAffinity", f"spec.affinity.nodeAffinity.{PREFERRED}[0]"
    assert errors(affinity=wrong) == [
        f"{node}.{REQUIRED}.nodeSelectorTerms: Required value: must have at least one node selector term",
        f"{preference}.weight: Invalid value: 0: must be in the range 1-100",
        f'{preference}.preference.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator',
        f"{preference}.preference.matchExpressions[1].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        f"spec.affinity.podAntiAffinity.{REQUIRED}[0].topologyKey: Required value: can not be empty",
    ]


def test_what_cannot_be_had_with_the_nodes_namespaces() -> None:
    assert errors(shareProcessNamespace=True, hostPID=True) == [
        "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled"
    ]
    assert errors(hostPID=True, shareProcessNamespace=False) == []
    named = [{"name": name, "value": "1"} for name in ("net.core.somaxconn", "kernel/shm_rmid_forced")]
    assert errors(securityContext={"sysctls": named}) == []
    assert errors(securityContext={"sysctls": named}, hostNetwork=True, hostIPC=True) == [
        "spec.securityContext.sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified when 'hostNetwork' is true",
        "spec.securityContext.sysctls[1].name: Invalid value: \"kernel/shm_rmid_forced\": may not be specified when 'hostIPC' is true",
    ]
    wrong = [{"name": name, "value": "1"} for name in ("", "Net.a", "net.a", "net.a", "a..b")]
    words = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
    assert errors(securityContext={"sysctls": wrong}) == [
        "spec.securityContext.sysctls[0].name: Required value",
        f'spec.securityContext.sysctls[1].name: Invalid value: "Net.a": {words}',
        'spec.securityContext.sysctls[3].name: Duplicate value: "net.a"',
        f'spec.securityContext.sysctls[4].name: Invalid value: "a..b": {words}',
    ]
