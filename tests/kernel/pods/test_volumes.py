"""Volumes and the environment on a node of its own, as programs in containers see them; their sources change, and so do they."""

from __future__ import annotations

import base64
from pathlib import Path

from kernel.pods.running import NODE, Node, Tree, condition, eventually, running_node

CPU = {"containerName": "main", "resource": "requests.cpu", "divisor": "1m"}
NAMESPACE = "/api/v1/namespaces/default/"
READ = """
where=$PWD; cd /etc/all; echo "config: $(cat a.txt)"; echo "nested: $(cat deep/er/b)"
echo "labels: $(cat about/labels)"; echo "cpu: $(cat about/cpu)"
echo "secret: $(cat /etc/secret/key) $(stat -L -c %a /etc/secret/key)"; ls /etc/secret; touch /etc/all/x 2>&1 || true
echo "one: $(cat /etc/one)"; echo one > /shared/file; echo two > /shared/sub/file
echo "env: $A $PREFIX_a $SECRET $CPU $MEMORY $(id -u) $where"; echo "none: ${NONE-unset}"
ls /var/run/secrets/kubernetes.io/serviceaccount; echo "host: $KUBERNETES_SERVICE_HOST"
"""


def machine(script: str, name: str = "main", **more: object) -> Tree:
    return {"name": name, "image": "podwire.dev/machine", "command": ["sh", "-c", script], **more}


def config_map(node: Node, name: str, **data: str) -> None:
    node.create(NAMESPACE + "configmaps", {"metadata": {"name": name}, "data": data})


def secret(node: Node, name: str, **data: str) -> None:
    values = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    node.create(NAMESPACE + "secrets", {"metadata": {"name": name}, "data": values})


def change(node: Node, plural: str, name: str, body: Tree) -> None:
    node.call("PATCH", f"{NAMESPACE}{plural}/{name}", body, "application/merge-patch+json")


def said(node: Node, name: str, container: int = 0) -> str:
    """What the container wrote as its last message."""

    def over(status: Tree) -> bool:
        return any("terminated" in one["state"] for one in status.get("containerStatuses", ())[container : container + 1])

    state = node.wait(name, over, f"{name} has ended")["status"]["containerStatuses"][container]["state"]
    return str(state["terminated"].get("message", ""))


