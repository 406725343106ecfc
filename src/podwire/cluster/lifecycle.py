"""The life of a cluster as a person sees it: up, down, down --keep, up again; and that each is whole or did not happen.

``up``: specification, plan, state directory, door (which starts everything else), credentials while that boots, readiness,
kubeconfig entry, commit. Until the commit, the end of this process for whatever reason is the end of the cluster: door waits
for it. ``down``: a marker first, then the end of init, then the files. What a kill left in between, the next command removes.

What must not be here: how anything looks (cli/), what runs (plan.py), how it is kept running (supervisor.py).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from podwire.cluster import identity, kubeconfig, limits, packets, ports, private, state
from podwire.cluster.changes import Changes
from podwire.cluster.paths import Paths
from podwire.cluster.problem import Problem
from podwire.cluster.spec import OPEN_FILES, ClusterSpec, manifest, parse
from podwire.cluster.state import Entry, State

END_LIMIT_S = 10.0
START_LIMIT_S = 30.0
LOCK_LIMIT_S = 2.0
LOOK_AGAIN_S = 0.005
ROOM = 1 << 18
SILENCE_S = 3.0  # nothing changes for so long: look why

Report = dict[str, Any]


class Failed(Problem):
    """What was asked could not be done. The text says why and what to do."""


class NotReady(Failed):
    """The cluster runs and was not ready in time."""


@dataclass(frozen=True)
class Wanted:
    """What ``up`` was asked for. ``spec_text`` is None when no file was named; ``kubeconfig`` None for no entry."""

    name: str | None
    spec_text: str | None = None
    spec_file: str = ""
    zones: int | None = None
    nodes_per_zone: int | None = None
    api_port: int = 0
    kubeconfig: str | None = None
    wait_s: float = 120.0
    privileged: bool = False


# Up ----------------------------------------------------------------------------------------------------------------------


def up(wanted: Wanted, environment: Mapping[str, str], progress: Callable[[Report], None]) -> Report:
    """Make the cluster or start one that was kept; give its status when it is ready (or, with ``wait_s`` 0, has started).

    ``progress`` is called with the status as often as it changes. Raises Failed, spec.Invalid, state.Unusable, ports.Refused,
    kubeconfig.Unusable; then nothing is left of what was begun, but for NotReady.
    """
    spec = parse(wanted.spec_text or "", file=wanted.spec_file, name=wanted.name, zones=wanted.zones, nodes_per_zone=wanted.nodes_per_zone)
    _enough_open_files()
    if wanted.privileged:
        limits.check()
    place, lock = _claim(spec.name, environment)
    try:
        begun = _begin(place, spec, wanted, private.names(environment, private.homes(), state.base(environment)))
    except BaseException as failure:
        roll_back(place)
        raise _worded(failure, place) from None
    birth = _Birth(place, begun, lock)
    try:
        return birth.carry_out(wanted, progress)
    except packets.Closed:
        birth.undo()
        raise Failed("the cluster ended while it was started; see `podwire doctor`") from None
    except BaseException as failure:
        birth.undo()
        raise _worded(failure, place) from None
    finally:
        os.close(lock)


def _enough_open_files() -> None:
    """Refuse a limit that processes would run into one by one, each in words of its own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < OPEN_FILES:
        advice = f"raise the hard limit (`ulimit -n {OPEN_FILES}` as root, or limits.conf)"
        raise Failed(f"this user may open {hard} files, at least {OPEN_FILES} are needed: {advice}")


def _worded(failure: BaseException, place: Paths) -> BaseException:
    """Say of a full or broken disk where it is; the system's own error does not."""
    if isinstance(failure, OSError) and failure.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}:
        advice = "Make room there, or set XDG_STATE_HOME (or HOME) to a folder that has it; nothing is left of what was begun."
        return Failed(f"cannot keep the cluster's state in {place.root}: {failure.strerror}. {advice}")
    return failure


def _claim(name: str, environment: Mapping[str, str]) -> tuple[Paths, int]:
    """Take the lock of a cluster that does not run; what a killed command left of it is removed first."""
    place = state.paths(name, environment)
    limit = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            lock = state.make(place)
        except state.Busy:
            if state.read_run(place) or time.monotonic() > limit:
                raise Failed(_busy(place, name)) from None
            time.sleep(LOOK_AGAIN_S)
            continue
        if state.is_rubble(place) and set(os.listdir(place.root)) != {"lock"}:
            state.remove(place, forget_entry)
            os.close(lock)
            continue
        return place, lock


