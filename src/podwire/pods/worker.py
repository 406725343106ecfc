"""One Pod's life on its node: sandbox, init containers, containers with their probes and restarts, and its end.

One task drives a Pod from the moment it is the node's until nothing of it is left; what it knows is the ``Record``, replaced as
things happen and written to disk at once. It may be killed at any point: a new one with the same record goes on.

Not here: what the status says (``status``), how probes are counted (``probes.prober``), how a program is started (``machine``).

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

import msgspec

from podwire import probes
from podwire.linux.errors import KernelRefused, ProgramNotStarted
from podwire.objects.core import Container, LifecycleHandler, Pod
from podwire.pods import desired, runs
from podwire.pods.checks import Checks, Execute, headers_of, url_of
from podwire.pods.desired import Player, is_sidecar, player
from podwire.pods.host import Host, SandboxFailed
from podwire.pods.machine import CannotStart
from podwire.pods.programs import program_name
from podwire.pods.runs import Record, Run, State
from podwire.pods.standins.client import StandinsRefused
from podwire.pods.standins.messages import Port
from podwire.pods.status import init_done, is_initialized
from podwire.pods.status_writer import StatusWriter

_SANDBOX_RETRY_S = (1.0, 30.0)
_VANISHED_GRACE_S = 2.0
_SIGTERM_STATUS = 143
_UNKNOWN_STATUS = 255


class PodWorker:
    """``record`` and ``namespace`` are what is left of the Pod from an agent before this one; the descriptor becomes the worker's."""

    def __init__(self, host: Host, pod: Pod, record: Record | None = None, namespace: int | None = None) -> None:
        self.pod = pod
        # A Pod that ended on this node before anything was written down of it here is not begun again.
        over = pod.status.phase in {"Succeeded", "Failed"}
        fresh = Record(uid=pod.metadata.uid, namespace=pod.namespace, name=pod.name, start_time=host.now(), finished=over)
        self.record = record or fresh
        self._host = host
        self._namespace = namespace
        self._ports: tuple[Port, ...] | None = None
        self._ends: dict[str, asyncio.Future[int]] = {}  # of stand-ins that run
        self._ending = asyncio.Event()
        self.vanished = False
        self._ports_may_differ = asyncio.Event()
        self._status = StatusWriter(host, self)
        self._news = asyncio.Event()
        if namespace is not None and is_initialized(pod, self.record):
            role = desired.role(pod, host.facts, self.ip)
            host.standins.expect(role, desired.standin_ports(pod, host.services(pod.namespace)), namespace)
        if pod.terminating:
            self._ending.set()

    # What others tell -----------------------------------------------------------------------------------------------------

    def update(self, pod: Pod) -> None:
        """The object has changed."""
        gates = pod.status.conditions != self.pod.status.conditions and pod.spec.readiness_gates
        relabelled = pod.metadata.labels != self.pod.metadata.labels
        self.pod = pod
        if pod.terminating:
            self._ending.set()
        if gates:
            self._status.changed()
        if relabelled:
            self._ports_may_differ.set()

    def vanish(self) -> None:
        """The object is gone without our having agreed to it."""
        self.vanished = True
        self._ending.set()

    def services_changed(self) -> None:
        """A Service of the Pod's namespace has changed."""
        self._ports_may_differ.set()

    # Life -----------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live the Pod's life until nothing of it is left. When cancelled, everything of it stays as it is."""
        writer = asyncio.create_task(self._status.run())
        live = asyncio.create_task(self._live())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({live, ending}, return_when=asyncio.FIRST_COMPLETED)
            if live.done():
                live.result()
            await ending
            await self._terminate(live)
            await self._cancelled(writer)
            await self._status.finish(vanished=self.vanished)
            self._host.records.remove(self.record.uid)
        finally:
            await self._cancelled(live, ending, writer)
            self._let_go()

    def _let_go(self) -> None:
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    @staticmethod
    async def _cancelled(*tasks: asyncio.Task[object] | asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _live(self) -> None:
        if self.record.finished:
            if self.record.runs:
                self._status.changed()
            return
        if self._ending.is_set():
            return
        if self._namespace is None:
            await self._make_sandbox()
        await self._run_containers()
        if not self._ending.is_set():
            await self._finish()

    async def _run_containers(self) -> None:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(self._follow_ports())]
            self._status.changed()
            for container in self.pod.spec.init_containers:
                if is_sidecar(container):
                    beside.append(group.create_task(self._contain(container, "Always")))
                    await self._until_done(container)
                elif not await self._initialize(container):
                    break
            if is_initialized(self.pod, self.record):
                await self._play()
                policy = self.pod.spec.restart_policy
                tasks = [group.create_task(self._contain(container, policy)) for container in self.pod.spec.containers]
                await asyncio.wait(tasks)
            for task in beside:
                task.cancel()

    async def _initialize(self, container: Container) -> bool:
        """Run an init container to its end, again if it may be. A stand-in succeeds at once."""
        if init_done(container, self.record):
            return True
        if player(container) is Player.STAND_IN:
            now = self._host.now()
            began = runs.began(self._run(container), now, container_id=self._container_id(container))
            self._set(container, runs.ended(began, now, exit_code=0))
            self._tell_player(container)
            return True
        policy = "Never" if self.pod.spec.restart_policy == "Never" else "OnFailure"
        await self._contain(container, policy)
        return init_done(container, self.record)

    async def _finish(self) -> None:
        """Every container has ended for good: the Pod gives back its network and waits to be deleted."""
        for container in reversed(self.pod.spec.init_containers):
            if is_sidecar(container) and self._run(container).state is State.RUNNING:
                await self._end(container, self.pod.spec.termination_grace_period_seconds)
                self._set(container, runs.ended(self._run(container), self._host.now(), exit_code=0))
        await self._host.remove_sandbox(self.record)
        self._let_go()
        self.record = msgspec.structs.replace(self.record, finished=True)
        self._host.records.write(self.record)
        self._status.changed()

    # Sandbox and ports ------------------------------------------------------------------------------------------------------

    async def _make_sandbox(self) -> None:
        wait_s, longest_s = _SANDBOX_RETRY_S
        while True:
            making = asyncio.create_task(self._host.make_sandbox(self.pod, self.record))
            try:
                # What is half-made cannot be taken away: whoever cancels this waits for it to be whole.
                try:
                    self.record, self._namespace = await asyncio.shield(making)
                except asyncio.CancelledError:
                    with contextlib.suppress(SandboxFailed):
                        self.record, self._namespace = await making
                    raise
            except SandboxFailed as failed:
                self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {failed}")
                self._status.changed()
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, longest_s)
            else:
                return

    async def _play(self) -> None:
        """Let the stand-ins listen where they should now."""
        ports = desired.standin_ports(self.pod, self._host.services(self.pod.namespace))
        if ports == self._ports or self._namespace is None:
            return
        if not ports and self._ports is None:
            self._ports = ports
            return
        role = desired.role(self.pod, self._host.facts, self.ip)
        try:
            failures = await self._host.standins.play(role, ports, self._namespace)
        except StandinsRefused as refused:
            failures = {"any port": str(refused)}
        self._ports = ports
        for port, reason in failures.items():
            self._event("Warning", "PortNotServed", f"Stand-in does not listen on {port}: {reason}")

    async def _follow_ports(self) -> None:
        while True:
            await self._ports_may_differ.wait()
            self._ports_may_differ.clear()
            if is_initialized(self.pod, self.record):
                await self._play()

    @property
    def ip(self) -> str:
        return self.record.addresses[0] if self.record.addresses else self._host.facts.ip

    # Containers -------------------------------------------------------------------------------------------------------------

    def _run(self, container: Container) -> Run:
        return self.record.runs.get(container.name, Run(reason="ContainerCreating"))

    def _set(self, container: Container, run: Run) -> None:
        if run != self.record.runs.get(container.name):
            self.record = self.record.with_run(container.name, run)
            self._host.records.write(self.record)
            self._news.set()
            self._status.changed()

    async def _contain(self, container: Container, policy: str) -> None:
        """Run a container as often as it is to run."""
        while not self._ending.is_set():
            run = self._run(container)
            if run.state is State.TERMINATED and run.ending is not None:
                if not runs.restarts_after(policy, run.ending.exit_code):
                    return
                run = runs.to_restart(run, self._host.now())
                self._set(container, run)
            if run.state is not State.RUNNING:
                await self._back_off(container, run)
                if not await self._start(container):
                    continue
            status = await self._until_ended(container)
            exit_code, signal = (status, 0) if status >= 0 else (128 - status, -status)
            run = self._run(container)
            self._set(container, runs.ended(run, self._host.now(), exit_code=exit_code, signal=signal))
            if run.program:
                await self._host.programs.forget(run.program)

    async def _back_off(self, container: Container, run: Run) -> None:
        wait_s = run.retry_at - self._host.now()
        if wait_s <= 0:
            return
        if run.state is State.TERMINATED:
            name, meta = container.name, self.pod.metadata
            words = f"back-off {wait_s:.0f}s restarting failed container={name} pod={meta.name}_{meta.namespace}({meta.uid})"
            self._set(container, runs.waiting(run, "CrashLoopBackOff", words))
            self._event(
                "Warning", "BackOff", f"Back-off restarting failed container {name} in pod {meta.name}_{meta.namespace}({meta.uid})"
            )
        await asyncio.sleep(wait_s)

    async def _start(self, container: Container) -> bool:
        try:
            await self._start_program(container)
        except CannotStart as refused:
            run, now = self._run(container), self._host.now()
            later = runs.to_restart(msgspec.structs.replace(run, back_off_s=run.back_off_s or runs.BACK_OFF_FIRST_S), now)
            self._set(container, runs.waiting(later, refused.reason, str(refused)))
            self._event("Warning", "Failed", f"Error: {refused}")
            return False
        self._tell_player(container)
        return True

    async def _start_program(self, container: Container) -> None:
        run, host = self._run(container), self._host
        name = ""
        if player(container) is Player.MACHINE:
            name = program_name(self.record.uid, container.name, runs.next_number(run))
            program = await host.machine.program(self.pod, container, self.record, self._namespace)
            if host.programs.knows(name):  # started by an agent that was killed before it could write that down
                await host.programs.end(name, 0)
                await host.programs.forget(name)
            try:
                await host.programs.start(name, program)
            except ProgramNotStarted as refused:
                raise CannotStart("RunContainerError", str(refused)) from refused
            except (KernelRefused, ValueError) as refused:
                raise CannotStart("CreateContainerError", str(refused)) from refused
        started = container.startup_probe is None
        ready = started and container.readiness_probe is None
        began = runs.began(run, host.now(), program=name, container_id=self._container_id(container), started=started)
        self._set(container, msgspec.structs.replace(began, ready=ready))

    def _tell_player(self, container: Container) -> None:
        if player(container) is Player.MACHINE:
            words = f"Started container {container.name}: a program of the machine"
        else:
            words = f"Stand-in plays container {container.name}: image {container.image} is not run"
        self._event("Normal", "Started", words, f"spec.containers{{{container.name}}}")

    def _container_id(self, container: Container) -> str:
        return f"podwire://{self.record.uid}/{container.name}/{runs.next_number(self._run(container))}"

    async def _until_ended(self, container: Container) -> int:
        """Probe a running container until it ends, by itself or because a probe says so; gives its status."""
        checks = asyncio.create_task(self._checks(container).run())
        ended = asyncio.create_task(self._wait(container))
        try:
            await asyncio.wait({checks, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                probe = checks.result()
                self._event("Normal", "Killing", f"Container {container.name} failed {probe} probe, will be restarted")
                kind = container.startup_probe if probe == "startup" else container.liveness_probe
                grace = kind.termination_grace_period_seconds if kind else None
                await self._end(container, self.pod.spec.termination_grace_period_seconds if grace is None else grace)
            return await ended
        finally:
            await self._cancelled(checks, ended)

    def _checks(self, container: Container) -> Checks:
        run = self._run(container)
        return Checks(
            container=container,
            ip=self.ip,
            execute=self._executor(container) if run.program else None,
            now=self._host.now,
            started_at=run.started_at,
            started=run.started,
            ready=run.ready,
            on_started=lambda: self._set(container, msgspec.structs.replace(self._run(container), started=True)),
            on_ready=lambda ready: self._set(container, msgspec.structs.replace(self._run(container), ready=ready)),
            on_failure=lambda words: self._event("Warning", "Unhealthy", words, f"spec.containers{{{container.name}}}"),
        )

    def _executor(self, container: Container) -> Execute:
        async def execute(command: Sequence[str]) -> tuple[int, bytes]:
            program = await self._host.machine.program(self.pod, container, self.record, self._namespace)
            return await self._host.programs.output(self._run(container).program, program, command)

        return execute

    async def _wait(self, container: Container) -> int:
        run = self._run(container)
        if run.program:
            return await self._host.programs.wait(run.program) if self._host.programs.knows(run.program) else _UNKNOWN_STATUS
        end = self._ends.setdefault(container.name, asyncio.get_running_loop().create_future())
        status = await asyncio.shield(end)
        del self._ends[container.name]
        return status

    async def _until_done(self, container: Container) -> None:
        while not init_done(container, self.record):
            self._news.clear()
            await self._news.wait()

    # End --------------------------------------------------------------------------------------------------------------------

    async def _end(self, container: Container, grace_s: float) -> None:
        """End a container as its Pod's end does: preStop, SIGTERM, and when the grace is over SIGKILL."""
        run = self._run(container)
        if run.state is not State.RUNNING:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        hook = container.lifecycle.pre_stop if container.lifecycle is not None else None
        if hook is not None and grace_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._call(container, hook)
        if run.program:
            await self._host.programs.end(run.program, max(0.0, deadline - loop.time()) if grace_s > 0 else 0.0)
            return
        end = self._ends.setdefault(container.name, loop.create_future())
        if not end.done():
            end.set_result(_SIGTERM_STATUS)

    async def _call(self, container: Container, hook: LifecycleHandler) -> None:
        """A hook of the container's life. A failure is an Event, and the container's end goes on."""
        result = probes.ProbeResult(True)
        if hook.sleep is not None:
            await asyncio.sleep(hook.sleep.seconds)
        elif hook.http_get is not None:
            port = desired.resolve_port(hook.http_get.port, container)
            url = url_of(hook.http_get, hook.http_get.host or self.ip, port or 0)
            result = await probes.http(url, headers_of(hook.http_get), timeout=3600)
        elif hook.exec is not None and self._run(container).program:
            result = await probes.execute(self._executor(container), hook.exec.command, timeout=3600)
        if not result.ok:
            self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {result.message}")

    async def _terminate(self, live: asyncio.Task[None]) -> None:
        """End the containers, sidecars after the others, then take everything away."""
        grace = self.pod.metadata.deletion_grace_period_seconds
        grace_s = _VANISHED_GRACE_S if self.vanished or grace is None else float(grace)
        running = [c for c in (*self.pod.spec.init_containers, *self.pod.spec.containers) if self._run(c).state is State.RUNNING]
        for container in running:
            self._event("Normal", "Killing", f"Stopping container {container.name}", f"spec.containers{{{container.name}}}")
        sidecars = [container for container in running if is_sidecar(container)]
        await asyncio.gather(*(self._end(container, grace_s) for container in running if container not in sidecars))
        for container in reversed(sidecars):
            await self._end(container, grace_s)
        await self._cancelled(live)
        if not self.record.finished:
            await self._host.remove_sandbox(self.record)
        self._let_go()

    def _event(self, kind: str, reason: str, message: str, field_path: str = "") -> None:
        self._host.events.event(self.pod, kind, reason, message, field_path)
