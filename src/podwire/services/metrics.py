"""What the service proxy counts and measures, under the names that dashboards know.

What belongs here: counters, gauges and histograms of one process as values, and their text. What must not: serving the text (pages.py),
clocks. Names, kinds, labels and buckets are those of the metrics that a Kubernetes node's service proxy is documented to have, so that
what reads those reads these.

Sources: https://kubernetes.io/docs/reference/instrumentation/metrics/ (kubeproxy_*),
https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

# 1 ms, doubled fourteen times.
_SYNC = tuple(0.001 * 2**power for power in range(15))
# Fine below a second, then seconds to a minute, five to two minutes, thirty to five minutes.
_PROGRAMMING = (0.25, 0.5, *map(float, range(1, 60)), *map(float, range(60, 120, 5)), *map(float, range(120, 301, 30)))

_FAMILY = ("ip_family",)
_ROWS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("sync_proxy_rules_duration_seconds", "histogram", _FAMILY, "Time of one round of programming"),
    ("sync_full_proxy_rules_duration_seconds", "histogram", _FAMILY, "Time of a round that looked at everything"),
    ("sync_partial_proxy_rules_duration_seconds", "histogram", _FAMILY, "Time of a round that looked at what had changed"),
    ("network_programming_duration_seconds", "histogram", _FAMILY, "Time from the change of an endpoint to its being programmed"),
    ("conntrack_reconciler_sync_duration_seconds", "histogram", _FAMILY, "Time of one search for stale flows"),
    ("conntrack_reconciler_deleted_entries_total", "counter", _FAMILY, "Stale flows that were deleted"),
    ("sync_proxy_rules_last_timestamp_seconds", "gauge", _FAMILY, "When rules were last programmed, seconds since 1970"),
    ("sync_proxy_rules_last_queued_timestamp_seconds", "gauge", _FAMILY, "When a round was last asked for, seconds since 1970"),
    ("sync_proxy_rules_endpoint_changes_pending", "gauge", _FAMILY, "Changes of endpoints that are not programmed yet"),
    ("sync_proxy_rules_endpoint_changes_total", "counter", _FAMILY, "Changes of endpoints"),
    ("sync_proxy_rules_service_changes_pending", "gauge", _FAMILY, "Changes of Services that are not programmed yet"),
    ("sync_proxy_rules_service_changes_total", "counter", _FAMILY, "Changes of Services"),
    (
        "sync_proxy_rules_no_local_endpoints_total",
        "gauge",
        ("ip_family", "traffic_policy"),
        "Ports with a Local policy and no endpoint here",
    ),
    ("proxy_healthz_total", "counter", ("code",), "Answers of /healthz"),
    ("proxy_livez_total", "counter", ("code",), "Answers of /livez"),
)
_TABLE = ("table", "ip_family")
_OF_MODE: dict[str, tuple[tuple[str, str, tuple[str, ...], str], ...]] = {
    "nftables": (
        ("sync_proxy_rules_nftables_sync_failures_total", "counter", _FAMILY, "Rounds that the kernel refused"),
        ("sync_proxy_rules_nftables_cleanup_failures_total", "counter", _FAMILY, "Late deletions that the kernel refused"),
    ),
    "iptables": (
        ("sync_proxy_rules_iptables_total", "gauge", _TABLE, "Rules that there are"),
        ("sync_proxy_rules_iptables_last", "gauge", _TABLE, "Rules that the last round wrote"),
        ("sync_proxy_rules_iptables_restore_failures_total", "counter", _FAMILY, "Rounds that iptables-restore refused"),
        ("sync_proxy_rules_iptables_partial_restore_failures_total", "counter", _FAMILY, "Those of them that wrote what had changed alone"),
    ),
}


class Histogram:
    """Observations counted by upper bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)


class Metrics:
    """All of one process. Labels are given as values, in the order of the tables above. ``mode`` is nftables or iptables."""

    def __init__(self, mode: str = "nftables") -> None:
        self._rows = (*_ROWS, *_OF_MODE[mode])
        self._numbers: dict[str, dict[tuple[str, ...], float]] = {name: {} for name, kind, _, _ in self._rows if kind != "histogram"}
        self._histograms: dict[str, dict[tuple[str, ...], Histogram]] = {name: {} for name, kind, _, _ in self._rows if kind == "histogram"}

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Count. Raises KeyError for an unknown name."""
        rows = self._numbers[name]
        rows[labels] = rows.get(labels, 0.0) + amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge. Raises KeyError for an unknown name."""
        self._numbers[name][labels] = value

    def get(self, name: str, *labels: str) -> float:
        """Read a counter or gauge: 0 if it never was set."""
        return self._numbers[name].get(labels, 0.0)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Put an observation into a histogram. Raises KeyError for an unknown name."""
        rows = self._histograms[name]
        if labels not in rows:
            rows[labels] = Histogram(_PROGRAMMING if name.startswith("network") else _SYNC)
        rows[labels].observe(seconds)

    def histogram(self, name: str, *labels: str) -> Histogram | None:
        """Give a histogram, if anything was observed."""
        return self._histograms[name].get(labels)

    def text(self) -> str:
        """Write everything in Prometheus's text format."""
        lines: list[str] = []
        for name, kind, labels, words in self._rows:
            full = f"kubeproxy_{name}"
            lines += [f"# HELP {full} {words}", f"# TYPE {full} {kind}"]
            if kind == "histogram":
                for values, histogram in sorted(self._histograms[name].items()):
                    lines += _histogram_lines(full, dict(zip(labels, values, strict=True)), histogram)
            else:
                lines += [
                    f"{full}{_labels(dict(zip(labels, values, strict=True)))} {number:.15g}"
                    for values, number in sorted(self._numbers[name].items())
                ]
        return "\n".join(lines) + "\n"


def _histogram_lines(name: str, labels: dict[str, str], histogram: Histogram) -> list[str]:
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    found = [
        f"{name}_bucket{_labels(labels | {'le': bound})} {count}" for bound, count in zip(bounds, accumulate(histogram.counts), strict=True)
    ]
    return [*found, f"{name}_sum{_labels(labels)} {histogram.sum:.9g}", f"{name}_count{_labels(labels)} {histogram.count}"]


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""
