"""``up --privileged``: what containers use is limited by cgroups, which go with the cluster; without the right to them nothing is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.lab import USERS, Cluster, User, a_cluster, a_user, until
from image_archives import busybox, layout
from podwire.linux import cgroups
from podwire.linux.cgroups import Tree

Body = dict[str, Any]
ROOT = pytest.mark.parametrize("uid", [pytest.param(0, id="root")] if os.geteuid() == 0 else [], scope="module")


def load(user: User) -> None:
    user.podwire("image", "load", str(layout(busybox(), "shop/tool:1").write_tar(user.home / "tool.tar")))


@pytest.fixture(scope="module")
def lab(uid: int) -> Iterator[Cluster]:
    with a_user(uid) as user:
        load(user)
        manifest = user.home / "cluster.yaml"
        manifest.write_text("apiVersion: podwire.dev/v1alpha1\nkind: Cluster\nspec: {podPidsLimit: 40}\n")
        with a_cluster(user, "bounds", "--zones", "1", "--privileged", "-f", str(manifest)) as cluster:
            yield cluster
        assert places_of(user, "bounds") == []


def places_of(user: User, name: str) -> list[str]:
    """The cgroups that there are of clusters of this name, all users'."""
    machine = cgroups.read()
    found = []
    for controller in cgroups.CONTROLLERS:
        folder = f"{machine.mounts[controller]}{machine.own[controller].rstrip('/')}"
        found += [f"{folder}/{one}" for one in os.listdir(folder) if one.startswith(f"podwire-{name}-")]
    return found


def create(cluster: Cluster, name: str, *containers: Body, **spec: Any) -> None:
    body = {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **body}))


def container(name: str, script: str, image: str = "shop/tool:1", **more: Any) -> Body:
    return {"name": name, "image": image, "command": ["sh", "-c", script], **more}


def tree_of(cluster: Cluster) -> Tree:
    (node,) = [item["metadata"]["name"] for item in cluster.get("nodes")["items"]]
    words = json.loads((cluster.user.home / ".local/state/podwire" / cluster.name / "cgroups.json").read_text())
    found = Tree.from_words(words)
    assert found is not None
    return found.below(node)


def text(place: str) -> str:
    return Path(place).read_text().strip()


@ROOT
def test_containers_have_the_limits_that_they_ask_for(lab: Cluster) -> None:
    sleep = "exec sleep 100000"
    small = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}
    create(lab, "limited", container("image", sleep, resources=small), container("machine", sleep, "podwire.dev/machine", resources=small))
    create(lab, "free", container("main", sleep))
    lab.ready()
    tree = tree_of(lab)
    uid = lab.get("pod", "limited")["metadata"]["uid"]
    for name in ("image", "machine"):
        own = tree.below(f"{uid}/{name}-0")
        assert text(f"{own.folders['cpu']}/cpu.shares") == "256"
        assert text(f"{own.folders['cpu']}/cpu.cfs_quota_us") == "50000"
        assert text(f"{own.folders['memory']}/memory.limit_in_bytes") == str(64 << 20)
        inside = lab.kubectl("exec", "limited", "-c", name, "--", "sh", "-c", "cat /proc/1/cgroup /proc/self/cgroup").stdout
        for controller in cgroups.CONTROLLERS:
            assert inside.count(f":{controller}:") == 2
            for line in inside.splitlines():
                assert f":{controller}:" not in line or line.endswith(f"/{uid}/{name}-0"), line
        (pid,) = text(f"{own.folders['pids']}/cgroup.procs").split()
        assert b"sleep" in Path("/proc", pid, "cmdline").read_bytes()
    whole = tree.below(uid)
    assert text(f"{whole.folders['memory']}/memory.limit_in_bytes") == str(128 << 20)
    assert text(f"{whole.folders['cpu']}/cpu.cfs_quota_us") == "100000"
    other = lab.get("pod", "free")["metadata"]["uid"]
    free = tree.below(other).below("main-0")
    assert text(f"{free.folders['cpu']}/cpu.shares") == "2"
    assert text(f"{free.folders['cpu']}/cpu.cfs_quota_us") == "-1"
    lab.kubectl("delete", "pod", "limited", "free")
    lab.kubectl("wait", "pod", "--all", "--for=delete", "--timeout=60s")
    assert not {uid, other} & {one for place in tree.places() for one in os.listdir(place)}


