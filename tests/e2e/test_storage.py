"""Claims as a person meets them: data outlives Pods and `down --keep`, a StatefulSet finds its own again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.lab import Cluster, a_user, until


@pytest.fixture(scope="module")
def own(uid: int) -> Iterator[Cluster]:
    """A cluster that may be kept and taken up again."""
    with a_user(uid) as somebody:
        shared = somebody.home / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        file = somebody.home / "cluster.yaml"
        file.write_text(f"apiVersion: podwire.dev/v1alpha1\nkind: Cluster\nspec: {{hostPaths: [{shared}]}}\n")
        file.chmod(0o644)
        somebody.podwire("up", "--name", "kept", "-f", str(file), "--zones", "2")
        try:
            yield Cluster(somebody, "kept")
        finally:
            somebody.podwire("down", "--name", "kept", status=None)


def pod(name: str, script: str, **volumes: dict[str, Any]) -> str:
    mounts = [{"name": volume, "mountPath": f"/{volume}"} for volume in volumes]
    container = {"name": "c", "image": "podwire.dev/machine", "command": ["sh", "-c", script], "volumeMounts": mounts}
    spec = {
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": volume, **source} for volume, source in volumes.items()],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


CLAIM = json.dumps(
    {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
)
SET = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: podwire.dev/machine
        command: [sh, -c, "hostname >> /data/starts; exec sleep 100000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
SLEEP = "exec sleep 100000"


def wait(cluster: Cluster, name: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def text(cluster: Cluster, name: str, path: str) -> str:
    return cluster.kubectl("exec", name, "--", "cat", path, status=None).stdout


def test_a_claim_survives_its_pod_and_the_cluster_that_is_kept(own: Cluster) -> None:
    claim = {"persistentVolumeClaim": {"claimName": "data"}}
    own.kubectl("create", "-f", "-", stdin=pod("writer", f"echo written > /v/file; {SLEEP}", v=claim))
    missing = 'persistentvolumeclaim "data" not found'
    until(lambda: missing in own.kubectl("describe", "pod", "writer").stdout, "the scheduler says what is missing")
    own.kubectl("create", "-f", "-", stdin=CLAIM)
    own.kubectl("create", "-f", "-", stdin=SET)
    wait(own, "writer")
    own.kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    row = own.kubectl("get", "pvc", "data", "--no-headers").stdout.split()
    assert (row[1], row[3], row[4], row[5]) == ("Bound", "1Gi", "RWO", "standard-rwo")
    volumes = own.user.home / ".local/state/podwire/kept/volumes"
    assert (volumes / row[2] / "file").read_text() == "written\n"
    assert {path.stat().st_mode & 0o777 for path in (volumes, volumes / row[2])} == {0o700}

    # A Pod on another node finds it; it may not write where it is told not to.
    node = own.get("pod", "writer")["spec"]["nodeName"]
    own.kubectl("cordon", node)
    own.kubectl("delete", "pod", "writer", "db-0", "db-1")
    read_only = {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
    own.kubectl("create", "-f", "-", stdin=pod("reader", f"echo more > /w/file || echo refused; {SLEEP}", w=read_only))
    wait(own, "reader")
    own.kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    assert own.get("pod", "reader")["spec"]["nodeName"] != node
    assert text(own, "reader", "/w/file") == "written\n"
    assert "refused" in own.kubectl("logs", "reader").stdout
    own.kubectl("uncordon", node)
    assert [text(own, f"db-{number}", "/data/starts") for number in (0, 1)] == ["db-0\ndb-0\n", "db-1\ndb-1\n"]

    own.user.podwire("down", "--name", "kept", "--keep")
    assert (volumes / row[2] / "file").read_text() == "written\n"
    own.user.podwire("up", "--name", "kept")
    # What the API keeps says that they are ready until their nodes have looked at them again.
    until(lambda: text(own, "reader", "/w/file") == "written\n", "the claim is there again")
    until(lambda: text(own, "db-0", "/data/starts") == "db-0\n" * 3, "the set goes on with its data")

    # A claim in use stays; with its last Pod it goes, and its directory with it.
    own.kubectl("delete", "pvc", "data", "--wait=false")
    assert own.kubectl("get", "pvc", "data", "--no-headers").stdout.split()[1] == "Terminating"
    own.kubectl("delete", "pod", "reader")
    until(lambda: not (volumes / row[2]).exists(), "the directory is gone")
    until(lambda: row[2] not in own.kubectl("get", "pv", "-o", "name").stdout, "the volume is gone")
    own.kubectl("scale", "statefulset/db", "--replicas=1")
    own.kubectl("wait", "--for=delete", "pod/db-1", "--timeout=60s")
    assert len(own.get("pvc")["items"]) == 2


def test_the_machine_is_seen_only_where_the_cluster_lets_it(own: Cluster) -> None:
    shared = Path(own.user.home, "shared")
    host = {"hostPath": {"path": f"{shared}/made", "type": "DirectoryOrCreate"}}
    own.kubectl("create", "-f", "-", stdin=pod("sees", f"echo here > /h/file; {SLEEP}", h=host))
    own.kubectl("create", "-f", "-", stdin=pod("refused", SLEEP, h={"hostPath": {"path": "/etc"}}))
    wait(own, "sees")
    assert (shared / "made/file").read_text() == "here\n"
    words = "hostPath /etc lies below no folder that the cluster may use"
    until(lambda: words in own.kubectl("describe", "pod", "refused").stdout, "the node says why")


def test_a_claim_of_one_pod_is_had_by_one_at_a_time(own: Cluster) -> None:
    spec = {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "alone"}, "spec": spec}
    own.kubectl("create", "-f", "-", stdin=json.dumps(claim))
    volumes = {"persistentVolumeClaim": {"claimName": "alone"}}
    own.kubectl("create", "-f", "-", stdin=pod("first", f"echo first > /v/file; {SLEEP}", v=volumes))
    wait(own, "first")
    assert own.kubectl("get", "pvc", "alone", "--no-headers").stdout.split()[4] == "RWOP"
    own.kubectl("create", "-f", "-", stdin=pod("second", SLEEP, v=volumes))
    words = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    until(lambda: words in own.kubectl("describe", "pod", "second").stdout, "the scheduler says why")
    # Whoever is put on the node past the scheduler is refused by the node.
    placed = json.loads(pod("placed", SLEEP, v=volumes))
    placed["spec"]["nodeName"] = own.get("pod", "first")["spec"]["nodeName"]
    own.kubectl("create", "-f", "-", stdin=json.dumps(placed))
    words = "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
    until(lambda: words in own.kubectl("describe", "pod", "placed").stdout, "the node says why")
    own.kubectl("delete", "pod", "placed")
    own.kubectl("delete", "pod", "first")
    wait(own, "second")
    assert text(own, "second", "/v/file") == "first\n"
    own.kubectl("delete", "pod/second", "pvc/alone")


def test_a_set_has_its_data_again_when_a_node_is_lost(own: Cluster) -> None:
    wait_for_set = ("rollout", "status", "statefulset/lost", "--timeout=60s")
    own.kubectl(
        "create", "-f", "-", stdin=SET.replace("db", "lost").replace("replicas: 2", "replicas: 1").replace("Seconds: 0", "Seconds: 9")
    )
    own.kubectl(*wait_for_set)
    node = own.get("pod", "lost-0")["spec"]["nodeName"]
    volume = own.get("pvc", "data-lost-0")["spec"]["volumeName"]
    own.user.podwire("node", "stop", node, "--name", own.name)
    try:
        own.kubectl("cordon", node)
        own.kubectl("delete", "pod", "lost-0", "--wait=false")  # nobody there hears of it
        assert own.get("pod", "lost-0")["metadata"].get("deletionTimestamp")
        own.kubectl("delete", "pod", "lost-0", "--force", "--grace-period=0")  # a person knows that the machine is gone
        own.kubectl(*wait_for_set)
        assert own.get("pod", "lost-0")["spec"]["nodeName"] != node
        assert own.get("pvc", "data-lost-0")["spec"]["volumeName"] == volume
        assert text(own, "lost-0", "/data/starts") == "lost-0\n" * 2
    finally:
        own.user.podwire("node", "start", node, "--name", own.name)
        own.kubectl("uncordon", node)
    own.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=60s")
    assert text(own, "lost-0", "/data/starts") == "lost-0\n" * 2  # what was there before does not begin again
