"""pods-ready: a thousand stand-in Pods on ten nodes, from `podwire apply` to all ready; and three thousand on thirty.

``ready_s``: from the start of ``podwire apply`` of two Deployments and a Service to the moment at which the API counts every Pod as ready.
``total_mib``: the memory of all processes of the cluster then (PSS: what is shared is divided). ``kernel_mib``: what of the machine's
MemAvailable went beside that. ``writes_per_pod``: revisions of the API's store a Pod, Events included. ``cpu_s``: processor seconds of all
processes of the cluster meanwhile. ``ready_3000_s``: the first figure with 3,000 Pods on 30 nodes.

Proof: each Pod is Running and Ready by a list, every node has its share and no address is given twice; connections through the Service are
answered by many different Pods.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.cluster_up import REPOSITORY, podwire
from bench.report import Limit, Report
from podwire.client.api import Client

SIZES = ((1000, 10), (3000, 30))
DEPLOYMENTS = 2
LIMIT_S = 300.0
ASKED = 60
"""Connections through the Service."""
LEAST_ANSWERING = 20
"""Of so many Pods picked at random, far more than this answer at least once."""

_TICKS = os.sysconf("SC_CLK_TCK")


def manifest(pods: int) -> str:
    """Some Deployments that share the Pods evenly, and one Service of all of them."""
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "all"},
            "spec": {"selector": {"part": "crowd"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }
    ]
    for number in range(DEPLOYMENTS):
        labels = {"app": f"crowd-{number}", "part": "crowd"}
        container = {"name": "server", "image": "example.com/server", "ports": [{"containerPort": 8080}]}
        spec = {
            "replicas": pods // DEPLOYMENTS,
            "selector": {"matchLabels": {"app": f"crowd-{number}"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        documents.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"crowd-{number}"}, "spec": spec})
    return "\n---\n".join(json.dumps(document) for document in documents)  # JSON is YAML


def cluster(nodes: int) -> str:
    pool = {"name": "default-pool", "zones": ["us-central1-a", "us-central1-b"], "nodesPerZone": nodes // 2}
    return json.dumps({"apiVersion": "podwire.dev/v1alpha1", "kind": "Cluster", "spec": {"region": "us-central1", "nodePools": [pool]}})


def processes(home: Path) -> Iterator[Path]:
    """The folders in /proc of the cluster's processes, known by their home."""
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and f"HOME={home}\0".encode() in Path(entry.path, "environ").read_bytes():
                yield Path(entry.path)
        except OSError:
            continue


def pss_mib(home: Path) -> float:
    total = 0
    for folder in processes(home):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def cpu_s(home: Path) -> Counter[str]:
    """Processor seconds by the process's name."""
    used: Counter[str] = Counter()
    for folder in processes(home):
        try:
            name, _, fields = (folder / "stat").read_text().rpartition(")")
        except OSError:
            continue
        numbers = fields.split()
        used[_kind(name.partition("(")[2])] += (int(numbers[11]) + int(numbers[12])) / _TICKS
    return used


def _kind(name: str) -> str:
    """The kernel's short name without what all have: ``podwire node/NAME`` of each node is one row, ``node``."""
    return name.removeprefix("podwire ").partition("/")[0]


def available_mib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the kernel tells no MemAvailable")


async def until_ready(client: Client, pods: int) -> None:
    """Ask for the Deployments, a few bytes each, until they count all Pods as ready."""
    deadline = time.monotonic() + LIMIT_S
    ready = 0
    while time.monotonic() < deadline:
        found = json.loads(await client.request("GET", "/apis/apps/v1/namespaces/default/deployments"))["items"]
        ready = sum(one.get("status", {}).get("readyReplicas", 0) for one in found)
        if ready == pods:
            return
        await asyncio.sleep(0.05)
    raise SystemExit(f"{ready} of {pods} Pods are ready after {LIMIT_S:g} s")


async def revision(client: Client) -> int:
    """The store's: every write makes it one more."""
    return int(json.loads(await client.request("GET", "/api/v1/namespaces"))["metadata"]["resourceVersion"])


