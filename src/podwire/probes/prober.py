"""What a prober remembers between two probes, and what it concludes. Pure: the clock is a parameter.

A prober belongs to one run of one container: it begins when the container starts and is thrown away when it ends. The first
probe is due after the initial delay, further ones each period. A result changes only after as many equal outcomes in a row as
its threshold says. Until then the result is what the kubelet takes for granted: not ready, alive, not yet started.

A container that has just started and is not ready yet is looked at more often than its period says, at first after 0.05 s, then
twice as long each time: the kubelet's first probe comes at a random moment of the period, so nobody can rely on that one, and
a program that needs 0.3 s to start need not count as not ready for a whole period.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from podwire.objects.core import Probe

FIRST_AGAIN_S = 0.05


class ProbeKind(enum.Enum):
    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


@dataclass(frozen=True)
class Prober:
    """Times are seconds of the caller's clock. ``result`` is None until a startup probe has decided."""

    kind: ProbeKind
    period: float
    success_threshold: int
    failure_threshold: int
    due: float
    result: bool | None
    last: bool | None = None
    run: int = 0
    eager_s: float = 0.0

    @property
    def restart(self) -> bool:
        """The container is to be ended: its liveness or startup probe has failed as often as it may."""
        return self.kind is not ProbeKind.READINESS and self.result is False


def begin(kind: ProbeKind, probe: Probe, started: float) -> Prober:
    """A prober for a container that started at ``started``."""
    return Prober(
        kind=kind,
        period=max(1, probe.period_seconds),
        success_threshold=max(1, probe.success_threshold) if kind is ProbeKind.READINESS else 1,
        failure_threshold=max(1, probe.failure_threshold),
        due=started + max(0, probe.initial_delay_seconds),
        result={ProbeKind.STARTUP: None, ProbeKind.READINESS: False, ProbeKind.LIVENESS: True}[kind],
        eager_s=FIRST_AGAIN_S if kind is ProbeKind.READINESS else 0.0,
    )


def observe(prober: Prober, ok: bool, now: float) -> Prober:
    """Take one outcome in. The next probe is due a whole number of periods after this one was, and after ``now``."""
    run = prober.run + 1 if prober.last is ok else 1
    decided = run >= (prober.success_threshold if ok else prober.failure_threshold)
    missed = max(1, math.floor((now - prober.due) / prober.period) + 1)
    due = prober.due + missed * prober.period
    eager_s = 0.0 if ok else min(2 * prober.eager_s, prober.period)
    if not ok and prober.eager_s:
        due = min(due, max(now, prober.due) + prober.eager_s)
    return replace(prober, last=ok, run=run, result=ok if decided else prober.result, due=due, eager_s=eager_s)
