"""What a benchmark says: figures with their limits, the samples they come from, and the size of the input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """What a figure must not pass: at most ``most``, or at least ``least``."""

    most: float | None = None
    least: float | None = None

    def holds(self, value: float) -> bool:
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        return f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"


@dataclass(frozen=True)
class Report:
    """``figures`` are named in snake case with their unit; ``samples`` hold what each is the median (or percentile) of."""

    bench: str
    figures: Mapping[str, float]
    samples: Mapping[str, Sequence[float]]
    input: Mapping[str, object]
    limits: Mapping[str, Limit] = field(default_factory=dict)

    def as_json(self) -> str:
        tree = {"bench": self.bench, "figures": self.figures, "samples": self.samples, "input": self.input}
        return json.dumps(tree, default=lambda value: round(value, 6))

    def as_table(self) -> str:
        lines = [f"{self.bench}  ({', '.join(f'{key}={value}' for key, value in self.input.items())})"]
        for name, value in self.figures.items():
            limit = self.limits.get(name)
            verdict = "" if limit is None else f"{limit!s:16} {'ok' if limit.holds(value) else 'FALLS SHORT'}"
            lines.append(f"  {name:24} {value:12.4g}   {verdict}".rstrip())
        for name, values in self.samples.items():
            shown = ", ".join(f"{value:.4g}" for value in values[:8]) + (f", ... ({len(values)})" if len(values) > 8 else "")
            lines.append(f"  samples {name:16} {shown}")
        return "\n".join(lines)


def percentile(values: Sequence[float], share: float) -> float:
    """Give the nearest-rank percentile (share 0.5 is the median of an odd number of values)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def median(values: Sequence[float]) -> float:
    """Give the median."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