def test_files_and_variables() -> None:
    everything = {
        "name": "all",
        "projected": {
            "sources": [
                {"configMap": {"name": "settings", "items": [{"key": "a", "path": "a.txt"}, {"key": "b", "path": "deep/er/b"}]}},
                {
                    "downwardAPI": {
                        "items": [
                            {"path": "about/labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                            {
                                "path": "about/cpu",
                                "resourceFieldRef": CPU,
                            },
                        ]
                    }
                },
                {"secret": {"name": "absent", "optional": True}},
            ]
        },
    }
    mounts = [
        {"name": "all", "mountPath": "/etc/all"},
        {"name": "secret", "mountPath": "/etc/secret"},
        {"name": "all", "mountPath": "/etc/one", "subPath": "deep/er/b"},
        {"name": "shared", "mountPath": "/shared"},
        {"name": "other", "mountPath": "/shared/sub"},
    ]
    env = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "kept", "key": "key"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "key", "optional": True}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    more: Tree = {
        "volumeMounts": mounts,
        "env": env,
        "envFrom": [{"prefix": "PREFIX_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "absent", "optional": True}}],
        "workingDir": "/usr",
        "resources": {"requests": {"cpu": "1500m"}, "limits": {"memory": "64Mi", "cpu": "2"}},
    }
    volumes = [
        everything,
        {"name": "secret", "secret": {"secretName": "kept", "defaultMode": 0o400}},
        {"name": "shared", "emptyDir": {"medium": "Memory"}},
        {"name": "other", "emptyDir": {}},
    ]
    with running_node() as node:
        node.service_account()
        config_map(node, "settings", a="alpha", b="beta")
        secret(node, "kept", key="hidden")
        reader = machine("{ " + READ + "} > /dev/termination-log 2>&1", **more)
        again = machine("cat /s/file /s/sub/file /o/file > /dev/termination-log 2>&1; ls -a /s >> /dev/termination-log", "again")
        again["volumeMounts"] = [{"name": "shared", "mountPath": "/s", "readOnly": True}, {"name": "other", "mountPath": "/o"}]
        node.pod("reader", again, labels={"app": "x"}, volumes=volumes, restartPolicy="Never", initContainers=[reader])
        status = node.wait("reader", lambda status: status.get("phase") == "Succeeded")["status"]
        text = status["initContainerStatuses"][0]["state"]["terminated"]["message"]
        for words in (
            "config: alpha",
            "nested: beta",
            'labels: app="x"',
            "cpu: 1500",
            "secret: hidden 400",
            "Read-only file system",
            "one: beta",
            "env: alpha alpha hidden 2 64 0 /usr",
            "none: unset",
            "ca.crt\nnamespace\ntoken\n",
        ):
            assert words in text, (words, text)
        # The nested mount is another volume: the shared one has only the place for it.
        assert said(node, "reader") == "one\ncat: /s/sub/file: No such file or directory\ntwo\n.\n..\nfile\nsub\n"


def test_a_nodes_debugger_sees_the_node_and_the_root_that_containers_see() -> None:
    script = "hostname; ls -d /host/etc; ls -A /host/tmp; touch /host/tmp/x /host/x 2>/dev/null || echo no"
    with running_node() as node:
        node.service_account()
        mount = {"volumeMounts": [{"name": "host-root", "mountPath": "/host"}]}
        spec: Tree = {
            "restartPolicy": "Never",
            "hostNetwork": True,
            "hostPID": True,
            "volumes": [{"name": "host-root", "hostPath": {"path": "/"}}],
        }
        node.pod("debugger", machine(f"({script}) > /dev/termination-log", **mount), **spec)
        node.pod("part", machine("true", volumeMounts=[{"name": "host-root", "mountPath": "/h", "subPath": "root"}]), **spec)
        assert said(node, "debugger") == f"{NODE}\n/host/etc\nno\n"
        status = node.wait("part", lambda status: "CreateContainerConfigError" in str(status))["status"]
        assert "the machine's root is shown whole" in status["containerStatuses"][0]["state"]["waiting"]["message"]


def test_what_is_missing_is_waited_for() -> None:
    with running_node() as node:
        node.service_account()
        env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
        node.pod("variable", machine("echo $A > /dev/termination-log", env=env), restartPolicy="Never")
        mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
        node.pod(
            "volume",
            machine("cat /v/a > /dev/termination-log", **mount),
            restartPolicy="Never",
            volumes=[{"name": "v", "secret": {"secretName": "late"}}],
        )
        node.pod("host", machine("ls /v", **mount), volumes=[{"name": "v", "hostPath": {"path": "/var/log"}}])
        status = node.wait("variable", lambda status: "CreateContainerConfigError" in str(status))["status"]
        assert status["containerStatuses"][0]["state"]["waiting"]["message"] == 'configmap "late" not found'
        eventually(lambda: 'Failed: Error: configmap "late" not found' in node.events("variable"))
        eventually(lambda: 'FailedMount: MountVolume.SetUp failed for volume "v" : secret "late" not found' in node.events("volume"))
        eventually(lambda: any("hostPath /var/log lies below no folder that the cluster may use" in event for event in node.events("host")))
        assert node.get("volume")["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
        config_map(node, "late", a="now")
        secret(node, "late", a="there")
        node.delete("host")  # although it waits for something that never comes
        node.gone("host")
        assert said(node, "variable") == "now\n"
        assert said(node, "volume") == "there"


def test_sources_change_and_so_do_the_files() -> None:
    volumes = [
        {"name": "c", "configMap": {"name": "settings"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    watch = """
        while [ "$(cat /c/a)" != second ] || [ -e /c/b ] || ! grep -q green /d/labels; do sleep 0.05; done; ls -A /c > /dev/termination-log
    """
    with running_node() as node:
        node.service_account()
        config_map(node, "settings", a="first", b="x")
        mounts = [{"name": "c", "mountPath": "/c"}, {"name": "d", "mountPath": "/d"}]
        for name in ("one", "two"):
            node.pod(name, machine(watch, volumeMounts=mounts), restartPolicy="Never", volumes=volumes, labels={"colour": "red"})
            node.ready(name)
        node.kill("agent")
        node.start_agent()
        change(node, "configmaps", "settings", {"data": {"a": "second", "b": None}})
        for name in ("one", "two"):
            change(node, "pods", name, {"metadata": {"labels": {"colour": "green"}}})
            listed = said(node, name).split()
            assert listed[1:] == ["..data", "a"]
            assert listed[0].startswith("..20")
            assert node.get(name)["status"]["containerStatuses"][0]["restartCount"] == 0
            node.delete(name)
            node.gone(name)
        pods = Path(node.folder / "state/nodes" / NODE / "pods")
        eventually(lambda: not list(pods.iterdir()))
        assert not list((node.folder / "volumes").iterdir()) if (node.folder / "volumes").exists() else True


def test_a_folder_that_is_full_ends_its_pod() -> None:
    with running_node() as node:
        node.service_account()
        script = "head -c 3000000 /dev/zero > /v/file; trap 'exit 0' TERM; while :; do sleep 0.1; done"
        volumes = [{"name": "v", "emptyDir": {"sizeLimit": "2Mi", "medium": "Memory"}}]
        node.pod("full", machine(script, volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=volumes)
        status = node.wait("full", lambda status: status.get("phase") == "Failed")["status"]
        assert (status["reason"], status["message"]) == ("Evicted", 'Usage of EmptyDir volume "v" exceeds the limit "2Mi". ')
        assert condition(status, "Ready") == "False"
        eventually(lambda: not (node.folder / "volumes" / node.get("full")["metadata"]["uid"]).exists())
