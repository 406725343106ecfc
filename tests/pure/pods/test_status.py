"""Runs, their restarts, and the status that follows from them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects.core import Condition, Container, Pod, PodSpec, PodStatus, ReadinessGate, ResourceRequirements
from podwire.objects.meta import ObjectMeta
from podwire.pods import runs
from podwire.pods.desired import NodeFacts
from podwire.pods.runs import Record, Run, State
from podwire.pods.status import qos_class, status

FACTS = NodeFacts(name="n", ips=("10.128.0.2",))
NOW = 1_000_000.0


def pod(*names: str, init: tuple[Container, ...] = (), conditions: tuple[Condition, ...] = (), **spec: object) -> Pod:
    containers = tuple(Container(name=name, image="x") for name in names or ("main",))
    meta = ObjectMeta(name="web", namespace="default", uid="u")
    made = PodSpec(containers=containers, init_containers=init, **spec)  # type: ignore[arg-type]
    return Pod(metadata=meta, spec=made, status=PodStatus(conditions=conditions))


def record(**states: Run) -> Record:
    return Record(uid="u", namespace="default", name="web", addresses=("10.4.0.5",), sandbox=1, start_time=NOW, runs=states)


def running(ready: bool = True) -> Run:
    return msgspec.structs.replace(runs.began(Run(), NOW), started=True, ready=ready)


def ended(code: int) -> Run:
    return runs.ended(running(), NOW + 5, exit_code=code)


def conditions(tree: dict[str, object]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in tree["conditions"]}  # type: ignore[attr-defined]


def test_a_pod_that_is_ready() -> None:
    tree = status(pod(), record(main=running()), FACTS, NOW)
    assert tree["phase"] == "Running"
    assert (tree["podIP"], tree["hostIP"]) == ("10.4.0.5", "10.128.0.2")
    assert set(conditions(tree).values()) == {"True"}
    container = tree["containerStatuses"][0]
    assert container["state"] == {"running": {"startedAt": "1970-01-12T13:46:40Z"}}
    assert (container["ready"], container["started"], container["restartCount"]) == (True, True, 0)
    assert container["stopSignal"] == "SIGTERM"


def test_a_pod_that_waits_for_its_readiness() -> None:
    tree = status(pod("a", "b"), record(a=running(), b=running(ready=False)), FACTS, NOW)
    assert tree["phase"] == "Running"
    assert conditions(tree) == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "False",
        "PodScheduled": "True",
    }
    ready = next(one for one in tree["conditions"] if one["type"] == "Ready")
    assert (ready["reason"], ready["message"]) == ("ContainersNotReady", "containers with unready status: [b]")


def test_a_pod_without_a_sandbox() -> None:
    tree = status(pod(), Record(uid="u", namespace="default", name="web", start_time=NOW), FACTS, NOW)
    assert tree["phase"] == "Pending"
    assert "podIP" not in tree
    assert tree["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert "stopSignal" not in tree["containerStatuses"][0]
    assert conditions(tree)["PodReadyToStartContainers"] == "False"


def test_init_containers_come_first() -> None:
    first = Container(name="first", image="x")
    tree = status(pod(init=(first,)), record(first=running()), FACTS, NOW)
    assert tree["phase"] == "Pending"
    assert conditions(tree)["Initialized"] == "False"
    assert tree["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    tree = status(pod(init=(first,)), record(first=ended(0), main=running()), FACTS, NOW)
    assert conditions(tree)["Initialized"] == "True"
    assert tree["initContainerStatuses"][0]["ready"] is True
    tree = status(pod(init=(first,), restart_policy="Never"), record(first=ended(1)), FACTS, NOW)
    assert tree["phase"] == "Failed"


def test_a_sidecar_counts_for_readiness() -> None:
    sidecar = Container(name="side", image="x", restart_policy="Always")
    tree = status(pod(init=(sidecar,)), record(side=running(ready=False), main=running()), FACTS, NOW)
    assert conditions(tree)["Initialized"] == "True"
    assert conditions(tree)["Ready"] == "False"


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Never", (0, 0), "Succeeded"),
        ("Never", (0, 3), "Failed"),
        ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 3), "Running"),
        ("Always", (0, 0), "Running"),
    ],
)
def test_phases_at_the_end(policy: str, codes: tuple[int, int], phase: str) -> None:
    tree = status(pod("a", "b", restart_policy=policy), record(a=ended(codes[0]), b=ended(codes[1])), FACTS, NOW)
    assert tree["phase"] == phase


def test_readiness_gates() -> None:
    gate = (ReadinessGate(condition_type="lb"),)
    closed = status(pod(readiness_gates=gate), record(main=running()), FACTS, NOW)
    assert (conditions(closed)["ContainersReady"], conditions(closed)["Ready"]) == ("True", "False")
    opened = status(pod(readiness_gates=gate, conditions=(Condition(type="lb", status="True"),)), record(main=running()), FACTS, NOW)
    assert conditions(opened)["Ready"] == "True"


def test_times_of_transitions_stay_until_something_changes() -> None:
    first = status(pod(), record(main=running(ready=False)), FACTS, NOW)
    second = status(pod(), record(main=running()), FACTS, NOW + 60, first)
    times = {one["type"]: one["lastTransitionTime"] for one in second["conditions"]}
    assert times["PodScheduled"] == "1970-01-12T13:46:40Z"
    assert times["Ready"] == "1970-01-12T13:47:40Z"
    assert status(pod(), record(main=running()), FACTS, NOW + 90, second) == second


def resources(requests: dict[str, str | int | float], limits: dict[str, str | int | float]) -> Pod:
    container = Container(name="c", resources=ResourceRequirements(requests=requests, limits=limits))
    return Pod(spec=PodSpec(containers=(container,)))


def test_quality_of_service() -> None:
    whole = ResourceRequirements(limits={"cpu": "1", "memory": "1Gi"})
    assert qos_class(Pod(spec=PodSpec(containers=(Container(name="c"),), resources=whole))) == "Guaranteed"
    assert qos_class(resources({}, {})) == "BestEffort"
    assert qos_class(resources({"cpu": "100m"}, {})) == "Burstable"
    assert qos_class(resources({"cpu": "1", "memory": "1Gi"}, {"cpu": "1000m", "memory": "1024Mi"})) == "Guaranteed"
    assert qos_class(resources({}, {"cpu": 1, "memory": "1Gi"})) == "Guaranteed"
    assert qos_class(resources({"cpu": "1"}, {"cpu": "2", "memory": "1Gi"})) == "Burstable"


# Restarts --------------------------------------------------------------------------------------------------------------


def test_back_off_doubles_to_five_minutes_and_is_forgotten_after_a_long_run() -> None:
    run, now, waits = Run(), NOW, []
    for _ in range(8):
        run = runs.began(run, now)
        run = runs.to_restart(runs.ended(run, now + 1, exit_code=1), now + 1)
        waits.append(run.retry_at - (now + 1))
        now = run.retry_at
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert run.restarts == 7
    run = runs.began(run, now)
    assert runs.to_restart(runs.ended(run, now + 601, exit_code=1), now + 601).retry_at == now + 601


def test_a_restarted_container_remembers_how_it_ended() -> None:
    run = runs.began(runs.ended(runs.began(Run(), NOW), NOW + 1, exit_code=137, signal=9), NOW + 2)
    assert (run.restarts, run.state) == (1, State.RUNNING)
    assert run.last is not None
    assert (run.last.exit_code, run.last.reason) == (137, "Error")


def test_a_node_that_was_restarted_begins_everything_anew() -> None:
    lost = runs.lost(record(main=running(), done=ended(0)), [], NOW + 9)
    assert lost.addresses == ()
    assert lost.runs["done"].state is State.TERMINATED
    main = lost.runs["main"]
    assert main.state is State.WAITING
    assert main.last is not None
    assert (main.last.exit_code, main.last.reason) == (255, "Unknown")
    assert runs.began(main, NOW + 10).restarts == 1


@given(st.builds(Run, restarts=st.integers(0, 5), started_at=st.floats(0, 1e9), state=st.sampled_from(State), ready=st.booleans()))
def test_a_record_comes_back_from_disk(run: Run) -> None:
    written = record(main=run)
    assert msgspec.json.decode(msgspec.json.encode(written), type=Record) == written


# The Pod as a whole ------------------------------------------------------------------------------------------------------


def test_conditions_name_the_generation_they_speak_of() -> None:
    made = msgspec.structs.replace(pod(), metadata=ObjectMeta(name="web", namespace="default", uid="u", generation=4))
    tree = status(made, record(main=running()), FACTS, NOW)
    assert tree["observedGeneration"] == 4
    assert {one["observedGeneration"] for one in tree["conditions"]} == {4}


def test_words_of_readiness_gates() -> None:
    gates = (ReadinessGate(condition_type="a"), ReadinessGate(condition_type="b"))
    tree = status(pod(readiness_gates=gates, conditions=(Condition(type="a", status="False"),)), record(main=running()), FACTS, NOW)
    ready = next(one for one in tree["conditions"] if one["type"] == "Ready")
    assert ready["message"] == (
        'the status of pod readiness gate "a" is not "True", but False, corresponding condition of pod readiness gate "b" does not exist.'
    )


def test_a_container_whose_hook_has_not_ended_is_not_running_yet() -> None:
    tree = status(pod(), record(main=runs.began(Run(), NOW, starting=True)), FACTS, NOW)
    assert tree["phase"] == "Pending"
    assert tree["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}


def test_a_pod_that_stays_initialized_when_its_sidecar_fails() -> None:
    side = Container(name="side", image="x", restart_policy="Always")
    failed = runs.waiting(ended(1), "CrashLoopBackOff")
    before = record(side=failed)
    assert conditions(status(pod(init=(side,)), before, FACTS, NOW))["Initialized"] == "False"
    after = msgspec.structs.replace(record(side=failed, main=running()), initialized=True)
    assert conditions(status(pod(init=(side,)), after, FACTS, NOW))["Initialized"] == "True"
    lost = runs.lost(msgspec.structs.replace(record(first=ended(0)), initialized=True), ["first"], NOW)
    assert (lost.initialized, lost.runs["first"].state) == (False, State.WAITING)


def test_a_pod_that_has_failed_as_a_whole() -> None:
    failed = msgspec.structs.replace(record(main=running()), reason="DeadlineExceeded", message="too long")
    assert status(pod(), failed, FACTS, NOW)["phase"] == "Running"  # as long as its containers have not ended
    failed = msgspec.structs.replace(failed, finished=True)
    tree = status(pod(), failed, FACTS, NOW)
    assert (tree["phase"], tree["reason"], tree["message"]) == ("Failed", "DeadlineExceeded", "too long")
    assert conditions(tree)["Ready"] == "False"


@pytest.mark.parametrize(("codes", "phase"), [((0, 0), "Succeeded"), ((0, 137), "Failed")])
def test_a_pod_that_was_ended_says_how(codes: tuple[int, int], phase: str) -> None:
    over = msgspec.structs.replace(record(a=ended(codes[0]), b=ended(codes[1])), finished=True)
    assert status(pod("a", "b"), over, FACTS, NOW)["phase"] == phase


def test_back_off_is_said_in_whole_durations() -> None:
    run = msgspec.structs.replace(Run(), back_off_s=80)
    run = runs.to_restart(runs.ended(runs.began(run, NOW), NOW + 1, exit_code=1), NOW + 1)
    waits = runs.crash_loop(run, NOW + 30, "main", "web_default(u)")
    assert waits.message == "back-off 1m20s restarting failed container=main pod=web_default(u)"
    assert [runs.duration(seconds) for seconds in (10, 60, 300)] == ["10s", "1m0s", "5m0s"]


def test_the_phase_waits_until_nothing_runs_any_more() -> None:
    side = Container(name="side", image="x", restart_policy="Always")
    first = Container(name="first", image="x")
    debugger = Container(name="debugger", image="x")
    for code, phase, reason in ((0, "Succeeded", "PodCompleted"), (3, "Failed", "PodFailed")):
        held = status(pod(init=(side,), restart_policy="Never"), record(side=running(), main=ended(code)), FACTS, NOW)
        assert held["phase"] == "Running"
        assert next(one for one in held["conditions"] if one["type"] == "Ready")["reason"] == reason
        looked_at = msgspec.structs.replace(pod(restart_policy="Never").spec, ephemeral_containers=(debugger,))
        held = status(
            msgspec.structs.replace(pod(restart_policy="Never"), spec=looked_at), record(debugger=running(), main=ended(code)), FACTS, NOW
        )
        assert held["phase"] == "Running"
        done = msgspec.structs.replace(record(side=ended(143), main=ended(code)), initialized=True)
        over = status(pod(init=(side,), restart_policy="Never"), done, FACTS, NOW)
        assert over["phase"] == phase
    failed = pod(init=(side, first), restart_policy="Never")
    assert status(failed, record(side=running(), first=ended(1)), FACTS, NOW)["phase"] == "Pending"
    assert status(failed, record(side=ended(0), first=ended(1)), FACTS, NOW)["phase"] == "Failed"