async def prove(client: Client, home: Path, pods: int, nodes: int) -> None:
    """Raise SystemExit unless the final state is what it should be."""
    found = json.loads(await client.request("GET", "/api/v1/namespaces/default/pods"))["items"]
    ready = [pod for pod in found if {"type": "Ready", "status": "True"}.items() <= _ready(pod).items()]
    if len(ready) != pods or len({pod["status"]["podIP"] for pod in ready}) != pods:
        raise SystemExit(f"{len(ready)} of {len(found)} Pods are ready, not {pods}, or two have one address")
    if len({pod["spec"]["nodeName"] for pod in ready}) != nodes:
        raise SystemExit("a node has no Pod")
    service = json.loads(await client.request("GET", "/api/v1/namespaces/default/services/all"))
    url = f"http://{service['spec']['clusterIP']}/"
    words = ["exec", f"pod/default/{ready[0]['metadata']['name']}", "--", "python3", str(REPOSITORY / "examples/fetch.py"), url, str(ASKED)]
    answers = [json.loads(line) for line in podwire(home, *words).splitlines()]
    known = {pod["metadata"]["name"] for pod in ready}
    answering = {answer["pod"]["name"] for answer in answers}
    if not answering <= known or len(answering) < LEAST_ANSWERING:
        raise SystemExit(f"{len(answering)} Pods answered {ASKED} connections through the Service")


def _ready(pod: dict[str, Any]) -> dict[str, str]:
    return next((one for one in pod["status"].get("conditions", ()) if one["type"] == "Ready"), {})


async def _fill(home: Path, pods: int, nodes: int, free_mib: float) -> dict[str, float]:
    async with Client.from_kubeconfig(str(home / ".kube/config")) as client:
        return await _measure(client, home, pods, nodes, free_mib)


async def _measure(client: Client, home: Path, pods: int, nodes: int, free_mib: float) -> dict[str, float]:
    file = home / "crowd.yaml"
    file.write_text(manifest(pods))
    before, worked = await revision(client), cpu_s(home)
    start = time.perf_counter()
    await asyncio.to_thread(podwire, home, "apply", "-f", str(file))
    applied = time.perf_counter()
    await until_ready(client, pods)
    figures = {"ready_s": time.perf_counter() - start, "apply_s": applied - start}
    after = await revision(client)
    spent = cpu_s(home) - worked
    await prove(client, home, pods, nodes)
    total = pss_mib(home)
    figures |= {"total_mib": total, "kernel_mib": free_mib - available_mib() - total, "writes_per_pod": (after - before) / pods}
    return figures | {"cpu_s": sum(spent.values())} | {f"cpu_{name}_s": used for name, used in spent.most_common()}


def one_size(pods: int, nodes: int) -> dict[str, float]:
    """Make a cluster, fill it, prove it, and take it down; gives what was seen."""
    with tempfile.TemporaryDirectory(prefix="podwire-bench-") as folder:
        home = Path(folder)
        free_mib = available_mib()
        (home / "cluster.yaml").write_text(cluster(nodes))
        podwire(home, "up", "-f", str(home / "cluster.yaml"))
        try:
            return asyncio.run(_fill(home, pods, nodes, free_mib))
        finally:
            podwire(home, "down")


def run() -> Report:
    """Run the benchmark."""
    rounds = [one_size(pods, nodes) for pods, nodes in SIZES]
    first, last = rounds
    chosen = ("ready_s", "total_mib", "kernel_mib", "writes_per_pod", "cpu_s")
    figures = {name: first[name] for name in chosen} | {"ready_3000_s": last["ready_s"]}
    samples = {name: [row.get(name, 0.0) for row in rounds] for name in first}
    limits = {"ready_s": Limit(most=10), "total_mib": Limit(most=1500)}
    return Report("pods-ready", figures, samples, {"pods": SIZES[0][0], "nodes": SIZES[0][1], "deployments": DEPLOYMENTS}, limits)
