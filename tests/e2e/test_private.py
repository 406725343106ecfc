"""Keys and passwords of the user who made a cluster: no manifest gets at them; the user, of course, does."""

from __future__ import annotations

import json

from e2e.lab import a_cluster, a_user, until

KEY = "the-users-own-key"
LOOK = "grep -rslE 'client-key|the-users-own-key|PRIVATE KEY' $0 /proc/1/root$0 /host$0; cat $0/work/notes; echo looked"


def test_a_manifest_does_not_read_keys(uid: int) -> None:
    # The home lies where containers have no folder of their own.
    with a_user(uid, "/var/tmp") as user:
        user.run(["mkdir", ".ssh", ".config", "work", "elsewhere", ".config/gcloud"], cwd=user.home)
        for name in (".ssh/id", ".config/gcloud/token", ".netrc", "elsewhere/key.yaml"):
            user.run(["sh", "-c", f"echo {KEY} > {name}"], cwd=user.home)
        user.run(["sh", "-c", "echo notes > work/notes"], cwd=user.home)
        with a_cluster(user, "private", "--zones", "1") as cluster:
            assert (user.home / ".kube/config").exists(), "up has written it"
            look = {"name": "c", "image": "podwire.dev/machine", "command": ["sh", "-c", LOOK, str(user.home)]}
            root = {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}
            containers = [look, look | {"name": "host", "volumeMounts": [{"name": "host", "mountPath": "/host"}]}]
            spec = {"restartPolicy": "Never", "containers": containers, **root}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "curious"}, "spec": spec}
            cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
            until(lambda: cluster.get("pod", "curious")["status"].get("phase") == "Succeeded", "the Pod has looked")
            seen = f"{user.home}/elsewhere/key.yaml"  # what has no name of a secret is read: the look finds something
            for name, roots in (("c", ("", "/proc/1/root")), ("host", ("", "/host", "/proc/1/root"))):
                told = cluster.kubectl("logs", "curious", "-c", name).stdout.splitlines()
                assert sorted(line for line in told if line.startswith("/")) == sorted(f"{root}{seen}" for root in roots)
                assert told[-2:] == ["notes", "looked"]
            node = cluster.get("nodes")["items"][0]["metadata"]["name"]
            told = cluster.exec(f"node/{node}", "sh", "-c", LOOK, str(user.home)).stdout
            assert {f"{user.home}/{name}" for name in (".ssh/id", ".netrc", ".kube/config")} <= set(told.splitlines())
            findings = json.loads(user.podwire("doctor", "-o", "json").stdout)["findings"]
            told = next(one["found"] for one in findings if one["name"] == "private files")
            assert f"{user.home}/.ssh" in told
