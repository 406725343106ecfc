"""One container's life on its node: started, probed, restarted as often as it is to run, and ended.

A container is known by its name, since its definition may change while it lives; what becomes of it is a ``Run`` of its Pod's record. An
agent that comes back makes a new life for the same run and goes on.

Not here: in which order a Pod's containers live (``worker``), how a program is made (``machine``), how probes are counted (``checks``).

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-states
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn, Protocol

import msgspec

from podwire.linux.errors import KernelRefused, ProgramNotStarted
from podwire.linux.process import Program
from podwire.objects import signals
from podwire.objects.core import Container, Pod
from podwire.pods import desired, hooks, runs, termination
from podwire.pods.admission import CannotStart
from podwire.pods.checks import Checks, Execute
from podwire.pods.desired import Player, player, runs_again
from podwire.pods.host import Host
from podwire.pods.programs import program_name
from podwire.pods.pulling import OF_IMAGES, Pulling
from podwire.pods.runs import Record, Run, State
from podwire.pods.standins import personalities
from podwire.pods.standins.directions import PREFIX, Directions
from podwire.pods.status import first_run
from podwire.pods.volumes.pod_volumes import PodVolumes

LEAST_GRACE_S = 2.0
"""What a container has left to end by itself, however long its preStop hook took."""
_NOT_STARTED_S, _NOT_CONFIGURED_S, _NOT_PULLED_S = 1.0, 10.0, 1.0
_UNKNOWN_STATUS = 255
_PRESENT = "already present on machine and can be accessed by the pod"


class Surroundings(Protocol):
    """The Pod, as its containers know it. ``ending`` is set when nothing is started any more."""

    pod: Pod
    record: Record
    ending: asyncio.Event
    volumes: PodVolumes
    directions: Directions

    @property
    def namespace(self) -> int | None: ...
    @property
    def ip(self) -> str: ...
    def put(self, container: str, run: Run) -> None: ...
    def take_image(self, container: str) -> None: ...
    def forget_image(self, container: str) -> None: ...
    def event(self, kind: str, reason: str, message: str, field_path: str = "") -> None: ...


class ContainerLife:
    """``live`` drives the container; ``end`` ends the run that there is. Both may be under way at once."""

    def __init__(self, host: Host, surroundings: Surroundings, name: str) -> None:
        self._host, self._pod, self._name = host, surroundings, name
        self._stood: asyncio.Future[int] | None = None  # the end of the stand-in that plays now
        self._stopping: asyncio.Task[None] | None = None
        self._grace_s = 0.0
        self._over = False
        self._redefined = asyncio.Event()
        self._redirected = asyncio.Event()
        self._probed = False  # what readiness says without what annotations say
        self._pulling = Pulling(host, surroundings, self._event)

    @property
    def definition(self) -> Container:
        return _named(self._name, self._pod.pod)

    @property
    def run(self) -> Run:
        return self._pod.record.runs.get(self._name, first_run(self._pod.pod))

    @property
    def _player(self) -> Player:
        return player(self.definition, self._pod.record.images)

    def _change(self, **changes: object) -> None:
        self._pod.put(self._name, msgspec.structs.replace(self.run, **changes))

    def _event(self, kind: str, reason: str, message: str) -> None:
        spec = self._pod.pod.spec
        parts = {"initContainers": spec.init_containers, "ephemeralContainers": spec.ephemeral_containers}
        part = next((part for part, found in parts.items() if any(one.name == self._name for one in found)), "containers")
        self._pod.event(kind, reason, message, f"spec.{part}{{{self._name}}}")

    def redefine(self) -> None:
        """The image is another one now: a container that runs is begun anew."""
        self._redefined.set()

    # Told by annotations --------------------------------------------------------------------------------------------------

    def redirect(self) -> None:
        """The annotations tell something else now."""
        self._redirected.set()
        if self.run.state is State.RUNNING and not self.run.program:
            ready = self._probed and not self._told_to_fail("readiness")
            if self.run.ready and not ready:
                self._event("Warning", "Unhealthy", f"Readiness probe failed: annotation {PREFIX}fail-readiness says so")
            self._change(ready=ready)

    def _told_to_fail(self, probe: str) -> bool:
        return self._player is Player.STAND_IN and self._pod.directions.fails(probe, self._name)

    def _heard_ready(self, ready: bool) -> None:
        self._probed = ready
        self._change(ready=ready and not self._told_to_fail("readiness"))

    def stand_in_ended(self, exit_code: int) -> None:
        """The stand-in that plays now was asked to end, over the network."""
        if self._stood is not None and not self._stood.done() and self.run.state is State.RUNNING:
            self._stood.set_result(exit_code)

    # Running --------------------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Run the container as often as it is to run; when the Pod ends, until the present run has ended."""
        while self.run.state is State.RUNNING or not (self._over or self._pod.ending.is_set()):
            run = self.run
            if run.state is State.TERMINATED and run.ending is not None:
                if not runs_again(self._pod.pod, self.definition, run.ending.exit_code):
                    return
                run = runs.to_restart(run, self._host.now())
                self._pod.put(self._name, run)
            if run.state is not State.RUNNING:
                await self._back_off(run)
                if self._pod.ending.is_set() or not await self._start():
                    continue
            status = await self._until_ended()
            await self._host.streams.ended(self.run.program)
            hungry = await self._host.cgroups.ended(self._pod.record.uid, self._name, self.run.restarts)
            self._note_end(*((status, 0) if status >= 0 else (128 - status, -status)), "OOMKilled" if hungry and status else "")
            if run.program:
                await self._host.programs.forget(run.program)
            if self._player is Player.IMAGE:
                await self._host.images.ended(self._pod.record.uid, self._name)

    def _note_end(self, exit_code: int, signal: int, reason: str) -> None:
        uid, run = self._pod.record.uid, self.run
        message = ""
        if run.program:
            log = self._host.streams.log_of(run.program)
            message = termination.message(self.definition, exit_code, self._host.records.termination(uid, self._name), log)
        self._pod.put(self._name, runs.ended(run, self._host.now(), exit_code=exit_code, signal=signal, reason=reason, message=message))

    async def _back_off(self, run: Run) -> None:
        wait_s = run.retry_at - self._host.now()
        if wait_s <= 0:
            return
        if run.state is State.TERMINATED:
            meta = self._pod.pod.metadata
            pod = f"{meta.name}_{meta.namespace}({meta.uid})"
            self._pod.put(self._name, runs.crash_loop(run, self._host.now(), self._name, pod))
            self._event("Warning", "BackOff", f"Back-off restarting failed container {self._name} in pod {pod}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._pod.ending.wait()

    async def _start(self) -> bool:
        """Start the container; False: it does not run, and its run says why."""
        try:
            await self._start_program()
        except CannotStart as refused:
            waits = runs.waiting(self.run, refused.reason, str(refused))
            self._pod.put(self._name, waits)
            self._event("Warning", "Failed", f"Error: {refused.reason if refused.reason in OF_IMAGES else refused}")
            if refused.reason in OF_IMAGES:
                wait_s = _NOT_PULLED_S if refused.reason == "ErrImagePull" else _NOT_CONFIGURED_S
                await self._wait_at_most(min(wait_s, self._pulling.left_s() or wait_s))
            else:
                await self._wait_at_most(_NOT_CONFIGURED_S, self._pod.volumes.changed())
            return False
        except ProgramNotStarted as refused:
            await self._not_started(refused)
            return False
        self._event("Normal", "Started", "Container started")
        return await self._post_start()

    async def _not_started(self, refused: ProgramNotStarted) -> None:
        over = runs.not_started(self.run, self._host.now(), str(refused), self._container_id())
        self._event("Warning", "Failed", f"Error: {refused}")
        if runs_again(self._pod.pod, self.definition, runs.NOT_STARTED_STATUS):
            later = runs.to_restart(over, self._host.now())
            self._pod.put(self._name, runs.waiting(later, "RunContainerError", str(refused)))
            await self._wait_at_most(_NOT_STARTED_S)
            await self._back_off(later)
        else:
            self._pod.put(self._name, over)

    async def _wait_at_most(self, seconds: float, *awaited: Coroutine[None, None, object]) -> None:
        """Wait, but not longer than until one of these has come true or the Pod ends."""
        tasks = [asyncio.create_task(one) for one in (*awaited, self._pod.ending.wait())]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancelled(*tasks)

    async def _start_program(self) -> None:
        container, host = self.definition, self._host
        self._stopping = None
        redefined = self._redefined.is_set()
        self._redefined.clear()
        pulled = await self._choose(redefined)
        name = "" if self._player is Player.STAND_IN else program_name(self._pod.record.uid, self._name, runs.next_number(self.run))
        if name:
            await self._start_named(name, pulled=pulled)
        else:
            kind = personalities.kind_of(container.image)
            player_words = f"a stand-in that behaves as {kind} plays" if kind else "a stand-in plays"
            self._event("Normal", "Pulled", f'Container image "{container.image}" is not run: {player_words} the container')
            self._event("Normal", "Created", "Container created")
        hook = container.lifecycle.post_start if container.lifecycle is not None else None
        began = runs.began(
            self.run,
            host.now(),
            program=name,
            container_id=self._container_id(),
            stop_signal=self._stop_signal(),
            starting=hook is not None,
        )
        started = container.startup_probe is None and hook is None
        self._probed = started and container.readiness_probe is None
        ready = self._probed and not self._told_to_fail("readiness")
        self._pod.put(self._name, msgspec.structs.replace(began, started=started, ready=ready))

    def _stop_signal(self) -> str:
        """What asks the container to end: the signal that its definition names, or its image."""
        lifecycle = self.definition.lifecycle
        said = lifecycle.stop_signal if lifecycle is not None else ""
        return said or self._host.images.stop_signal(self._pod.record.images.get(self._name, "")) or signals.TERMINATE

    async def _start_named(self, name: str, *, pulled: bool) -> None:
        """Start the container's program. Raises CannotStart, ProgramNotStarted."""
        container, host, spec = self.definition, self._host, self._pod.pod.spec
        if host.programs.knows(name):  # started by an agent that was killed before it could write that down
            await host.programs.end(name, 0)
            await host.programs.forget(name)
        try:
            await host.ipc.ensure(self._pod.pod)
            processes = await host.programs.share_processes(self._pod.record.uid) if spec.share_process_namespace else int(spec.host_pid)
            beside = self._target()
            if beside and not processes and self._player is Player.IMAGE:
                processes = (await host.programs.client.programs(beside))[beside].pid
            program = await self._program(fresh=True, processes=processes)
            if beside and self._player is Player.MACHINE:
                program = dataclasses.replace(program, join=beside, joins=("pid",), own_processes=False)
            number = runs.next_number(self.run)
            own = host.cgroups.establish(self._pod.pod, container, number)
            program = dataclasses.replace(program, ends_all=spec.host_pid, cgroups=own)
            if not pulled:
                self._event("Normal", "Pulled", f'Container image "{container.image}" {_PRESENT}')
            self._event("Normal", "Created", "Container created")
            await host.streams.start(name, container, program)
        except ProgramNotStarted as refused:
            if self._player is Player.IMAGE and host.images.cannot(refused):
                self._pod.forget_image(self._name)
                self._not_run(str(refused))
                raise CannotStart("CreateContainerError", str(refused)) from refused
            raise
        except (KernelRefused, ValueError) as refused:
            raise CannotStart("CreateContainerError", str(refused)) from refused

    async def _choose(self, redefined: bool) -> bool:
        """Decide who plays where that is not decided yet, and pull the image if it is to be pulled; True: it was. Raises CannotStart.

        A container that only its image may play is looked for there each time; others were decided about when the Pod began.
        """
        container, pod, images = self.definition, self._pod, self._host.images
        self._pulling.check_name(container)
        found = images.find(container.image)
        there = found is not None
        known = pod.record.images.get(container.name, "")
        if found is not None and not images.refused and found.id != known and (known or (redefined and pod.volumes.used)):
            pod.take_image(container.name)
        elif not there and redefined and known:
            pod.forget_image(container.name)
        denied = there and not images.refused and await self._pulling.is_denied(container)
        if images.pulls(container) and not images.refused and (not there or denied or container.image_pull_policy == "Always"):
            await self._pulling.pull(container)
            pod.take_image(container.name)
            return True
        if denied:
            self._refuse_never()
        if self._player is not Player.STAND_IN:
            return False
        if images.refused and (there or images.pulls(container)):
            self._not_run(images.refused)
        if container.name not in images.only(pod.pod):
            return False
        if there and not images.refused:
            pod.take_image(container.name)
            return False
        return self._refuse_never()

    def _refuse_never(self) -> NoReturn:
        words = f'Container image "{self.definition.image}" is not present with pull policy of Never'
        self._event("Warning", "ErrImageNeverPull", words)
        raise CannotStart("ErrImageNeverPull", words)

    def _not_run(self, why: str) -> None:
        image = self.definition.image
        self._event("Warning", "ImageNotRun", f'Image "{image}" is there, but cannot be run: {why}; a stand-in plays the container')

    async def _program(self, *, fresh: bool = False, processes: int = 0) -> Program:
        pod, container = self._pod, self.definition
        if self._player is Player.IMAGE:
            number = runs.next_number(self.run)
            return await self._host.images.program(pod.pod, container, pod.record, pod.namespace, pod.volumes, number, processes)
        return await self._host.machine.program(pod.pod, container, pod.record, pod.namespace, pod.volumes, fresh=fresh)

    def _target(self) -> str:
        """The program whose processes an ephemeral container is to see: its target's, where that is a program that runs."""
        target = self._pod.record.runs.get(self.definition.target_container_name)
        return target.program if target is not None and target.state is State.RUNNING else ""

    def _container_id(self) -> str:
        return f"podwire://{self._pod.record.uid}/{self._name}/{runs.next_number(self.run)}"

    async def _post_start(self) -> bool:
        """Carry out the postStart hook of a run that is starting; a container whose hook fails is ended."""
        if not self.run.starting:
            return True
        lifecycle = self.definition.lifecycle
        hook = lifecycle.post_start if lifecycle is not None else None
        if hook is not None:
            called = asyncio.create_task(hooks.call(hook, self.definition, self._pod.ip, self._execute()))
            ended = asyncio.create_task(self._wait())
            try:
                await asyncio.wait({called, ended}, return_when=asyncio.FIRST_COMPLETED)
                if called.done() and not called.result().ok:
                    self._event("Warning", "FailedPostStartHook", "PostStartHook failed")
                    self._event("Normal", "Killing", "FailedPostStartHook")
                    await self.end(float(self._pod.pod.spec.termination_grace_period_seconds))
            finally:
                await cancelled(called, ended)
        self._change(starting=False)
        return True

    # Running, probed --------------------------------------------------------------------------------------------------------

    async def _until_ended(self) -> int:
        """Probe a running container until it ends, by itself or because it is to be begun anew; gives its status."""
        if self.run.starting:  # taken up from an agent that was killed during the hook
            await self._post_start()
        ended = asyncio.create_task(self._wait())
        checks = asyncio.create_task(self._checks().run())
        changed = asyncio.create_task(self._redefined.wait())
        try:
            await asyncio.wait({ended, checks, changed}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._begin_anew(checks.result() if checks.done() else "")
            return await ended
        finally:
            await cancelled(ended, checks, changed)

    async def _begin_anew(self, probe: str) -> None:
        """End the run because a probe asks for it, or because the definition is another one now."""
        container, spec = self.definition, self._pod.pod.spec
        words = f"Container {self._name} failed {probe} probe" if probe else f"Container {self._name} definition changed"
        self._event("Normal", "Killing", words + (", will be restarted" if runs_again(self._pod.pod, container, 137) else ""))
        failed = {"startup": container.startup_probe, "liveness": container.liveness_probe}.get(probe)
        grace = failed.termination_grace_period_seconds if failed is not None else None
        await self.end(float(spec.termination_grace_period_seconds if grace is None else grace))

    def _checks(self) -> Checks:
        run = self.run
        self._probed = self._probed or run.ready
        return Checks(
            container=self.definition,
            ip=self._pod.ip,
            execute=self._execute(),
            now=self._host.now,
            started_at=run.started_at,
            started=run.started,
            ready=self._probed,
            on_started=lambda: self._change(started=True),
            on_ready=self._heard_ready,
            told_to_fail=self._told_to_fail,
            on_failure=lambda reason, words: self._event("Warning", reason, words),
        )

    def _execute(self) -> Execute | None:
        """Runs a command in the container; None for a stand-in."""
        name = self.run.program
        if not name:
            return None

        async def execute(command: Sequence[str]) -> tuple[int, bytes]:
            return await self._host.programs.output(name, self._host.streams.further(name, command), command)

        return execute

    async def _wait(self) -> int:
        name = self.run.program
        if name:
            return await self._host.programs.wait(name) if self._host.programs.knows(name) else _UNKNOWN_STATUS
        if self._stood is None:
            self._stood = asyncio.get_running_loop().create_future()
        status = await self._until_stood(self._stood)
        self._stood = None
        return status

    async def _until_stood(self, stood: asyncio.Future[int]) -> int:
        """Wait until a stand-in is ended, or ends by itself."""
        while True:
            self._redirected.clear()
            ending = desired.ending(self._pod.pod, self.definition, self._pod.directions)
            left_s = None if ending is None else max(0.0, self.run.started_at + ending[1] - self._host.now())
            redirected = asyncio.ensure_future(self._redirected.wait())
            awaited: set[asyncio.Future[Any]] = {stood, redirected}
            try:
                await asyncio.wait(awaited, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancelled(redirected)
            if stood.done():
                return stood.result()
            if ending is not None and not self._redirected.is_set():
                return ending[0]

    # End --------------------------------------------------------------------------------------------------------------------

    async def end(self, grace_s: float, *, for_good: bool = False) -> None:
        """End the present run: preStop, its stop signal, and when the grace is over SIGKILL. A shorter grace than before takes its place.

        ``for_good``: no run follows it.
        """
        self._over = self._over or for_good
        if self.run.state is not State.RUNNING:
            return
        if self._stopping is not None and not self._stopping.done() and grace_s < self._grace_s:
            await cancelled(self._stopping)
            self._stopping = None
        if self._stopping is None:
            self._grace_s = grace_s
            self._stopping = asyncio.create_task(self._end(grace_s))
        await asyncio.shield(self._stopping)

    async def _end(self, grace_s: float) -> None:
        run, loop = self.run, asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        lifecycle = self.definition.lifecycle
        if lifecycle is not None and lifecycle.pre_stop is not None and grace_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    result = await hooks.call(lifecycle.pre_stop, self.definition, self._pod.ip, self._execute())
                    if not result.ok:
                        self._event("Warning", "FailedPreStopHook", "PreStopHook failed")
        if run.program:
            asking = signals.number_of(run.stop_signal or signals.TERMINATE)
            await self._host.programs.end(run.program, max(LEAST_GRACE_S, deadline - loop.time()) if grace_s > 0 else 0.0, asking)
        else:
            if grace_s > 0 and (self._over or self._pod.ending.is_set()):
                await self._host.standins.drain(self._pod.record.uid)
            self._stood = self._stood or loop.create_future()
            if not self._stood.done():
                self._stood.set_result(0)  # a stand-in ends in good order when it is asked to


def _named(name: str, pod: Pod) -> Container:
    return next(one for one in (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers) if one.name == name)


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