@ROOT
def test_who_takes_more_memory_than_the_limit_is_ended_and_restarted(lab: Cluster) -> None:
    greedy = "a=x; while :; do a=$a$a; done"
    small = {"limits": {"memory": "24Mi"}}
    create(lab, "greedy", container("main", greedy, resources=small), container("beside", "exec sleep 100000", resources=small))

    def killed() -> Any:
        statuses = {one["name"]: one for one in lab.get("pod", "greedy")["status"].get("containerStatuses", [])}
        found = statuses.get("main", {})
        return found.get("restartCount", 0) >= 1 and found.get("lastState", {}).get("terminated") and statuses

    statuses = until(killed, "it is ended and begins anew")
    ended = statuses["main"]["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert statuses["beside"]["restartCount"] == 0
    assert "running" in statuses["beside"]["state"]
    create(lab, "once", container("main", greedy, "podwire.dev/machine", resources=small), restartPolicy="Never")
    until(lambda: lab.get("pod", "once")["status"]["phase"] == "Failed", "it is ended")
    ended = lab.get("pod", "once")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    # The same without a limit is ended by nobody.
    modest = "a=x; while [ ${#a} -lt 60000000 ]; do a=$a$a; done; echo enough"
    create(lab, "modest", container("main", modest), restartPolicy="Never")
    until(lambda: lab.get("pod", "modest")["status"]["phase"] == "Succeeded", "it has done")
    lab.kubectl("delete", "pod", "greedy", "once", "modest")


@ROOT
def test_processor_time_is_limited(lab: Cluster) -> None:
    busy = "while :; do :; done"
    create(lab, "busy", container("main", busy, resources={"limits": {"cpu": "100m"}}))
    lab.ready()
    folder = tree_of(lab).below(lab.get("pod", "busy")["metadata"]["uid"]).below("main-0").folders["cpu"]

    def stat() -> dict[str, int]:
        words = text(f"{folder}/cpu.stat").split()
        return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    # In each period it is stopped once it has had its part.
    found = until(lambda: (seen := stat())["nr_periods"] >= 20 and seen, "some periods are over")
    assert found["nr_throttled"] >= found["nr_periods"] // 2
    lab.kubectl("delete", "pod", "busy")


@ROOT
def test_a_resize_changes_the_limits_of_what_runs(lab: Cluster) -> None:
    create(lab, "grows", container("main", "exec sleep 100000", resources={"limits": {"cpu": "100m", "memory": "32Mi"}}))
    lab.ready()
    whole = tree_of(lab).below(lab.get("pod", "grows")["metadata"]["uid"])
    for cpu, memory in (("300m", 64), ("50m", 48)):
        wanted = {"limits": {"cpu": cpu, "memory": f"{memory}Mi"}, "requests": {"cpu": cpu, "memory": f"{memory}Mi"}}
        patch = json.dumps({"spec": {"containers": [{"name": "main", "resources": wanted}]}})
        lab.kubectl("patch", "pod", "grows", "--subresource=resize", "--patch", patch)
        quota = str(int(cpu.removesuffix("m")) * 100)
        for place in (whole, whole.below("main-0")):
            files = f"{place.folders['cpu']}/cpu.cfs_quota_us", f"{place.folders['memory']}/memory.limit_in_bytes"
            wanted_now = [quota, str(memory << 20)]
            until(lambda files=files, wanted=wanted_now: [text(one) for one in files] == wanted, f"it has {cpu} and {memory}Mi")
    assert lab.get("pod", "grows")["status"]["containerStatuses"][0]["restartCount"] == 0
    lab.kubectl("delete", "pod", "grows")


@ROOT
def test_processes_of_a_pod_are_limited(lab: Cluster) -> None:
    many = "i=0; while [ $i -lt 100 ]; do sleep 100000 & i=$((i+1)); done; echo all"
    create(lab, "many", container("main", many), container("beside", "exec sleep 100000"), restartPolicy="Never")
    until(lambda: "can't fork" in lab.kubectl("logs", "many", "-c", "main", status=None).stdout, "it has as many as it may have")
    folder = tree_of(lab).below(lab.get("pod", "many")["metadata"]["uid"]).folders["pids"]
    assert text(f"{folder}/pids.max") == "40"
    lab.kubectl("delete", "pod", "many")


@ROOT
def test_what_a_killed_cluster_leaves_the_next_up_takes_away(uid: int) -> None:
    with a_user(uid) as user:
        user.podwire("up", "--name", "torn", "--zones", "1", "--privileged")
        assert len(places_of(user, "torn")) == 3
        run = json.loads((user.home / ".local/state/podwire/torn/run.json").read_text())
        door = os.pidfd_open(run["door"]["pid"])
        signal.pidfd_send_signal(door, signal.SIGKILL)
        until(lambda: json.loads(user.podwire("list", "-o", "json").stdout)[0]["state"] == "kept", "it has ended")
        os.close(door)
        assert len(places_of(user, "torn")) == 3
        user.podwire("up", "--name", "torn")  # not asked for again
        assert places_of(user, "torn") == []
        user.podwire("down", "--name", "torn", "--keep")
        user.podwire("up", "--name", "torn", "--privileged")
        assert len(places_of(user, "torn")) == 3
        user.podwire("down", "--name", "torn", "--keep")
        assert places_of(user, "torn") == []
        user.podwire("down", "--name", "torn")


@pytest.mark.parametrize("uid", [pytest.param(USERS[-1], id="ordinary")])
def test_without_the_right_to_cgroups_one_line_says_so_and_nothing_is_made(uid: int) -> None:
    with a_user(uid) as user:
        refused: subprocess.CompletedProcess[str] = user.podwire("up", "--name", "none", "--privileged", status=1)
        (line,) = refused.stderr.splitlines()
        assert "--privileged: " in line
        assert "true root or a delegated cgroup" in line
        assert not (user.home / ".local").exists()
        found = {row["name"]: row for row in json.loads(user.podwire("doctor", "-o", "json", status=None).stdout)["findings"]}
        assert "not to be had" in found["cgroup limits"]["found"]
