"""Users of images: as root containers have the users that they name; elsewhere what cannot be had is refused, and no other one taken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.lab import Cluster, a_cluster, a_user, until
from image_archives import busybox, entry, folder, layout

Tree = dict[str, Any]
ROOT = pytest.mark.parametrize("uid", [pytest.param(0, id="root")], scope="module")
SLEEP = 100_000 + os.getpid()
LOOK = f"id -u; id -g; id -G; echo $HOME; echo mine > ~/mine && cat ~/mine; echo out > /dev/stdout; cat /etc/hostname; exec sleep {SLEEP}"


@pytest.fixture(scope="module")
def lab(uid: int) -> Iterator[Cluster]:
    with a_user(uid) as user:
        groups = b"root:x:0:\nweb:x:1000:\nteam:x:1500:web,other\n"
        owned = [
            entry("etc/group", groups),
            folder("home"),
            (owner := folder("home/web", 0o700)),
            (secret := entry("home/web/secret", b"of web\n", mode=0o600)),
            (entry_ := entry("bin/raise", Path("/usr/bin/busybox").read_bytes(), mode=0o4755)),
        ]
        for info, _ in (owner, secret):
            info.uid = info.gid = 1000
        assert entry_[0].uid == 0
        for name, who in (("web", "web"), ("number", "1000:1500"), ("root", ""), ("rooted", "root"), ("absent", "nobody")):
            made = layout(busybox(*owned, User=who), f"shop/{name}:1")
            user.podwire("image", "load", str(made.write_tar(user.home / f"{name}.tar")))
        with a_cluster(user, "people", "--zones", "1") as cluster:
            yield cluster


def create(cluster: Cluster, name: str, *containers: Tree, **spec: Any) -> None:
    body = {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **body}))


def container(name: str, image: str, script: str, **more: Any) -> Tree:
    return {"name": name, "image": f"shop/{image}:1", "command": ["sh", "-c", script], **more}


def said(cluster: Cluster, pod: str, name: str, lines: int) -> list[str]:
    def look() -> list[str] | None:
        found = cluster.kubectl("logs", pod, "-c", name, status=None).stdout.splitlines()
        return found if len(found) >= lines else None

    found: list[str] = until(look, f"{pod}/{name} has said {lines} lines")
    return found


def waits(cluster: Cluster, pod: str, count: int) -> dict[str, Tree]:
    """The containers that wait with a message, by name."""

    def look() -> dict[str, Tree] | None:
        statuses = cluster.get("pod", pod)["status"].get("containerStatuses", [])
        found = {one["name"]: one["state"].get("waiting", {}) for one in statuses}
        return found if sum("message" in one for one in found.values()) >= count else None

    found: dict[str, Tree] = until(look, f"{count} containers of {pod} wait")
    return found


@ROOT
def test_containers_have_the_users_that_they_and_their_images_name(lab: Cluster) -> None:
    create(
        lab,
        "who",
        container("image", "web", LOOK),
        container("number", "number", LOOK),
        container("own", "root", LOOK.replace("~/", "/tmp/"), securityContext={"runAsUser": 4000, "runAsGroup": 4001}),
        {
            "name": "machine",
            "image": "podwire.dev/machine",
            "command": ["sh", "-c", f"id -u; id -g; id -G; exec sleep {SLEEP}"],
            "securityContext": {"runAsUser": 4000},
        },
        securityContext={"supplementalGroups": [7000]},
    )
    lab.ready()
    assert said(lab, "who", "machine", 3) == ["4000", "0", "0 7000"]
    assert said(lab, "who", "image", 7) == ["1000", "1000", "1000 1500 7000", "/home/web", "mine", "out", "who"]
    assert said(lab, "who", "number", 7) == ["1000", "1500", "1500 7000", "/home/web", "mine", "out", "who"]
    assert said(lab, "who", "own", 7) == ["4000", "4001", "4001 7000", "/", "mine", "out", "who"]
    # A command in it is the same user; the image's file has its owner; and a file that raises who runs it has that bit.
    look = "id -u; id -G; cat /home/web/secret; ls -ln /home/web/secret | cut -c1-40; test -w /etc && echo may; echo to > /dev/stdout"
    found = lab.kubectl("exec", "who", "-c", "image", "--", "sh", "-c", look).stdout.splitlines()
    assert found[:3] == ["1000", "1000 1500 7000", "of web"]
    assert found[3].split()[2:4] == ["1000", "1000"]
    assert found[4:] == ["to"]
    assert lab.kubectl("exec", "who", "-c", "image", "--", "ls", "-l", "/bin/raise").stdout.startswith("-rwsr-xr-x")
    refused = lab.kubectl("exec", "who", "-c", "own", "--", "cat", "/home/web/secret", status=1).stderr
    assert "Permission denied" in refused
    capabilities = lab.kubectl("exec", "who", "-c", "image", "--", "grep", "CapEff", "/proc/self/status").stdout
    assert capabilities == "CapEff:\t0000000000000000\n"
    # Outside it is nobody's user.
    pids = [entry.name for entry in os.scandir("/proc") if entry.name.isdigit() and f"sleep\0{SLEEP}".encode() in _command(entry.name)]
    owners = {os.stat(f"/proc/{pid}").st_uid for pid in pids}
    assert owners
    assert all(owner > 65_535 for owner in owners)
    lab.kubectl("delete", "pod", "who")


def _command(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""


@ROOT
def test_volumes_belong_to_the_group_of_the_pod(lab: Cluster) -> None:
    for kind, name, data in (("configmap", "settings", "a=b"), ("secret", "keys", "k=v")):
        words = ["generic"] if kind == "secret" else []
        lab.kubectl("create", kind, *words, name, f"--from-literal={data}")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim}
    lab.kubectl("create", "-f", "-", stdin=json.dumps(body))
    volumes = [
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "all", "projected": {"sources": [{"secret": {"name": "keys"}}, {"serviceAccountToken": {"path": "token"}}]}},
    ]
    mounts = [{"name": one["name"], "mountPath": f"/{one['name']}"} for one in volumes] + [
        {"name": "data", "mountPath": "/part", "subPath": "part"}
    ]
    script = (
        "exec 2>&1; id -G; for each in empty memory data part; do echo x > /$each/x && ls -ln /$each/x; done; "
        "cat /settings/a /keys/k /all/k; echo; "
        "test -s /all/token && echo token; touch /settings/no; ls -lnd /empty /data /settings; echo over; exec sleep 100000"
    )
    context = {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000}
    create(lab, "group", container("main", "root", script, volumeMounts=mounts), volumes=volumes, securityContext=context)
    lab.ready()
    until(lambda: "over" in lab.kubectl("logs", "group").stdout, "it has looked")
    found = lab.kubectl("logs", "group").stdout.splitlines()
    assert found[0] == "3000 1500 2000"
    for line in found[1:5]:
        assert line.split()[2:4] == ["1000", "2000"], line
    assert found[5:7] == ["bvv", "token"]
    assert any("Read-only file system" in line or "Permission denied" in line for line in found)
    folders = {line.split()[-1]: line.split() for line in found if line.startswith("d")}
    assert {name: words[3] for name, words in folders.items()} == {"/empty": "2000", "/data": "2000", "/settings": "2000"}
    assert all("s" in words[0] for words in folders.values()), folders  # what is new is the group's, too
    # Only where its root differs is a claim given anew.
    lab.kubectl("exec", "group", "--", "sh", "-c", "chmod 600 /data/x")
    lab.kubectl("delete", "pod", "group")
    for policy, mode in (("OnRootMismatch", "-rw-------"), ("Always", "-rw-rw----")):
        look = container("main", "root", "ls -ln /data/x; exec sleep 100000", volumeMounts=[{"name": "data", "mountPath": "/data"}])
        data = [one for one in volumes if one["name"] == "data"]
        name = policy.lower()
        create(lab, name, look, volumes=data, securityContext={**context, "fsGroupChangePolicy": policy})
        lab.ready()
        assert said(lab, name, "main", 1)[0].split()[0] == mode
        lab.kubectl("delete", "pod", name)


def test_who_must_not_be_root_is_not(lab: Cluster) -> None:
    rule = {"runAsNonRoot": True}
    create(
        lab,
        "strict",
        container("image", "root", "sleep 1", securityContext=rule),
        container("own", "root", "sleep 1", securityContext={**rule, "runAsUser": 0}),
        container("named", "rooted", "sleep 1", securityContext=rule),
        container("web", "web", "sleep 1", securityContext=rule),
        container("absent", "absent", "sleep 1"),
    )
    found = waits(lab, "strict", 5)
    assert {one["reason"] for name, one in found.items() if name != "absent"} == {"CreateContainerConfigError"}
    assert found["image"]["message"].startswith('container has runAsNonRoot and image will run as root (pod: "strict_default(')
    assert found["own"]["message"].startswith("container's runAsUser breaks non-root policy (pod: ")
    for name, who in (("named", "root"), ("web", "web")):
        words = f"container has runAsNonRoot and image has non-numeric user ({who}), cannot verify user is non-root (pod: "
        assert found[name]["message"].startswith(words)
    assert found["absent"]["message"].startswith("unable to find user nobody: no matching entries in passwd file")
    lab.kubectl("delete", "pod", "strict")


def test_a_user_that_is_not_there_is_refused_and_said(lab: Cluster) -> None:
    create(lab, "far", container("main", "root", "sleep 1", securityContext={"runAsUser": 70_000}))
    message = waits(lab, "far", 1)["main"]["message"]
    there = "only users 0 to 65535" if lab.user.uid == 0 else "only user and group 0"
    assert message == f"container main is to have user 70000, and the cluster has {there}: `podwire doctor` says why"
    lab.kubectl("delete", "pod", "far")
