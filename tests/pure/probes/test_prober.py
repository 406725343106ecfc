"""A prober's conclusions: thresholds, initial delay, period, for outcomes in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podwire.objects.core import Probe
from podwire.probes.prober import ProbeKind, Prober, begin, observe


def after(prober: Prober, outcomes: list[bool]) -> Prober:
    for ok in outcomes:
        prober = observe(prober, ok, prober.due)
    return prober


def test_before_the_first_probe_the_kubelets_assumptions_hold() -> None:
    assert begin(ProbeKind.READINESS, Probe(), 0).result is False
    assert begin(ProbeKind.LIVENESS, Probe(), 0).result is True
    assert begin(ProbeKind.STARTUP, Probe(), 0).result is None


def test_the_first_probe_is_due_after_the_initial_delay_and_the_next_each_period() -> None:
    prober = begin(ProbeKind.READINESS, Probe(initial_delay_seconds=5, period_seconds=3), 100)
    assert prober.due == 105
    assert observe(prober, True, 105.2).due == 108
    assert observe(prober, True, 112.5).due == 114  # those that were missed are not made up for


def test_a_liveness_probe_asks_for_a_restart_at_its_threshold() -> None:
    prober = begin(ProbeKind.LIVENESS, Probe(failure_threshold=3), 0)
    assert not after(prober, [False, False, True, False, False]).restart
    assert after(prober, [False, False, False]).restart


def test_readiness_never_asks_for_a_restart() -> None:
    assert not after(begin(ProbeKind.READINESS, Probe(failure_threshold=1), 0), [False] * 5).restart


def test_only_readiness_has_a_success_threshold() -> None:
    assert after(begin(ProbeKind.LIVENESS, Probe(success_threshold=3, failure_threshold=1), 0), [False, True]).result is True
    assert after(begin(ProbeKind.READINESS, Probe(success_threshold=3), 0), [True, True]).result is False


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_the_result_is_that_of_the_last_run_that_was_long_enough(outcomes: list[bool], successes: int, failures: int) -> None:
    prober = after(begin(ProbeKind.READINESS, Probe(success_threshold=successes, failure_threshold=failures), 0), outcomes)
    expected = False
    for end in range(1, len(outcomes) + 1):
        last = outcomes[end - 1]
        size = successes if last else failures
        if outcomes[max(0, end - size) : end] == [last] * size:
            expected = last
    assert prober.result is expected
    if outcomes and all(outcomes):
        assert prober.due == len(outcomes) * 10


def test_until_it_is_ready_for_the_first_time_a_container_is_looked_at_more_often() -> None:
    prober = begin(ProbeKind.READINESS, Probe(period_seconds=1), 0)
    dues = []
    for _ in range(8):
        prober = observe(prober, False, prober.due)
        dues.append(round(prober.due, 2))
    assert dues == [0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55, 4.55]
    prober = observe(observe(prober, True, prober.due), False, 5.55)
    assert round(prober.due, 2) == 6.55
    liveness = begin(ProbeKind.LIVENESS, Probe(period_seconds=10), 0)
    assert observe(liveness, False, 0).due == 10
