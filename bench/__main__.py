"""The command line of the benchmarks: see ``bench``."""

from __future__ import annotations

import argparse
import importlib
import sys

BENCHMARKS = {
    "api": "bench.api",
    "api-auth": "bench.api_auth",
    "api-durability": "bench.api_durability",
    "api-exec": "bench.api_exec",
    "cluster-up": "bench.cluster_up",
    "cni-add": "bench.cni_add",
    "images": "bench.images",
    "pod-network": "bench.pod_network",
    "pods-ready": "bench.pods_ready",
    "rolling": "bench.rolling",
    "rollout": "bench.rollout",
    "service-path": "bench.service_path",
    "service-propagation": "bench.service_propagation",
    "service-sync": "bench.service_sync",
    "service-update": "bench.service_update",
    "service-upstream": "bench.service_upstream",
}


def main() -> int:
    """Run the benchmarks named, or all. Exits 1 when a figure falls short of its limit."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("name", nargs="*", choices=[[], *BENCHMARKS], help="which (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a benchmark")
    arguments = parser.parse_args()
    status = 0
    for name in arguments.name or BENCHMARKS:
        report = importlib.import_module(BENCHMARKS[name]).run()
        print(report.as_json() if arguments.json else report.as_table(), flush=True)
        if not all(limit.holds(report.figures[figure]) for figure, limit in report.limits.items()):
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
