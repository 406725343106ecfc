"""Nodes with names that a person chose."""

from __future__ import annotations

import json

from e2e.lab import User, a_cluster

SPEC = {"nodePools": [{"zones": ["us-central1-a"], "nodesPerZone": 2, "nodeNames": ["router", "leaf-1"]}]}


def test_nodes_are_called_what_the_specification_says(user: User) -> None:
    file = user.home / "cluster.yaml"
    file.write_text(json.dumps({"apiVersion": "podwire.dev/v1alpha1", "kind": "Cluster", "spec": SPEC}))
    file.chmod(0o644)
    with a_cluster(user, "named", "-f", str(file)) as cluster:
        cluster.kubectl("wait", "node", "router", "leaf-1", "--for=condition=Ready", "--timeout=60s")
        assert len(cluster.get("nodes")["items"]) == 2
        cluster.kubectl("run", "here", "--image=nginx", "--overrides", json.dumps({"spec": {"nodeName": "leaf-1"}}))
        cluster.kubectl("wait", "pod/here", "--for=condition=Ready", "--timeout=60s")
        assert cluster.kubectl("exec", "here", "--", "hostname").stdout == "here\n"  # the kubelet's certificate is that of the name
        assert cluster.exec("node/leaf-1", "hostname").returncode == 0
        user.podwire("node", "stop", "router", "--name", "named")
        user.podwire("node", "start", "router", "--name", "named")
        cluster.podwire("down", "--keep")
        user.podwire("up", "--name", "named")
        assert sorted(one["metadata"]["name"] for one in cluster.get("nodes")["items"]) == ["leaf-1", "router"]
        cluster.kubectl("wait", "pod/here", "--for=condition=Ready", "--timeout=60s")
