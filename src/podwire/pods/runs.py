"""What has become of each container, as data; restarts and their back-off. Pure.

A ``Run`` is the present state of one container with the little that is remembered of the run before. A ``Record`` is all that
the node must know of a Pod to take it up again after the agent was killed; it lies on disk as JSON.

Times are wall-clock seconds since 1970.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
"""

from __future__ import annotations

import enum
from collections.abc import Collection

import msgspec

from podwire.objects.signals import TERMINATE

BACK_OFF_FIRST_S, BACK_OFF_LAST_S = 10.0, 300.0
BACK_OFF_RESET_S = 600.0
"""A container that ran this long begins again without delay."""


class State(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run ended. ``exit_code`` is what a shell would see: 128 and the number for a signal."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    container_id: str = ""


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """One container. ``restarts`` counts the runs before this one; ``program`` is the name under which its program is started.

    ``started_at`` is 0 until the container runs for the first time, and then the begin of its last run. ``starting``: it runs, but its
    postStart hook has not ended. ``stop_signal``: what asks its last run to end.
    """

    state: State = State.WAITING
    reason: str = ""
    message: str = ""
    restarts: int = 0
    started_at: float = 0.0
    program: str = ""
    container_id: str = ""
    stop_signal: str = ""
    starting: bool = False
    started: bool = False
    ready: bool = False
    ending: Ending | None = None
    last: Ending | None = None
    back_off_s: float = 0.0
    retry_at: float = 0.0


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Pod on this node.

    ``host_ports``: ports of the node lead to it. ``sandbox`` counts its network namespaces: a second one means a node that was started
    anew. ``initialized``: its init containers have done their work in this sandbox. ``reason`` and ``message``: why the Pod as a whole
    has failed. ``finished``: nothing of it runs nor will. ``images``: of the containers that are run from their image, its id.
    ``allocated``: by container the resources that it has where its Pod asks for others now that the node does not have; ``unresized`` then
    says why not, in a word and a sentence.
    """

    uid: str
    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    host_ports: bool = False
    sandbox: int = 0
    start_time: float = 0.0
    runs: dict[str, Run] = {}
    initialized: bool = False
    images: dict[str, str] = {}
    allocated: dict[str, dict[str, dict[str, str | int | float]]] = {}
    unresized: tuple[str, str] = ("", "")
    reason: str = ""
    message: str = ""
    finished: bool = False

    def with_run(self, name: str, run: Run) -> Record:
        return msgspec.structs.replace(self, runs={**self.runs, name: run})


def next_number(run: Run) -> int:
    """How many runs came before the one that is to begin: its restart count."""
    return run.restarts + 1 if run.started_at else 0


def began(run: Run, now: float, *, program: str = "", container_id: str = "", stop_signal: str = TERMINATE, starting: bool = False) -> Run:
    """The container runs. Whether it has started and is ready is said later."""
    return msgspec.structs.replace(
        run,
        state=State.RUNNING,
        restarts=next_number(run),
        reason="",
        message="",
        started_at=now,
        program=program,
        container_id=container_id,
        stop_signal=stop_signal,
        starting=starting,
        started=False,
        ready=False,
        last=run.ending or run.last,
        ending=None,
    )


def ended(run: Run, now: float, *, exit_code: int, signal: int = 0, reason: str = "", message: str = "") -> Run:
    """The container has ended."""
    ending = Ending(
        exit_code=exit_code,
        signal=signal,
        reason=reason or ("Completed" if exit_code == 0 else "Error"),
        message=message,
        started_at=run.started_at,
        finished_at=now,
        container_id=run.container_id,
    )
    return msgspec.structs.replace(
        run, state=State.TERMINATED, reason="", message="", starting=False, started=False, ready=False, ending=ending
    )


NOT_STARTED_STATUS = 128
"""What a container has ended with whose program could not be executed."""


def not_started(run: Run, now: float, message: str, container_id: str) -> Run:
    """The container's program could not be executed: it counts as a run that ended at once."""
    begun = msgspec.structs.replace(began(run, now, container_id=container_id), started_at=now)
    return ended(begun, now, exit_code=NOT_STARTED_STATUS, reason="StartError", message=message)


def to_restart(run: Run, now: float) -> Run:
    """The container is to run again: the first time at once, then after ten seconds, then twice as long each time."""
    ran_s = now - run.started_at if run.started_at else 0.0
    back_off = 0.0 if ran_s >= BACK_OFF_RESET_S else run.back_off_s
    following = min(BACK_OFF_LAST_S, back_off * 2) if back_off else BACK_OFF_FIRST_S
    return msgspec.structs.replace(run, back_off_s=following, retry_at=now + back_off)


def duration(seconds: float) -> str:
    """A duration in whole seconds as Go prints it: ``10s``, ``1m20s``, ``5m0s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def crash_loop(run: Run, now: float, container: str, pod: str) -> Run:
    """The container waits out its back-off. ``pod`` is ``name_namespace(uid)``."""
    since = run.ending.finished_at if run.ending is not None else now
    words = f"back-off {duration(run.retry_at - since)} restarting failed container={container} pod={pod}"
    return waiting(run, "CrashLoopBackOff", words)


def waiting(run: Run, reason: str, message: str = "") -> Run:
    """The container waits to be started."""
    last = run.ending or run.last
    state = State.WAITING
    waits = msgspec.structs.replace(run, state=state, reason=reason, message=message, starting=False, started=False, ready=False)
    return msgspec.structs.replace(waits, ending=None, last=last)


def lost(record: Record, init: Collection[str], now: float) -> Record:
    """The node was started anew: whatever ran is gone, and begins again with a further restart in a further sandbox.

    So do the containers named by ``init``, since what they prepared is gone.
    """
    runs = {}
    for name, run in record.runs.items():
        if run.state is State.RUNNING:
            gone = ended(run, now, exit_code=255, reason="Unknown", message="The node was restarted.")
            runs[name] = msgspec.structs.replace(waiting(gone, "ContainerCreating"), program="", retry_at=0.0)
        elif run.state is State.WAITING:
            runs[name] = msgspec.structs.replace(run, retry_at=0.0)
        elif name in init:
            runs[name] = msgspec.structs.replace(waiting(run, "PodInitializing"), program="", retry_at=0.0)
        else:
            runs[name] = run
    return msgspec.structs.replace(record, addresses=(), initialized=False, runs=runs)
