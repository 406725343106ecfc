"""service-update: one endpoint of one Service changes; from the decoded event to the kernel's acknowledgement.

At 1,000 and 10,000 Services of 10 endpoints, and at 100,000 of one. Each event is a slice in which one endpoint has another address than
before. Late deletions are made between the events, as an agent would a moment later. Proof: what the kernel holds at the end.
"""

from __future__ import annotations

import gc
import os
import random
import time
from ipaddress import ip_address

from bench.isolated import in_child
from bench.report import Limit, Report, median, percentile
from bench.service_objects import endpoints, objects, piece, pod_ip
from bench.service_sync import direct

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
EVENTS = 2000
SPARE = 2_000_000  # the number of the first address that no endpoint has
CASES = {"1k": (1_000, 10), "10k": (10_000, 10), "100k": (100_000, 1)}


def _events(services: int, count: int, kind: str) -> list[float]:
    from podwire.linux.nftables import Nftables

    proxy = direct()
    proxy.load(*objects(services, count))
    gc.collect()
    gc.freeze()
    chance = random.Random(1)
    now = {number: endpoints(number, count) for number in range(services)} if services <= 10_000 else {}
    taken, changed = [], {}
    for event in range(EVENTS):
        number = chance.randrange(services)
        addresses = now.setdefault(number, endpoints(number, count))
        addresses[chance.randrange(count)] = pod_ip(SPARE + event)
        changed[number] = addresses
        decoded = piece(number, addresses)
        began = time.perf_counter()
        proxy.put_slice(decoded)
        taken.append(time.perf_counter() - began)
        proxy.expire()
    with Nftables() as kernel:
        values = [element.value for element in kernel.dump().tables[0].set("backends").elements.values()]
    held = {value[:4] for value in values if isinstance(value, bytes)}
    if not all(ip_address(address).packed in held for addresses in changed.values() for address in addresses):
        raise SystemExit(f"{kind}: an endpoint is not in the kernel")
    return taken


def run() -> Report:
    """Run the benchmark."""
    samples: dict[str, list[float]] = {}
    for kind, (services, count) in CASES.items():
        rounds = [in_child(_events, services, count, kind, fresh_network=True) for _ in range(ROUNDS)]
        samples[f"p50_{kind}_us"] = [1e6 * percentile(taken, 0.5) for taken in rounds]
        samples[f"p99_{kind}_us"] = [1e6 * percentile(taken, 0.99) for taken in rounds]
    limits = {name: Limit(most=60 if name.startswith("p50") else 300) for name in samples}
    figures = {name: median(values) for name, values in samples.items()}
    return Report("service-update", figures, samples, {"events": EVENTS, "rounds": ROUNDS, "cases": str(CASES)}, limits)
