"""service-sync: from decoded objects to an acknowledged kernel, on a node that has nothing and on one where an agent starts again.

``cold_s``: 10,000 Services of 10 endpoints; ``cold_45k_s``: 45,000 of one. ``adopt_s``: a new process that finds the tables of 10,000 × 10
and makes them its own. ``agent_mib``: resident memory of the process that did it, with the objects. ``kernel_mib``: what the kernel's
memory grew by. Proof: the elements that the kernel lists, and that adopting changed nothing.
"""

from __future__ import annotations

import gc
import os
import time
from typing import Any

from bench.isolated import in_child, kernel_mib, resident_mib
from bench.report import Limit, Report, median
from bench.service_objects import POD_RANGES, SERVICE_RANGES, objects

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def direct() -> Any:
    from podwire.services.direct import Direct
    from podwire.services.layout import IPV4
    from podwire.services.tables import Tables
    from podwire.views.topology import Place

    return Direct(Tables(IPV4, "node-1", POD_RANGES, SERVICE_RANGES), Place("node-1", "a"))


def load(services: int, count: int) -> dict[str, float]:
    """Program what there is none of, or adopt what there is."""
    from podwire.linux.nftables import Nftables

    proxy = direct()
    made = objects(services, count)
    gc.collect()
    gc.freeze()
    with Nftables() as kernel:
        generation, memory = kernel.generation(), kernel_mib()
        began = time.perf_counter()
        proxy.load(*made)
        took = time.perf_counter() - began
        found = {"s": took, "mib": resident_mib(), "kernel_mib": kernel_mib() - memory, "commits": kernel.generation() - generation}
        rows = {one.name: len(one.elements) for one in kernel.dump().tables[0].sets}
    if (rows["frontends"], rows["backends"]) != (services, services * count):
        raise SystemExit(f"the kernel holds {rows}")
    return found


def _cold_and_adopted(services: int, count: int) -> list[dict[str, float]]:
    cold = in_child(load, services, count)
    adopted = in_child(load, services, count)
    if adopted["commits"]:
        raise SystemExit("adopting changed the tables")
    return [cold, adopted]


def run() -> Report:
    """Run the benchmark."""
    big = [in_child(_cold_and_adopted, 10_000, 10, fresh_network=True) for _ in range(ROUNDS)]
    wide = [in_child(load, 45_000, 1, fresh_network=True) for _ in range(ROUNDS)]
    samples = {
        "cold_s": [cold["s"] for cold, _ in big],
        "adopt_s": [adopted["s"] for _, adopted in big],
        "cold_45k_s": [one["s"] for one in wide],
        "agent_mib": [max(row["mib"] for row in pair) for pair in big],
        "kernel_mib": [cold["kernel_mib"] for cold, _ in big],
    }
    limits = {
        "cold_s": Limit(most=0.5),
        "cold_45k_s": Limit(most=0.8),
        "adopt_s": Limit(most=0.8),
        "agent_mib": Limit(most=250),
    }
    figures = {name: median(values) for name, values in samples.items()}
    return Report("service-sync", figures, samples, {"services": 10_000, "endpoints": 10, "rounds": ROUNDS}, limits)