def _busy(place: Paths, name: str) -> str:
    if state.is_marked(place, "deleting"):
        return f'cluster "{name}" is being deleted by another command'
    if state.is_marked(place, "making"):
        return f'cluster "{name}" is being made by another command'
    return f'cluster "{name}" is already running'


def _begin(place: Paths, spec: ClusterSpec, wanted: Wanted, hidden: tuple[str, ...]) -> State:
    """Write down what is to be, or read what was. ``hidden``: what containers may not see, by the environment of now."""
    fresh = manifest(spec)
    try:
        kept = state.read(place)
    except FileNotFoundError:
        state.mark(place, "making")
        begun = State(spec.name, fresh, api_port=wanted.api_port, private=hidden)
        state.write(place, begun)
        return begun
    changes = wanted.spec_text is not None or wanted.zones is not None or wanted.nodes_per_zone is not None
    if changes and kept.spec != fresh:
        raise Failed(
            f'cluster "{spec.name}" was kept with another specification. '
            f"Start it as it was (podwire up --name {spec.name}), or delete it first (podwire down --name {spec.name})."
        )
    kept = replace(kept, private=hidden)
    state.write(place, kept)
    return kept


class _Birth:
    """One attempt to start a cluster, from door to commit."""

    def __init__(self, place: Paths, begun: State, lock: int) -> None:
        self._place = place
        self._state = begun
        self._lock = lock
        self._boot: socket.socket | None = None
        self._door: subprocess.Popen[bytes] | None = None
        self._committed = False

    def carry_out(self, wanted: Wanted, progress: Callable[[Report], None]) -> Report:
        place = self._place
        for folder in (place.logs, f"{place.root}/config", f"{place.root}/nodes"):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        api = ports.listening(self._state.api_port)
        if not self._state.api_port:
            self._state = replace(self._state, api_port=api.getsockname()[1])
            state.write(place, self._state)
        limits.remove(place)  # of a cluster that was killed
        if wanted.privileged:
            limits.make(place)
        with api, packets.listen(place.control_socket) as control:
            self._open_door({"listen/api": api.fileno(), "control": control.fileno()})
        prepare(place, self._state)
        self._hear_door("started")
        with contextlib.closing(packets.connect(place.control_socket)) as supervisor:
            packets.send(supervisor, {"request": "start"})
            if not select.select([supervisor], [], [], START_LIMIT_S)[0]:
                raise Failed(f"the lab's supervisor does not answer{last_line(place.log('supervisor'))}")
            answer = packets.receive(supervisor).message
            if "error" in answer or not wanted.wait_s:
                _look_for_what_is_missing(place, answer.get("error", ""))
            if "error" in answer:
                raise Failed(answer["error"])
            try:
                report = _wait(place, supervisor, wanted.wait_s, progress) if wanted.wait_s else answer
            except NotReady:
                _look_for_what_is_missing(place)
                self._commit(wanted)
                raise
        self._commit(wanted)
        return report

    def _open_door(self, held: Mapping[str, int]) -> None:
        self._boot, far = packets.pair()
        words = [sys.executable, "-m", "podwire.cluster.door", self._place.root, "--boot", str(far.fileno()), "--lock", str(self._lock)]
        for name, descriptor in held.items():
            words += ["--hold", f"{name}={descriptor}"]
        for registry in parse(json.dumps(self._state.spec)).machine_registries:
            words += ["--registry", registry]
        log = os.open(self._place.log("door"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._door = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                pass_fds=(far.fileno(), self._lock, *held.values()),
            )
        finally:
            os.close(log)
            far.close()

    def _hear_door(self, word: str) -> None:
        assert self._boot
        try:
            message = packets.receive(self._boot).message
        except packets.Closed:
            _look_for_what_is_missing(self._place)
            raise Failed(f"the cluster ended while it was started{last_line(self._place.log('door'))}") from None
        if word not in message:
            raise Failed(str(message.get("error", message)))

    def _commit(self, wanted: Wanted) -> None:
        """Make it last. The kubeconfig entry is written down before it is made, so that a roll-back finds it.

        From here on Ctrl-C comes too late: it would leave a person in doubt about what was done.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert self._boot
        assert self._door
        if wanted.kubeconfig:
            url = f"https://127.0.0.1:{self._state.api_port}"
            entry = identity.admin_entry(self._place, self._state.name, url)
            made = Entry(wanted.kubeconfig, entry.context)
            state.write(self._place, replace(self._state, kubeconfig=made))
            before = kubeconfig.add(wanted.kubeconfig, entry)
            self._state = replace(self._state, kubeconfig=replace(made, before=before))
            state.write(self._place, self._state)
        packets.send(self._boot, {"commit": {}})
        self._hear_door("committed")
        self._committed = True
        self._boot.close()
        self._door.returncode = 0  # it goes on living, and that is no leak

    def undo(self) -> None:
        """Have everything taken back, and wait for that. Idle where the commit has been made."""
        with _uninterrupted():
            if self._boot is not None and self._door is not None and self._door.returncode is None:
                with contextlib.suppress(OSError):
                    self._boot.shutdown(socket.SHUT_WR)
                if not self._both_gone():
                    self._door.kill()
                    self._both_gone()
                self._door.wait()
            if not self._committed:
                roll_back(self._place)

    def _both_gone(self) -> bool:
        """Wait for door and init: each has the other end of the boot channel. A process that still lives may still write."""
        assert self._boot
        limit = time.monotonic() + END_LIMIT_S
        with contextlib.suppress(packets.Closed):
            while select.select([self._boot], [], [], max(0.0, limit - time.monotonic()))[0]:
                packets.receive(self._boot)
            return False
        return True


def roll_back(place: Paths) -> None:
    """Take back what ``up`` began, with the lock held: all of a new cluster, the kubeconfig entry of one that had been kept."""
    if not os.path.exists(place.root):
        return
    if state.is_rubble(place):
        state.remove(place, forget_entry)
        return
    kept = state.read(place)
    with contextlib.suppress(OSError):
        limits.remove(place)
    if kept.kubeconfig:
        forget_entry(kept.kubeconfig)
        state.write(place, replace(kept, kubeconfig=None))


def prepare(place: Paths, kept: State, changes: Changes | None = None) -> None:
    """Write the files that the lab's processes are started with: credentials, configurations, the first objects.

    ``changes``: those that are about to be made; without, those that are kept.
    """
    from podwire.cluster import addons, credentials
    from podwire.cluster.plan import kubelet_names, plan

    changes = state.read_changes(place) if changes is None else changes
    spec, own = parse(json.dumps(kept.spec)), limits.words(place)
    planned = plan(spec, place, api_port=kept.api_port, changes=changes, private=kept.private, cgroups=own)
    credentials.ensure(
        place,
        planned.identities,
        server_names=planned.server_names,
        server=planned.api_url,
        cluster=kept.name,
        kubelets=kubelet_names(planned.nodes),
    )
    dns = [sys.executable, "-m", "podwire", "agent", "dns"]
    files = {**planned.files, f"{place.root}/config/addons.json": json.dumps(addons.trees(planned, dns)).encode()}
    for file, content in files.items():
        if _holds(file, content):
            continue  # a process may be reading it
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.write(content)


def _holds(file: str, content: bytes) -> bool:
    try:
        with open(file, "rb") as stream:
            return stream.read() == content
    except FileNotFoundError:
        return False


def _wait(place: Paths, supervisor: socket.socket, limit_s: float, progress: Callable[[Report], None]) -> Report:
    packets.send(supervisor, {"request": "wait"})
    limit = time.monotonic() + limit_s
    report: Report = {}
    looked = False
    while True:
        ready, _, _ = select.select([supervisor], [], [], max(0.0, min(SILENCE_S, limit - time.monotonic())))
        if not ready and time.monotonic() < limit:
            _look_for_what_is_missing(place)
            continue
        if not ready:
            waiting = "\n".join(f"  {line}" for line in report.get("waiting", []))
            raise NotReady(
                f"the cluster runs, but was not ready after {limit_s:g} s:\n{waiting}\n"
                "See `podwire status` and `podwire logs`; `podwire down` removes it."
            )
        report = packets.receive(supervisor).message
        if "error" in report:
            raise Failed(report["error"])
        progress(report)
        if report["ready"]:
            return report
        if not looked and any(process["state"] == "failed" for process in report["processes"]):
            looked = True
            _look_for_what_is_missing(place)


def _look_for_what_is_missing(place: Paths, said: str = "") -> None:
    """Raise Failed where the kernel lacks a feature, OSError where the disk lacks room: waiting does not help then.

    ``said`` is what went wrong; it comes first. Only asked when something did: it costs 0.2 s.
    """
    from podwire.cluster import doctor

    trial = f"{place.root}/room"
    try:
        with open(trial, "wb") as stream:
            stream.write(bytes(ROOM))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(trial)
    missing = [finding for finding in doctor.features() if finding.status == "failed"]
    if missing:
        lines = [f"  {finding.name}: {finding.found}\n    {finding.advice}" for finding in missing]
        head = "this machine lacks what a cluster needs (see `podwire doctor`); nothing is left of what was begun:"
        raise Failed("\n".join([*([said] if said else []), head, *lines]))


# Down --------------------------------------------------------------------------------------------------------------------


def down(name: str, environment: Mapping[str, str], *, keep: bool = False) -> str:
    """End a cluster and delete its state, or with ``keep`` only end it. Gives what was done, for a person. Raises Failed."""
    place = state.paths(name, environment)
    if not os.path.isdir(place.root):
        raise Failed(f'there is no cluster "{name}"')
    ran = False
    limit = time.monotonic() + END_LIMIT_S
    while True:
        try:
            lock = state.take(place)
            break
        except FileNotFoundError:
            if ran:
                return f'cluster "{name}" is deleted'
            raise Failed(f'there is no cluster "{name}"') from None
        except state.Busy:
            if not keep:
                with contextlib.suppress(OSError):  # gone meanwhile, or the disk is full, which ends no cluster
                    state.mark(place, "deleting")
            _end_processes(place)
            ran = True
            if time.monotonic() > limit:
                raise Failed(f'cluster "{name}" does not end: another command holds {place.lock}') from None
    try:
        return _settle(place, name, keep=keep, ran=ran)
    finally:
        os.close(lock)


def _settle(place: Paths, name: str, *, keep: bool, ran: bool) -> str:
    if keep and not state.is_rubble(place):
        if not ran:
            raise Failed(f'cluster "{name}" is not running')
        roll_back(place)
        return f'cluster "{name}" has ended; `podwire up --name {name}` starts it again'
    with _uninterrupted():
        state.remove(place, forget_entry)
    return f'cluster "{name}" is deleted'


def _end_processes(place: Paths) -> None:
    """Kill init, with which the kernel ends everything, and wait for door, which goes when init goes."""
    run = state.read_run(place)
    if run is None:
        time.sleep(LOOK_AGAIN_S)  # an `up` that has not written it down yet, or a command that only looks
        return
    limit = time.monotonic() + END_LIMIT_S / 2
    for process in (run.init, run.door):
        descriptor = state.open_process(process) if process else None
        if descriptor is None:
            continue
        try:
            if process == run.init or run.init is None:
                _kill(descriptor)
            if not select.select([descriptor], [], [], max(0.0, limit - time.monotonic()))[0]:
                _kill(descriptor)
        finally:
            os.close(descriptor)


def _kill(descriptor: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)


# What all share ----------------------------------------------------------------------------------------------------------


def forget_entry(entry: Entry) -> None:
    """Remove a kubeconfig entry; a file that cannot be changed any more does not stop the rest."""
    try:
        kubeconfig.remove(entry.file, entry.context, entry.before)
    except kubeconfig.Unusable as error:
        print(f"podwire: the context {entry.context} stays: {error}", file=sys.stderr)


@dataclass(frozen=True)
class Listed:
    name: str
    state: str
    nodes: int
    api_server: str


def clusters(environment: Mapping[str, str]) -> list[Listed]:
    """List all clusters; what killed commands left is removed first."""
    list(state.sweep(environment, forget_entry))
    found: list[Listed] = []
    for name in state.names(environment):
        place = state.paths(name, environment)
        try:
            kept = state.read(place)
        except FileNotFoundError:
            continue
        except state.Unusable:
            found.append(Listed(name, "unreadable", 0, ""))
            continue
        word = "kept" if state.is_free(place) else "starting" if state.is_marked(place, "making") else "running"
        found.append(Listed(name, word, parse(json.dumps(kept.spec)).node_count, f"https://127.0.0.1:{kept.api_port}"))
    return found


def last_line(file: str) -> str:
    """Give ": " and the last line of a log, or nothing."""
    with contextlib.suppress(OSError), open(file, "rb") as stream:
        lines = stream.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""
    return ""


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let no Ctrl-C stop what cleans up."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
