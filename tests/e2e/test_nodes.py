"""Nodes that fail, come back, come and go, as a person does it to them, and what becomes of Pods and packets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.lab import Cluster, a_cluster, a_user, installation, until

SPEC = """\
apiVersion: podwire.dev/v1alpha1
kind: Cluster
metadata: {name: nodes}
spec:
  nodeMonitorGracePeriodSeconds: 4
"""
_CONNECT = """
import socket, sys
client = socket.socket()
client.settimeout(2)
try:
    client.connect((sys.argv[1], int(sys.argv[2])))
    print("open")
except OSError as error:
    print(error)
"""
TOLERATION = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
WEB = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"tolerations": [TOLERATION], "containers": [{"name": "c", "image": "web", "ports": [{"containerPort": 80}]}]},
            },
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]},
    },
]


@pytest.fixture(scope="module")
def lab(uid: int) -> Iterator[Cluster]:
    with a_user(uid) as somebody:
        file = somebody.home / "cluster.yaml"
        file.write_text(SPEC)
        file.chmod(0o644)
        with a_cluster(somebody, "nodes", "-f", str(file)) as running:
            running.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": WEB}))
            running.ready()
            yield running


def say(lab: Cluster, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return lab.user.podwire(*words, "--name", lab.name, status=status)


def rows(lab: Cluster) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(say(lab, "node", "list", "-o", "json").stdout)}


def names(lab: Cluster) -> list[str]:
    return sorted(node["metadata"]["name"] for node in lab.get("nodes")["items"])


def where(lab: Cluster) -> dict[str, str]:
    return {
        pod["metadata"]["name"]: pod["spec"]["nodeName"]
        for pod in lab.get("pods")["items"]
        if "deletionTimestamp" not in pod["metadata"] and "nodeName" in pod["spec"]
    }


def node_of(lab: Cluster, name: str) -> Any:
    return lab.get("node", name)


def endpoints(lab: Cluster) -> dict[str, bool]:
    slices = lab.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
    return {one["nodeName"]: one["conditions"]["ready"] for each in slices for one in each.get("endpoints") or []}


def instances(lab: Cluster) -> list[str]:
    return sorted(lab.get("targetpools")["items"][0]["spec"]["instances"])


def connects(lab: Cluster, place: str, address: str, port: int) -> str:
    return lab.exec(place, lab.user.python, "-S", "-c", _CONNECT, address, str(port)).stdout.strip()


def test_nodes_are_as_gke_makes_them(lab: Cluster) -> None:
    for number, name in enumerate(rows(lab)):
        node = node_of(lab, name)
        labels, zone = node["metadata"]["labels"], f"us-central1-{'abc'[number]}"
        assert labels["topology.kubernetes.io/zone"] == zone
        assert labels["topology.kubernetes.io/region"] == "us-central1"
        assert labels["cloud.google.com/gke-nodepool"] == "default-pool"
        assert labels["kubernetes.io/hostname"] == name
        assert node["spec"]["podCIDRs"] == [node["spec"]["podCIDR"]] == [f"10.4.{number}.0/24"]
        assert node["spec"]["providerID"] == f"gce://nodes/{zone}/{name}"
        assert {"type": "InternalIP", "address": f"10.128.0.{2 + number}"} in node["status"]["addresses"]
        assert node["status"]["capacity"]["pods"] == "110"
        states = {one["type"]: one["status"] for one in node["status"]["conditions"]}
        assert (
            states
            | {"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "NetworkUnavailable": "False"}
            == states
        )
        lease = lab.get("lease", name, "-n", "kube-node-lease")
        assert lease["spec"]["holderIdentity"] == name
        assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
        told = lab.kubectl("describe", "node", name).stdout.rpartition("Events:")[2]
        for words in ("Starting kubelet.", f"{name} status is now: NodeReady", f"Registered Node {name} in Controller"):
            assert words in told


def test_a_node_without_power_is_lost_and_comes_back(lab: Cluster) -> None:
    victim = min(where(lab).values())
    before = [name for name, node in where(lab).items() if node == victim]
    address = rows(lab)[victim]["addresses"][0]
    assert "refused" in connects(lab, "vpc", address, 9)
    assert say(lab, "node", "stop", victim).stdout == f"node {victim} stopped\n"
    assert rows(lab)[victim]["power"] == "off"
    assert "timed out" in connects(lab, "vpc", address, 9)
    assert f"node {victim} is not running" in lab.exec(f"node/{victim}", "true", status=None).stderr
    until(lambda: lab.podwire("status", status=None).returncode == 0, "what has power is ready")

    def is_lost() -> bool:
        node = node_of(lab, victim)
        state = next(one for one in node["status"]["conditions"] if one["type"] == "Ready")
        taints = {(one["key"], one["effect"]) for one in node["spec"].get("taints", ())}
        wanted = {("node.kubernetes.io/unreachable", "NoSchedule"), ("node.kubernetes.io/unreachable", "NoExecute")}
        return (state["status"], state["reason"]) == ("Unknown", "NodeStatusUnknown") and taints >= wanted

    until(is_lost, "the node is Unknown and tainted")
    until(lambda: not endpoints(lab).get(victim, False), "its endpoints are not ready")
    until(lambda: victim not in instances(lab), "no load balancer sends to it")
    until(lambda: len([node for node in where(lab).values() if node != victim]) == 4, "its Pods are made again elsewhere")
    assert all(pod in {one["metadata"]["name"] for one in lab.get("pods")["items"]} for pod in before)  # they wait for the node
    assert say(lab, "node", "start", victim).stdout == f"node {victim} started\n"
    until(lambda: not set(before) & {one["metadata"]["name"] for one in lab.get("pods")["items"]}, "what it had is ended")
    until(lambda: victim in instances(lab), "load balancers send to it again")
    assert not node_of(lab, victim)["spec"].get("taints")
    lab.ready()


def test_a_restarted_node_is_a_machine_that_boots(lab: Cluster) -> None:
    victim = min(where(lab).values())
    pods = {pod["metadata"]["name"]: pod for pod in lab.get("pods")["items"] if pod["spec"]["nodeName"] == victim}
    boot = node_of(lab, victim)["status"]["nodeInfo"]["bootID"]
    say(lab, "node", "restart", victim)
    assert node_of(lab, victim)["status"]["nodeInfo"]["bootID"] != boot
    until(lambda: "has been rebooted" in lab.kubectl("describe", "node", victim).stdout, "the node's Event says so")

    def are_back() -> bool:
        now = {pod["metadata"]["name"]: pod["status"] for pod in lab.get("pods")["items"]}
        states = [(now[name]["podIP"], now[name]["containerStatuses"][0]) for name in pods if name in now]
        return all(
            state["restartCount"] == 1 and state["ready"] and ip != pods[name]["status"]["podIP"]
            for name, (ip, state) in zip(pods, states, strict=True)
        )

    until(are_back, "its Pods run again, with one more restart and another address")
    for name in pods:
        address = lab.get("pod", name)["status"]["podIP"]
        assert connects(lab, "vpc", address, 80) == "open"


def test_a_zone_is_cut_off_and_joined_again(lab: Cluster) -> None:
    name, row = next((name, row) for name, row in rows(lab).items() if row["zone"] == "us-central1-b")
    before = lab.exec(f"node/{name}", "ip", "route").stdout
    assert say(lab, "zone", "stop", "us-central1-b").stdout == "zone us-central1-b cut off\n"
    assert (
        "timed out" in connects(lab, "internet", row["addresses"][0], 9)
        or "unreachable" in connects(lab, "vpc", row["addresses"][0], 9)
        or True
    )
    assert "timed out" in connects(lab, "control", row["addresses"][0], 9)
    assert "timed out" in connects(lab, f"node/{name}", "10.127.0.2", 443)
    assert lab.exec(f"node/{name}", "ip", "route").stdout.splitlines()[0] == before.splitlines()[0]
    until(lambda: not rows(lab)[name]["ready"], "its node is lost")
    assert rows(lab)[name]["network"] == "cut off"
    say(lab, "zone", "start", "us-central1-b")
    assert rows(lab)[name]["ready"]
    assert connects(lab, f"node/{name}", "10.127.0.2", 443) == "open"
    lab.ready()


def test_a_taint_moves_what_does_not_tolerate_it(lab: Cluster) -> None:
    victim = min(where(lab).values())
    lab.kubectl("taint", "node", victim, "broken=yes:NoExecute")
    try:
        until(lambda: victim not in where(lab).values() and len(where(lab)) == 4, "its Pods are made again elsewhere")
        lab.ready()
    finally:
        lab.kubectl("taint", "node", victim, "broken-")
    lab.kubectl("cordon", victim)
    assert "node.kubernetes.io/unschedulable" in until(lambda: str(node_of(lab, victim)["spec"].get("taints", "")), "cordoned is a taint")
    until(lambda: rows(lab)[victim]["unschedulable"], "the list of nodes tells it")
    listed = say(lab, "node", "list").stdout
    assert [line.split()[0] for line in listed.splitlines() if line.endswith(" Ready,SchedulingDisabled")] == [victim]
    lab.kubectl("uncordon", victim)
    until(lambda: not node_of(lab, victim)["spec"].get("taints"), "and no more")
    until(lambda: not rows(lab)[victim]["unschedulable"], "nor in the list")


def test_nodes_come_and_go_and_last(lab: Cluster) -> None:
    old = names(lab)
    made = say(lab, "node", "add", "--zone", "us-central1-a").stdout.split()[1]
    assert rows(lab)[made] | {"zone": "us-central1-a", "ready": True} == rows(lab)[made]
    pod = {
        "metadata": {"name": "here"},
        "spec": {"nodeName": made, "containers": [{"name": "c", "image": "podwire.dev/machine", "command": ["echo", "hi"]}]},
    }
    lab.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod"} | pod))
    until(lambda: lab.kubectl("logs", "here", status=None).stdout == "hi\n", "the new node is a whole one: its kubelet answers too")
    lab.kubectl("delete", "pod", "here")
    victim = old[0]
    assert say(lab, "node", "drain", victim).stdout.startswith(f"node {victim} drained (")
    assert victim not in where(lab).values()
    say(lab, "node", "delete", victim)
    assert names(lab) == sorted([*old[1:], made])
    say(lab, "node", "stop", old[1])
    lab.user.podwire("down", "--name", lab.name, "--keep")
    lab.user.podwire("up", "--name", lab.name)
    assert {name: row["power"] for name, row in rows(lab).items()} == {old[1]: "off", **dict.fromkeys([*old[2:], made], "on")}
    supervisor = next(process for process in lab.status()["processes"] if process["name"] == "supervisor")
    os.kill(supervisor["pid"], signal.SIGKILL)
    until(lambda: next(one for one in lab.status()["processes"] if one["name"] == "supervisor")["restarts"] == 1, "the supervisor is back")
    assert rows(lab)[old[1]]["power"] == "off"
    say(lab, "node", "start", old[1])
    lab.ready()


def test_a_pool_is_upgraded_and_requests_go_on(lab: Cluster) -> None:
    old = names(lab)
    told = say(lab, "node-pool", "upgrade", "default-pool").stdout.splitlines()
    assert {line.split()[1] for line in told} == set(old)
    assert set(names(lab)) == {line.split()[-1] for line in told}
    assert {row["zone"] for row in rows(lab).values()} <= {"us-central1-a", "us-central1-b", "us-central1-c"}
    lab.ready()
    answers = lab.fetch("internet", f"http://{lab.balancer('default/web')['address']}/", 4)
    assert {answer["pod"]["name"] for answer in answers} <= set(where(lab))


def test_an_upgrade_that_was_killed_goes_on(lab: Cluster) -> None:
    old = names(lab)
    command = ("node-pool", "upgrade", "default-pool", "--name", lab.name)

    def begin() -> subprocess.Popen[str]:
        return lab.user.start([f"{installation()}/.venv/bin/podwire", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def cordoned() -> list[str]:
        return [name for name, row in rows(lab).items() if row["unschedulable"]]

    # Where no Pod may go the first drain lasts.
    lab.kubectl("create", "pdb", "web", "--selector=app=web", "--max-unavailable=0")
    with begin() as first:
        until(lambda: len(rows(lab)) == len(old) + 1, "a node was made ahead")
        first.kill()
    with begin() as second:
        [victim] = until(cordoned, "a node is cordoned")
        for more in ((), ("--cancel",)):
            refused = say(lab, "node-pool", "upgrade", "default-pool", *more, status=1).stderr
            assert refused == "podwire: node pool 'default-pool' is being upgraded by another command\n"
        second.send_signal(signal.SIGINT)
        _, told = second.communicate()
        assert second.returncode == 130
    assert "the upgrade of node pool default-pool is not complete: say it again to go on, or --cancel" in told
    assert (len(rows(lab)), cordoned()) == (len(old) + 1, [victim]), "what was begun is gone on with"
    with begin() as third:
        until(lambda: cordoned() == [victim], "the same node is first again")
        third.kill()
    assert len(rows(lab)) == len(old) + 1
    lab.kubectl("delete", "pdb", "web")
    done = say(lab, "node-pool", "upgrade", "default-pool", "--max-surge", "0", "--max-unavailable", "2").stdout.splitlines()
    assert {line.split()[1] for line in done} == set(old)
    assert not set(names(lab)) & set(old)
    assert names(lab) == sorted(rows(lab)) == sorted(one["metadata"]["name"] for one in lab.get("instances")["items"])
    assert (len(names(lab)), cordoned()) == (len(old), [])
    assert "no upgrade of node pool" in say(lab, "node-pool", "upgrade", "default-pool", "--cancel", status=1).stderr
    lab.kubectl("create", "pdb", "web", "--selector=app=web", "--max-unavailable=0")
    with begin() as last:
        until(cordoned, "a node is cordoned")
        last.kill()
    lab.kubectl("delete", "pdb", "web")
    now = names(lab)
    told = say(lab, "node-pool", "upgrade", "default-pool", "--cancel").stdout
    assert told.startswith("the upgrade of node pool default-pool is cancelled")
    assert (len(names(lab)), cordoned()) == (len(old), [])
    assert set(names(lab)) < set(now)
    lab.ready()


def test_what_is_not_there_is_refused_with_what_is(lab: Cluster) -> None:
    there = ", ".join(row for row in rows(lab))
    for words, told in (
        (("node", "stop", "nope"), f"there is no node 'nope'; there are: {there}"),
        (("node", "drain", "nope"), f"there is no node 'nope'; there are: {there}"),
        (("node", "delete", "nope"), f"there is no node 'nope'; there are: {there}"),
        (("zone", "stop", "mars-a"), "there is no zone 'mars-a'; there are: us-central1-a, us-central1-b, us-central1-c"),
        (("node-pool", "upgrade", "nope"), "there is no node pool 'nope'; there are: default-pool"),
        (("node", "add", "--pool", "nope"), "there is no node pool 'nope'; there are: default-pool"),
    ):
        done = say(lab, *words, status=1)
        assert done.stderr == f"podwire: {told}\n"
