"""Pods and their ServiceAccounts: the volume that the API adds, and who gets none."""

from __future__ import annotations

import re
from typing import Any

from podwire.apiserver.admission import service_accounts

Tree = dict[str, Any]
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def path(namespace: str, plural: str = "pods", query: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}{query}"


def pod(name: str, *containers: Tree, **spec: Any) -> Tree:
    return {"metadata": {"name": name}, "spec": {"containers": list(containers) or [{"name": "c", "image": "nginx:1.27"}], **spec}}


def account(call: Any, namespace: str, name: str, **fields: Any) -> None:
    assert call("POST", path(namespace, "serviceaccounts"), {"metadata": {"name": name}, **fields}).status == 201


def test_the_volume_that_is_added(call: Any, namespace: str) -> None:
    account(call, namespace, "reader")
    own = {"name": "own", "mountPath": MOUNT}
    containers: list[Tree] = [{"name": "one", "image": "a:1"}, {"name": "two", "image": "b:1", "volumeMounts": [own]}]
    for name in ("first", "second"):
        tree = pod(name, *containers, serviceAccountName="reader", volumes=[{"name": "own", "emptyDir": {"medium": "Memory"}}])
        made = call("POST", path(namespace), tree).tree
        volume, added = made["spec"]["volumes"]
        assert volume["name"] == "own"
        assert re.fullmatch(r"kube-api-access-[a-z0-9]{5}", added["name"])
        assert added["projected"] == {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ],
        }
        mounts = [container["volumeMounts"] for container in made["spec"]["containers"]]
        assert mounts == [[{"name": added["name"], "readOnly": True, "mountPath": MOUNT}], [own]]
        assert "kube-api-access" not in str(made["metadata"]["managedFields"])


def test_who_gets_none(call: Any, namespace: str) -> None:
    account(call, namespace, "silent", automountServiceAccountToken=False)

    def volumes(name: str, **spec: Any) -> list[Tree]:
        found: list[Tree] = call("POST", path(namespace), pod(name, **spec)).tree["spec"].get("volumes", [])
        return found

    assert len(volumes("a")) == len(volumes("b")) == 1
    assert volumes("c", automountServiceAccountToken=False) == []
    assert volumes("d", serviceAccountName="silent") == volumes("e", serviceAccountName="silent") == []
    assert len(volumes("f", serviceAccountName="silent", automountServiceAccountToken=True)) == 1
    change = {"automountServiceAccountToken": True}
    kind = "application/merge-patch+json"
    assert call("PATCH", path(namespace, "serviceaccounts", "/silent"), change, content_type=kind).status == 200
    assert len(volumes("g", serviceAccountName="silent")) == 1
    account(call, namespace, "pulling", imagePullSecrets=[{"name": "registry"}])
    for name in ("h", "i"):
        made = call("POST", path(namespace), pod(name, serviceAccountName="pulling")).tree
        assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    refused = call("POST", path(namespace), pod("j", serviceAccountName="nobody"))
    why = f'error looking up service account {namespace}/nobody: serviceaccount "nobody" not found'
    assert (refused.status, refused.tree["message"]) == (403, f'pods "j" is forbidden: {why}')
    shown = pod("k") | {"metadata": {"name": "k", "annotations": {"kubernetes.io/config.mirror": "x"}}}
    assert "volumes" not in call("POST", path(namespace), shown).tree["spec"]
    assert call("POST", path(namespace), pod("l") | {"metadata": {"name": "l", "annotations": 5}}).status == 400


def test_a_volume_of_that_name_is_taken_as_it_is() -> None:
    spec: Tree = {"containers": [{"name": "c"}], "volumes": [{"name": "kube-api-access-aaaaa", "projected": {"sources": []}}]}
    service_accounts.fill(spec, None)
    assert len(spec["volumes"]) == 1
    assert spec["containers"][0]["volumeMounts"][0]["name"] == "kube-api-access-aaaaa"
    before = str(spec)
    service_accounts.fill(spec, None)
    assert str(spec) == before
