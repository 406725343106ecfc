"""The pages that tell of use: /stats/summary (its part of processor and memory), /stats/usage (what the API server's metrics are made of),
/metrics/resource.

Source: https://kubernetes.io/docs/reference/instrumentation/node-metrics/
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from podwire.pods.host import Host
from podwire.pods.kubelet.usage import NODE, Measured, Meter, Usage
from podwire.pods.runs import State
from podwire.pods.worker import PodWorker

Tree = dict[str, Any]


async def measure(host: Host, meter: Meter, workers: Iterable[PodWorker]) -> Measured:
    """Measure the node's containers; each is named ``UID/CONTAINER``."""
    programs = await host.programs.client.programs("pod/")
    standins, now = host.standins.pid, time.time()
    roots: dict[str, int] = {}
    ages: dict[str, float] = {}
    for worker in workers:
        for name, run in worker.record.runs.items():
            program = programs.get(run.program)
            pid = program.pid if program is not None else standins if not run.program else 0
            if run.state is State.RUNNING and pid:
                roots[f"{worker.record.uid}/{name}"] = pid
                ages[f"{worker.record.uid}/{name}"] = now - run.started_at
    return await meter.measure(roots, ages)


def usage(measured: Measured) -> Tree:
    """/stats/usage: nanocores and bytes of the node and of each container, and the seconds that they are the average of."""
    containers = {name: _short(one) for name, one in measured.usage.items() if name != NODE}
    stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    node = measured.usage.get(NODE, Usage(0.0, 0, 0.0))
    return {"timestamp": stamp, "windowSeconds": measured.window_s, "node": _short(node), "containers": containers}


def _short(one: Usage) -> Tree:
    return {"nanoCores": int(one.cores * 1e9), "bytes": one.memory}


def stats(one: Usage) -> Tree:
    """The part of a summary that tells of one container, or of the node."""
    stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {
        "cpu": {"time": stamp, "usageNanoCores": int(one.cores * 1e9), "usageCoreNanoSeconds": int(one.cpu_s * 1e9)},
        "memory": {"time": stamp, "workingSetBytes": one.memory, "rssBytes": one.memory},
    }


def metrics(measured: Measured, workers: Iterable[PodWorker]) -> str:
    """/metrics/resource, with upstream's names."""
    node = measured.usage.get(NODE, Usage(0.0, 0, 0.0))
    cpu, memory = "container_cpu_usage_seconds_total", "container_memory_working_set_bytes"
    rows = list(_rows(measured, workers))
    return "".join(
        f"# TYPE {name} {kind}\n" + "".join(f"{name}{labels} {value}\n" for labels, value in found)
        for name, kind, found in (
            ("node_cpu_usage_seconds_total", "counter", [("", f"{node.cpu_s:.2f}")]),
            ("node_memory_working_set_bytes", "gauge", [("", str(node.memory))]),
            (cpu, "counter", [(labels, f"{one.cpu_s:.2f}") for labels, one in rows]),
            (memory, "gauge", [(labels, str(one.memory)) for labels, one in rows]),
        )
    )


def _rows(measured: Measured, workers: Iterable[PodWorker]) -> Iterator[tuple[str, Usage]]:
    for worker in workers:
        for name in sorted(worker.record.runs):
            one = measured.usage.get(f"{worker.record.uid}/{name}")
            if one is not None:
                yield f'{{container="{name}",namespace="{worker.pod.namespace}",pod="{worker.pod.name}"}}', one
