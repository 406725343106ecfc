"""One Pod's life on its node: volumes, sandbox, init containers, containers, and its end.

One task drives a Pod from the moment it is the node's until nothing of it is left; what it knows is the ``Record``, replaced as
things happen and written to disk at once. It may be killed at any point: a new one with the same record goes on.

Not here: the life of one container (``container``), what the status says (``status``), how a program is started (``machine``).

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from podwire.objects.core import Container, Pod
from podwire.pods import admission, desired, preemption
from podwire.pods.admission import Refusal
from podwire.pods.container import LEAST_GRACE_S, ContainerLife, cancelled
from podwire.pods.desired import Player, is_sidecar, player
from podwire.pods.fitting import begins_anew, with_allocated
from podwire.pods.host import Host, SandboxFailed
from podwire.pods.runs import Record, Run, State, began, ended
from podwire.pods.standins.client import StandinsRefused
from podwire.pods.standins.directions import Directions, Fault, accepted
from podwire.pods.standins.messages import Port, Role
from podwire.pods.status import amounts_of, first_run, init_done, is_initialized
from podwire.pods.status_writer import StatusWriter
from podwire.pods.volumes.pod_volumes import PodVolumes

_SANDBOX_RETRY_S = (1.0, 30.0)
_VANISHED_GRACE_S = 2.0
_DEADLINE = "Pod was active on the node longer than the specified deadline"


async def _at_once() -> None:
    """Nobody has to make room."""


class PodWorker:
    """``record`` and ``namespace`` are what is left of the Pod from an agent before this one; the descriptor becomes the worker's.

    ``misfit``: why the node does not take the Pod. ``unresizable``: why it cannot have other resources (``fitting``). ``vacated`` returns
    when those have ended that had to make room.
    """

    def __init__(
        self,
        host: Host,
        pod: Pod,
        record: Record | None = None,
        namespace: int | None = None,
        misfit: Refusal | None = None,
        unresizable: Callable[[Pod], tuple[str, str]] = lambda _pod: ("", ""),
        vacated: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        self.pod = pod
        # A Pod that ended on this node before anything was written down of it here is not begun again.
        over = pod.status.phase in {"Succeeded", "Failed"}
        fresh = Record(uid=pod.metadata.uid, namespace=pod.namespace, name=pod.name, start_time=host.now(), finished=over)
        if record is None and not over:
            fresh = msgspec.structs.replace(fresh, images=host.images.choose(pod))
        self.record = record or fresh
        self.namespace = namespace
        self.refusal = None if over else _refusal(host, pod, self.record) or misfit
        self._unresizable, self._vacated = unresizable, vacated
        self._preempted = False
        self.over = asyncio.Event()
        """Set when nothing of the Pod runs nor will."""
        self.ending = asyncio.Event()
        self.vanished = False
        self._deletion = asyncio.Event()
        self._host = host
        self._played: tuple[Role, tuple[Port, ...]] | None = None
        self._faults: frozenset[Fault] = frozenset()
        self.directions = Directions()
        self._lives: dict[str, ContainerLife] = {}
        self._ports_may_differ = asyncio.Event()
        self._status = StatusWriter(host, self)
        self._news = asyncio.Event()
        self.volumes = PodVolumes(host.volumes, pod, self.event, {*self.record.images, *host.images.only(pod)})
        self._told = asyncio.Event()
        self._lives_in: asyncio.TaskGroup | None = None
        self._ephemeral: dict[str, asyncio.Task[None]] = {}
        self._change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone = False
        self._direct()
        if namespace is not None and is_initialized(pod, self.record):
            host.standins.expect(*self._playing(), namespace)
        if pod.terminating:
            self._deletion.set()
        if pod.terminating or self.record.reason:
            self.ending.set()

    # What others tell -----------------------------------------------------------------------------------------------------

    def update(self, pod: Pod) -> None:
        """The object has changed."""
        former, self.pod = self.pod, pod
        if pod.terminating:
            self.ending.set()
            self._deletion.set()
        if former.metadata.generation != pod.metadata.generation:
            self._resize(former)
            images = {one.name: one.image for one in _all(former)}
            for container in _all(pod):
                if container.name in self._lives and images.get(container.name) != container.image:
                    self._lives[container.name].redefine()
        gates = former.status.conditions != pod.status.conditions and pod.spec.readiness_gates
        if gates or (former.metadata.generation != pod.metadata.generation and not pod.terminating):
            self._status.changed()
        self.volumes.update(pod)
        if former.metadata.labels != pod.metadata.labels:
            self._ports_may_differ.set()
        if former.metadata.annotations != pod.metadata.annotations:
            self._direct()
        if former.spec.ephemeral_containers != pod.spec.ephemeral_containers:
            self._start_ephemeral()
        self._told.set()

    def _resize(self, former: Pod) -> None:
        """What containers ask for may be different now. The node gives it to them, or says why not."""
        before = {one.name: one for one in _all(former)}
        changed = [one for one in _all(self.pod) if one.name in before and one.resources != before[one.name].resources]
        if changed and not self.record.allocated:
            self._write(allocated={one.name: amounts_of(before[one.name]) for one in changed})
        if self.record.allocated:
            self.reconsider()

    def reconsider(self) -> None:
        """What the node did not have it may have now."""
        if not self.record.allocated or self.ending.is_set():
            return
        why = self._unresizable(self.pod)
        if why[0]:
            self._write(unresized=why)
            return
        had = self.record.allocated
        self._write(allocated={}, unresized=("", ""))
        for container in _all(self.pod):
            if container.name in had and container.name in self._lives and begins_anew(container, had[container.name]):
                self._lives[container.name].redefine()
        running = {name: run.restarts for name, run in self.record.runs.items() if run.program and run.state is State.RUNNING}
        if refused := self._host.cgroups.resize(self.pod, running):
            self.event("Warning", "FailedResize", f"limits of cgroups stay as they were: {refused}")
        self._status.changed()

    @property
    def allocated(self) -> Pod:
        """The Pod with the resources that it has."""
        return with_allocated(self.pod, self.record.allocated)

    def vanish(self) -> None:
        """The object is gone without our having agreed to it."""
        self.vanished = True
        self.ending.set()
        self._deletion.set()
        self._told.set()

    def preempt(self) -> None:
        """A critical Pod is to have this one's room."""
        self._preempted = True
        self._told.set()

    def services_changed(self) -> None:
        """A Service of the Pod's namespace has changed."""
        self._ports_may_differ.set()

    @property
    def takes_room(self) -> bool:
        """Whether the Pod counts when the node is asked for room: until it has ended, or was taken away by force."""
        refused = self.refusal is not None and not self.record.sandbox
        return not (refused or self.record.finished or self.vanished)

    # Life -----------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live the Pod's life until nothing of it is left. When cancelled, everything of it stays as it is."""
        writer = asyncio.create_task(self._status.run())
        live = asyncio.create_task(self._live())
        deletion = asyncio.create_task(self._deletion.wait())
        doom = asyncio.create_task(self._doom())
        try:
            if self.record.reason and not self.record.finished:  # an agent before this one was about to
                await self._fail(live)
            await asyncio.wait({live, deletion, doom}, return_when=asyncio.FIRST_COMPLETED)
            if not live.done() and not deletion.done():
                kind, reason, message = doom.result()
                self.event(kind, reason, message)
                self._write(reason=reason, message=message)
                await self._fail(live)
            elif live.done() and not live.cancelled():
                live.result()
            await deletion
            await self._terminate(live)
            await cancelled(writer)
            await self._status.finish(vanished=self.vanished)
            await self._host.remove_files(self.record.uid)
        finally:
            await cancelled(live, deletion, writer, doom)
            self.volumes.close()
            self._let_go()
            self.gone = True
            self.over.set()
            self._announce()

    def _let_go(self) -> None:
        if self.namespace is not None:
            os.close(self.namespace)
            self.namespace = None

    async def _live(self) -> None:
        if self.record.finished:
            if self.record.runs or self.record.reason:
                self._status.changed()
            return
        if self.ending.is_set():
            # Whoever was killed while the Pod ended left containers that run: their ends are awaited here.
            running = [container for container in _all(self.pod) if self._run(container).state is State.RUNNING]
            await asyncio.gather(*(self._life(container).live() for container in running))
            return
        refusal = self.refusal
        if refusal is not None and not self.record.sandbox:
            self._write(reason=refusal.reason, message=f"Pod was rejected: {refusal.message}", finished=True)
            self.event("Warning", refusal.reason, refusal.message)
            return
        if self.namespace is None:
            self._status.changed()
            await self._vacated()
            await self.volumes.prepare()
            await self._make_sandbox()
        await self._run_containers()
        if not self.ending.is_set():
            await self._finish()

    async def _run_containers(self) -> None:
        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(self._follow_ports())]
            if self.volumes.used:
                followers.append(group.create_task(self.volumes.follow()))
            self._lives_in = group
            self._start_ephemeral()
            self._status.changed()
            sidecars = []
            for container in self.pod.spec.init_containers:
                if is_sidecar(container):
                    sidecars.append(group.create_task(self._life(container).live()))
                    await self._until_done(container)
                elif not await self._initialize(container):
                    break
            if is_initialized(self.pod, self.record):
                if self.pod.spec.init_containers:
                    self._write(initialized=True)
                await self._play()
                tasks = [group.create_task(self._life(container).live()) for container in self.pod.spec.containers]
                await asyncio.wait(tasks)
            if not self.ending.is_set():
                self._say_stopping()
                await self._stop_sidecars(float(self.pod.spec.termination_grace_period_seconds))
                for task in sidecars:
                    task.cancel()
            self._lives_in = None
            for follower in (*followers, *self._ephemeral.values()):
                follower.cancel()

    def _start_ephemeral(self) -> None:
        """Start each ephemeral container once, as long as the others run."""
        group = self._lives_in
        if group is None:
            return
        for container in self.pod.spec.ephemeral_containers:
            if container.name not in self._ephemeral:
                if container.name not in self.record.runs:
                    self.take_image(container.name)
                self._ephemeral[container.name] = group.create_task(self._life(container).live())

    async def _initialize(self, container: Container) -> bool:
        """Run an init container to its end, again if it may be. A stand-in succeeds at once."""
        if self.record.initialized or init_done(container, self.record):
            return True
        standing_in = player(container, self.record.images) is Player.STAND_IN and container.name not in self._host.images.only(self.pod)
        if standing_in and desired.ending(self.pod, container, self.directions) == (0, 0.0):
            now = self._host.now()
            number = self._run(container).restarts
            identity = f"podwire://{self.record.uid}/{container.name}/{number}"
            self.put(container.name, ended(began(self._run(container), now, container_id=identity), now, exit_code=0))
            return True
        await self._life(container).live()
        return init_done(container, self.record)

    async def _until_done(self, container: Container) -> None:
        while not self.record.initialized and not init_done(container, self.record):
            self._news.clear()
            await self._news.wait()

    async def _finish(self) -> None:
        """Every container has ended for good: the Pod gives back its network and waits to be deleted."""
        await self._host.remove_sandbox(self.record)
        self._host.volumes.remove(self.record.uid)
        self._let_go()
        for container in self.pod.spec.ephemeral_containers:
            run = self._run(container)
            if run.state is State.RUNNING:  # ended with the sandbox
                self.put(container.name, ended(run, self._host.now(), exit_code=128 + signal.SIGKILL, signal=signal.SIGKILL))
        self._write(finished=True)
        self.over.set()

    # Sandbox and ports ------------------------------------------------------------------------------------------------------

    async def _make_sandbox(self) -> None:
        wait_s, longest_s = _SANDBOX_RETRY_S
        while True:
            making = asyncio.create_task(self._host.make_sandbox(self.pod, self.record))
            try:
                # What is half-made cannot be taken away: whoever cancels this waits for it to be whole.
                try:
                    self.record, self.namespace = await asyncio.shield(making)
                except asyncio.CancelledError:
                    with contextlib.suppress(SandboxFailed):
                        self.record, self.namespace = await making
                    raise
            except SandboxFailed as failed:
                self.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {failed}")
                self._status.changed()
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, longest_s)
            else:
                return

    def _direct(self) -> None:
        """Follow what the annotations tell the stand-ins now; what is wrong with one is said once."""
        told, faults = accepted(self.pod.metadata.annotations, [one.name for one in _all(self.pod)], self.directions.told)
        for fault in faults:
            if fault not in self._faults:
                self.event("Warning", "InvalidStandinAnnotation", str(fault))
        self._faults = frozenset(faults)
        if told == self.directions.told:
            return
        self.directions = Directions.of(told)
        for life in self._lives.values():
            life.redirect()
        self._ports_may_differ.set()

    def standin_ended(self, container: str, exit_code: int) -> None:
        """A stand-in was asked to end, over the network."""
        if container in self._lives:
            self._lives[container].stand_in_ended(exit_code)

    def _playing(self) -> tuple[Role, tuple[Port, ...]]:
        """What the stand-ins' process is to know of the Pod now. A container that has ended and does not run again listens nowhere."""
        runs = self.record.runs
        down = {name for name, run in runs.items() if run.state is not State.RUNNING and (run.ending or run.last) is not None}
        down |= self._host.images.only(self.pod)
        ports = desired.standin_ports(self.pod, self._host.services(self.pod.namespace), down, self.record.images)
        restarts = {name: run.restarts for name, run in runs.items()}
        logs = self._host.records.path("").rstrip("/")
        return desired.role(self.pod, self._host.facts, self.ip, self.directions.told, restarts, logs, self.record.images), ports

    async def _play(self) -> None:
        """Let the stand-ins listen where they should now, and behave as they should."""
        role, ports = playing = self._playing()
        if playing == self._played or self.namespace is None:
            return
        if not ports and (self._played is None or not self._played[1]):
            self._played = playing
            return
        try:
            failures = await self._host.standins.play(role, ports, self.namespace)
        except StandinsRefused as refused:
            failures = {"any port": str(refused)}
        self._played = playing
        for port, reason in failures.items():
            self.event("Warning", "PortNotServed", f"Stand-in does not listen on {port}: {reason}")

    async def _follow_ports(self) -> None:
        while True:
            await self._ports_may_differ.wait()
            self._ports_may_differ.clear()
            if is_initialized(self.pod, self.record):
                await self._play()

    # What containers know of their Pod --------------------------------------------------------------------------------------

    @property
    def ip(self) -> str:
        return self.record.addresses[0] if self.record.addresses else self._host.facts.ip

    def put(self, container: str, run: Run) -> None:
        """Replace what is known of a container."""
        former = self.record.runs.get(container)
        if run != former:
            self.record = self.record.with_run(container, run)
            if former is not None and former.state is not run.state:
                self._ports_may_differ.set()
            self._host.records.write(self.record)
            self._news.set()
            self._announce()
            self._status.changed()

    async def changed(self) -> None:
        """Wait until something becomes of a container, or all is gone."""
        await asyncio.shield(self._change)

    def _announce(self) -> None:
        self._change.set_result(None)
        self._change = asyncio.get_running_loop().create_future()

    def event(self, kind: str, reason: str, message: str, field_path: str = "") -> None:
        """Report something that has happened to the Pod."""
        self._host.events.event(self.pod, kind, reason, message, field_path)

    def take_image(self, container: str) -> None:
        """Run a container from its image from now on."""
        chosen = self._host.images.choose(self.pod)
        self._write(images={**self.record.images, **{name: image for name, image in chosen.items() if name == container}})

    def forget_image(self, container: str) -> None:
        """Let a stand-in play a container from now on."""
        self._write(images={name: image for name, image in self.record.images.items() if name != container})
        self._ports_may_differ.set()

    def _run(self, container: Container) -> Run:
        return self.record.runs.get(container.name, first_run(self.pod))

    def _life(self, container: Container) -> ContainerLife:
        if container.name not in self._lives:
            self._lives[container.name] = ContainerLife(self._host, self, container.name)
        return self._lives[container.name]

    def _write(self, **changes: object) -> None:
        changed = msgspec.structs.replace(self.record, **changes)
        if changed != self.record:
            self.record = changed
            self._host.records.write(changed)
            self._status.changed()

    # End --------------------------------------------------------------------------------------------------------------------

    async def _doom(self) -> tuple[str, str, str]:
        """Wait for what may not go on; gives the Event's type, and reason and message of the Pod's failure."""
        if not self.volumes.used:
            return await self._deadline()
        deadline = asyncio.create_task(self._deadline())
        exceeded = asyncio.create_task(self.volumes.exceeded())
        try:
            await asyncio.wait({deadline, exceeded}, return_when=asyncio.FIRST_COMPLETED)
            return deadline.result() if deadline.done() else ("Warning", "Evicted", exceeded.result())
        finally:
            await cancelled(deadline, exceeded)

    async def _deadline(self) -> tuple[str, str, str]:
        """Return when the Pod has been active for as long as it may be, or is to make room."""
        while True:
            self._told.clear()
            if self._preempted:
                return "Warning", preemption.REASON, preemption.MESSAGE
            limit = self.pod.spec.active_deadline_seconds
            left_s = None if limit is None else self.record.start_time + limit - self._host.now()
            if left_s is not None and left_s <= 0:
                return "Normal", "DeadlineExceeded", _DEADLINE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._told.wait()

    async def _fail(self, live: asyncio.Task[None]) -> None:
        """End the Pod because it may not go on: its object stays, with the reason."""
        self.ending.set()
        self._say_stopping()
        await self._stop_containers(live, float(self.pod.spec.termination_grace_period_seconds))
        await cancelled(live)
        await self._finish()

    async def _terminate(self, live: asyncio.Task[None]) -> None:
        """End the containers, then take everything away. A grace that is shortened meanwhile counts from then on."""
        self._say_stopping()
        while True:
            self._told.clear()
            grace_s = self._deletion_grace_s()
            stopping = asyncio.create_task(self._stop_containers(live, grace_s))
            while not stopping.done() and self._deletion_grace_s() >= grace_s:
                told = asyncio.create_task(self._told.wait())
                await asyncio.wait({stopping, told}, return_when=asyncio.FIRST_COMPLETED)
                await cancelled(told)
                self._told.clear()
            if stopping.done():
                stopping.result()
                break
            await cancelled(stopping)
        await cancelled(live)
        if not self.record.finished:
            await self._finish()

    def _deletion_grace_s(self) -> float:
        grace = self.pod.metadata.deletion_grace_period_seconds
        return _VANISHED_GRACE_S if self.vanished or grace is None else float(grace)

    def _say_stopping(self) -> None:
        for container in self._running():
            part = "initContainers" if container in self.pod.spec.init_containers else "containers"
            self.event("Normal", "Killing", f"Stopping container {container.name}", f"spec.{part}{{{container.name}}}")

    def _running(self) -> list[Container]:
        return [container for container in _all(self.pod) if self._run(container).state is State.RUNNING]

    async def _stop_containers(self, live: asyncio.Task[None], grace_s: float) -> None:
        """End what runs: all at once, but sidecars after the others and each before those that were started before it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        sidecars = [one for one in self.pod.spec.init_containers if is_sidecar(one)]
        others = [container for container in self._running() if container not in sidecars]
        await asyncio.gather(*(self._stop(container, grace_s, live) for container in others))
        await self._stop_sidecars(max(LEAST_GRACE_S, deadline - loop.time()) if grace_s > 0 else 0.0, live)

    async def _stop_sidecars(self, grace_s: float, live: asyncio.Task[None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        for container in reversed([one for one in self.pod.spec.init_containers if is_sidecar(one)]):
            left_s = max(LEAST_GRACE_S, deadline - loop.time()) if grace_s > 0 else 0.0
            await self._stop(container, left_s, live)

    async def _stop(self, container: Container, grace_s: float, live: asyncio.Task[None] | None) -> None:
        """End a container for good and wait until that is written down."""
        await self._life(container).end(grace_s, for_good=True)
        while self._run(container).state is State.RUNNING and (live is None or not live.done()):
            self._news.clear()
            await self._news.wait()


def _refusal(host: Host, pod: Pod, record: Record) -> admission.Refusal | None:
    programs = [one.name for one in _all(pod) if player(one, record.images) is not Player.STAND_IN]
    return admission.refusal(pod, host.settable, programs)


def _all(pod: Pod) -> Iterable[Container]:
    return (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers)
