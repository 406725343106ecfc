"""A cluster's life: up, a second up, down, kept and brought back, killed at any moment; and nothing left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from e2e.lab import Cluster, User, a_cluster, installation, processes_of, traces_of, until


def test_up_and_down_leave_nothing_behind(user: User) -> None:
    before = traces_of(user)
    user.podwire("up")
    config = user.home / ".kube/config"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert yaml.safe_load(config.read_text())["current-context"] == "podwire-podwire"
    assert len(user.run(["kubectl", "get", "nodes", "--no-headers"]).stdout.splitlines()) == 3
    state = user.home / ".local/state/podwire"
    assert stat.S_IMODE((state / "podwire").stat().st_mode) == 0o700
    for path in (state / "podwire").rglob("*"):
        # A link has no mode of its own; files that users of containers read have those that they need, and nobody else gets to them.
        seen = {"volumes", "termination", "pods-shared", "hosts", "hostname", "nsswitch.conf", "resolv.conf"} & set(path.parts)
        if path.is_file() and not path.is_symlink() and not seen:
            assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, f"{path} can be read by others"
    second = user.podwire("up", status=1)
    assert 'cluster "podwire" is already running' in second.stderr
    user.podwire("down")
    after = traces_of(user)
    after["files"] = [file for file in after["files"] if not file.startswith((".kube", ".local/state"))]
    kept = {str(path) for path in user.home.rglob("*") if path.is_file() and ".kube/cache" not in str(path)}
    assert after == before
    assert kept == set()


def test_down_of_an_unknown_cluster(user: User) -> None:
    refused = user.podwire("down", "--name", "nowhere", status=1)
    assert "nowhere" in refused.stderr


def test_several_clusters_live_side_by_side(user: User) -> None:
    with a_cluster(user, "one", "--zones", "1"), a_cluster(user, "two", "--zones", "2") as two:
        listed = user.podwire("list").stdout
        assert "one" in listed
        assert "two" in listed
        assert len(two.get("nodes")["items"]) == 2
        user.podwire("down", "--name", "one")
        assert len(two.get("nodes")["items"]) == 2


def test_a_kept_cluster_comes_back(user: User) -> None:
    user.podwire("up", "--name", "kept")
    cluster = Cluster(user, "kept")
    cluster.podwire("apply", "-f", f"{installation()}/examples/page")
    cluster.ready()
    before = cluster.balancer("default/frontend")

    def facts() -> object:
        services = {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in cluster.get("services")["items"]}
        nodes = {item["metadata"]["name"]: item["status"]["addresses"][0]["address"] for item in cluster.get("nodes")["items"]}
        return services, nodes, cluster.status()["apiServer"], cluster.podwire("kubeconfig").stdout

    known = facts()
    pods = {pod["metadata"]["uid"] for pod in cluster.get("pods")["items"]}
    user.podwire("down", "--name", "kept", "--keep")
    assert processes_of(user) == []
    user.podwire("up", "--name", "kept")
    cluster.ready()
    assert facts() == known
    assert {pod["metadata"]["uid"] for pod in cluster.get("pods")["items"]} == pods
    after = cluster.balancer("default/frontend")
    assert after["address"] == before["address"]
    assert cluster.fetch("internet", f"http://{after['address']}/", 5)[-1]["pod"]["name"].startswith("frontend-")
    [answer] = cluster.fetch("pod/default/client", "http://users:8080/")
    assert answer["pod"]["name"].startswith("users-")
    user.podwire("down", "--name", "kept")


def test_a_port_in_use_is_named(user: User, tmp_path: Path) -> None:
    user.podwire("up", "--zones", "1")
    port = int(json.loads(user.podwire("status", "-o", "json").stdout)["apiServer"].rsplit(":", 1)[1])
    user.podwire("down", "--keep")
    with socket.create_server(("127.0.0.1", port)):
        refused = user.podwire("up", status=1)
        assert f"port {port} of 127.0.0.1" in refused.stderr
        assert "in use" in refused.stderr
        assert processes_of(user) == []
    user.podwire("up")
    user.podwire("down")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("spec: {ranges: {pods: 10.4.0.0/23}}", "cluster.yaml:3: spec.ranges.pods: 10.4.0.0/23 has room for 2 nodes"),
        ("spec: {ranges: {pods: 10.128.0.0/16}}", "cluster.yaml:3: spec.ranges.pods: 10.128.0.0/16 overlaps spec.ranges.nodes"),
        ("spec: {region: 7}", "cluster.yaml:3: spec.region: expected `str`, got `int`"),
    ],
)
def test_a_wrong_specification_changes_nothing(user: User, spec: str, message: str) -> None:
    file = user.home / "cluster.yaml"
    file.write_text(f"apiVersion: podwire.dev/v1alpha1\nkind: Cluster\n{spec}\n")
    before = traces_of(user)
    assert message in user.podwire("up", "-f", str(file), status=2).stderr
    assert traces_of(user) == before


def test_without_user_namespaces_it_says_why(user: User) -> None:
    # In a user namespace of its own, the limit can be set for what is below without touching the machine's.
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "-Ur", "sh", "-c", script, "sh", f"{installation()}/.venv/bin/podwire"]
    refused = user.run([*command, "up"], status=1)
    assert "max_user_namespaces" in refused.stderr
    assert "Traceback" not in refused.stderr
    examined = user.run([*command, "doctor"], status=1)
    assert "max_user_namespaces" in examined.stdout
    left = traces_of(user)
    assert left["processes"] == []
    assert [file for file in left["files"] if file.startswith(".local/state/podwire/")] == []


@pytest.mark.parametrize("word", ["up", "down"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_interrupted_at_any_moment_nothing_is_half_made(user: User, word: str, how: signal.Signals) -> None:
    moments = random.Random(20261123)
    command = [f"{installation()}/.venv/bin/podwire", word, "--name", "cut", *(["--zones", "1"] if word == "up" else [])]
    for _ in range(4):
        if word == "down":
            user.podwire("up", "--name", "cut", "--zones", "1")
        with user.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            wait_s = moments.uniform(0.02, 1.2 if word == "up" else 0.3)
            with_limit = time.monotonic() + wait_s
            while running.poll() is None and time.monotonic() < with_limit:
                os.sched_yield()
            running.send_signal(how)
            running.wait(30)
        whole = user.podwire("status", "--name", "cut", status=None).returncode == 0
        if not whole:
            until(lambda: processes_of(user) == [], "everything gone")
            user.podwire("list")  # removes rubble, if a kill left some
            assert list((user.home / ".local/state").rglob("*")) == []
            config = user.home / ".kube/config"
            assert not config.exists() or "podwire-cut" not in config.read_text()
        else:
            user.podwire("down", "--name", "cut")
        assert processes_of(user) == []


def test_the_demo_proves_itself_and_leaves_nothing_even_when_it_fails(user: User) -> None:
    shown = user.run([user.python, "tools/demo.py"], environment={"DOWN": "1"}).stdout
    assert (shown.count("✔"), shown.count("✘")) == (7, 0)
    assert processes_of(user) == []
    user.podwire("up", "--zones", "1")
    other = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": {"containers": [{"name": "other", "image": "x"}]}}'
    user.podwire("apply", "-f", "-", stdin=other)
    assert "is deleted" in user.run([user.python, "tools/demo.py"], environment={"DOWN": "1"}, status=1).stdout
    assert processes_of(user) == []
