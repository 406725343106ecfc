"""rollout: Deployments are rolled over again and again under load through their Service; how many requests are lost.

Clients in Pods on different nodes ask a ClusterIP as fast as they can, half of them over connections that they keep open, half over a
new connection for each request. Meanwhile the Deployment gets one new template after the other, as ``kubectl rollout restart`` does it:
new Pods with a readiness probe come, old ones with a preStop hook go. A client asks nothing a second time: ``lost_requests`` of at least
20,000 ``requests``, at least half of them ``kept_open``.

Proof: every rollout was completed, Pods of every one of them have answered, and at the end those of the last one alone do.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.cluster_up import NAME, REPOSITORY, podwire
from bench.report import Limit, Report
from podwire.client.api import Client
from podwire.objects.resources import DEPLOYMENTS, PODS, SERVICES

REQUESTS, REPLICAS, ROLLOUTS = 20_000, 6, 2
CLIENT_PODS = ("client-a", "client-b")
LIMIT_S = 120.0
LABELS = {"app": "web"}


def manifest() -> str:
    """The Deployment with readiness and preStop, its Service, and the Pods of the clients."""
    server = {
        "name": "server",
        "image": "example.com/server",
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [server], "terminationGracePeriodSeconds": 10}}
    spec = {"replicas": REPLICAS, "selector": {"matchLabels": LABELS}, "strategy": strategy, "template": template}
    service = {"selector": LABELS, "ports": [{"port": 80, "targetPort": 8080}]}
    documents: list[dict[str, Any]] = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
    ]
    for name in CLIENT_PODS:
        containers = [{"name": "client", "image": "example.com/client"}]
        documents.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}})
    return "\n---\n".join(json.dumps(document) for document in documents)  # JSON is YAML


class _Load:
    """One client, running in a Pod."""

    def __init__(self, process: asyncio.subprocess.Process, mode: str) -> None:
        self.process, self.mode, self.asked = process, mode, 0
        self.result: dict[str, Any] = {}
        self.news = asyncio.Event()
        self.reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, home: Path, pod: str, address: str, mode: str) -> _Load:
        client = ["python3", str(REPOSITORY / "bench/rollout_client.py"), address, "80", mode]
        words = [sys.executable, "-m", "podwire", "exec", "--name", NAME, f"pod/default/{pod}", "--", *client]
        pipe = asyncio.subprocess.PIPE
        environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
        return cls(await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=environment), mode)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.startswith(b"{"):
                self.result = json.loads(line)
            else:
                self.asked = int(line)
                self.news.set()

    async def more(self, requests: int) -> None:
        """Wait until it has asked so many more."""
        enough = self.asked + requests
        while self.asked < enough and not self.reading.done():
            self.news.clear()
            await asyncio.wait({asyncio.create_task(self.news.wait()), self.reading}, return_when=asyncio.FIRST_COMPLETED)

    async def end(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.reading
        if await self.process.wait() or not self.result:
            raise SystemExit("a client has failed")
        return self.result


async def _rolled_over(client: Client, number: int) -> set[str]:
    """Give the Deployment its next template and wait until its Pods are all that is left; gives their names."""
    annotations = {"kubectl.kubernetes.io/restartedAt": str(number)}
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}} if number else {}
    await client.patch(DEPLOYMENTS, "web", "default", patch, kind="strategic")
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        tree = await client.get_tree(DEPLOYMENTS, "web", "default")
        status = tree.get("status", {})
        counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")]
        if counts == [REPLICAS] * 4 and status.get("observedGeneration") == tree["metadata"]["generation"]:
            pods = await client.list(PODS, "default", labels="app=web")
            if len(pods) == REPLICAS:
                return {pod.name for pod in pods}
        await asyncio.sleep(0.05)
    raise SystemExit(f"rollout {number} is not complete after {LIMIT_S:g} s")


async def _measure(home: Path) -> dict[str, float]:
    async with Client.from_kubeconfig(str(home / ".kube/config")) as client:
        before = await _rolled_over(client, 0)
        service = await client.get(SERVICES, "web", "default")
        address = service.spec.cluster_ip
        load = [await _Load.start(home, pod, address, mode) for pod in CLIENT_PODS for mode in ("kept", "new")]
        began, rollouts, generations = time.perf_counter(), 0, [before]
        await asyncio.gather(*(one.more(1) for one in load))
        while rollouts < ROLLOUTS or _needs_more(load):
            rollouts += 1
            generations.append(await _rolled_over(client, rollouts))
        took_s = time.perf_counter() - began
        for one in load:  # what is asked from now on is answered by the last Pods alone
            await one.more(2000)
        results = [await one.end() for one in load]
    return _judged(results, load, generations, took_s)


def _needs_more(load: list[_Load]) -> bool:
    return not any(one.reading.done() for one in load) and any(_asked(load, mode) < REQUESTS / 2 for mode in ("kept", "new"))


def _asked(load: list[_Load], mode: str) -> int:
    return sum(one.asked for one in load if one.mode == mode)


def _judged(results: list[dict[str, Any]], load: list[_Load], generations: list[set[str]], took_s: float) -> dict[str, float]:
    lost: Counter[str] = Counter()
    for result, one in zip(results, load, strict=True):
        lost.update({f"{one.mode}: {why}": count for why, count in result["lost"].items()})
    for why, count in lost.items():
        print(f"lost {count}: {why}", flush=True)
    answered = {name for result in results for name in result["answered"]}
    for number, names in enumerate(generations):
        if not names & answered:
            raise SystemExit(f"no Pod of rollout {number} has answered anybody")
    last = {name for result in results for name in result["last"]}
    if not last <= generations[-1]:
        raise SystemExit(f"at the end {sorted(last - generations[-1])} still answer")
    kept = sum(result["asked"] for result, one in zip(results, load, strict=True) if one.mode == "kept")
    asked = sum(result["asked"] for result in results)
    return {"lost_requests": sum(lost.values()), "requests": asked, "kept_open": kept, "rollouts": len(generations) - 1, "s": took_s}


def run() -> Report:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="podwire-bench-") as folder:
        home = Path(folder)
        (home / "web.yaml").write_text(manifest())
        podwire(home, "up")
        try:
            podwire(home, "apply", "-f", str(home / "web.yaml"))
            found = asyncio.run(_measure(home))
        finally:
            podwire(home, "down")
    figures = {name: found[name] for name in ("lost_requests", "requests", "kept_open", "rollouts")}
    limits = {"lost_requests": Limit(most=0), "requests": Limit(least=REQUESTS)}
    return Report("rollout", figures, {"s": [found["s"]]}, {"replicas": REPLICAS, "clients": 2 * len(CLIENT_PODS)}, limits)
