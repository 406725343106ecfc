"""The probes of one running container: sends them when they are due and tells what they conclude.

The thresholds are ``probes.prober``'s, the probes themselves ``probes``'. A container that was taken up again keeps what was
known of it until its probes conclude otherwise. A stand-in runs no command, so an exec probe of one succeeds.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from podwire import probes
from podwire.objects.core import Container, HTTPGetAction, Probe
from podwire.pods.desired import resolve_port
from podwire.pods.standins.directions import PREFIX
from podwire.probes.prober import ProbeKind, Prober, begin, observe
from podwire.probes.result import ProbeResult, join_host_port

_MOMENT_S, _AGAIN_S, _AGAIN_FIRST_S = 2.0, 0.05, 0.005

Execute = Callable[[Sequence[str]], Awaitable[tuple[int, bytes]]]


@dataclasses.dataclass
class Checks:
    """One run of one container.

    ``ip``: where its probes go. ``execute``: runs a command in it, None for a stand-in. ``now``: wall-clock seconds, as
    ``started_at`` is. ``on_started``, ``on_ready``: told when that changes. ``on_failure``: told of each probe worth an
    Event, with the Event's reason. ``told_to_fail``: says whether an annotation lets the startup or liveness probe fail.
    """

    container: Container
    ip: str
    execute: Execute | None
    now: Callable[[], float]
    started_at: float
    started: bool
    ready: bool
    on_started: Callable[[], None]
    on_ready: Callable[[bool], None]
    on_failure: Callable[[str, str], None]
    told_to_fail: Callable[[str], bool] = lambda _probe: False

    async def run(self) -> str:
        """Probe until cancelled, or until the container is to be ended; then gives the word for the probe that asks for it."""
        container = self.container
        startup = None if self.started else container.startup_probe
        if startup is not None and not await self._follow(ProbeKind.STARTUP, startup):
            return "startup"
        if not self.started:
            self.on_started()
        if container.readiness_probe is None and not self.ready:
            self.on_ready(True)
        tasks = []
        try:
            if container.readiness_probe is not None:
                tasks.append(asyncio.create_task(self._follow(ProbeKind.READINESS, container.readiness_probe)))
            if container.liveness_probe is None:
                await asyncio.gather(*tasks, asyncio.Event().wait())
            else:
                tasks.append(asyncio.create_task(self._follow(ProbeKind.LIVENESS, container.liveness_probe)))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            for task in tasks:
                task.cancel()
        return "liveness"

    async def _follow(self, kind: ProbeKind, probe: Probe) -> bool:
        """Probe until a startup probe has succeeded (True), or the container is to be ended (False)."""
        prober = begin(kind, probe, self.started_at)
        if kind is ProbeKind.READINESS:
            prober = dataclasses.replace(prober, result=self.ready)
        while True:
            await asyncio.sleep(max(0.0, prober.due - self.now()))
            result = await self._once(probe) if prober.last is not None else await self._first(kind, probe, prober)
            if kind is not ProbeKind.READINESS and self.told_to_fail(kind.value.lower()):
                result = ProbeResult(False, f"annotation {PREFIX}fail-{kind.value.lower()} says so")
            former, prober = prober, observe(prober, result.ok, self.now())
            if result.warning or not result.ok:
                reason, what = ("ProbeWarning", "warning") if result.ok else ("Unhealthy", "failed")
                self.on_failure(reason, f"{kind.value} probe {what}: {result.message}")
            if prober.restart:
                return False
            if kind is ProbeKind.STARTUP and prober.result:
                return True
            if kind is ProbeKind.READINESS and prober.result is not former.result:
                self.on_ready(bool(prober.result))

    async def _first(self, kind: ProbeKind, probe: Probe, prober: Prober) -> ProbeResult:
        """The first probe of a container. A program that has just begun needs a moment to listen, and a period is a long time to wait for
        it: a readiness probe that nobody has heard is sent again for as long as it makes no difference to anybody.
        """
        until, again = self.now() + min(prober.period, _MOMENT_S), _AGAIN_FIRST_S
        while True:
            result = await self._once(probe)
            if not result.nobody_listens or kind is not ProbeKind.READINESS or self.ready or self.now() + _AGAIN_S > until:
                return result
            await asyncio.sleep(again)
            again = min(2 * again, _AGAIN_S)

    async def _once(self, probe: Probe) -> ProbeResult:
        timeout = float(max(1, probe.timeout_seconds))
        if probe.http_get is not None:
            return await self._http(probe.http_get, timeout)
        if probe.tcp_socket is not None:
            port = resolve_port(probe.tcp_socket.port, self.container)
            if port is None:
                return _no_port(probe.tcp_socket.port)
            return await probes.tcp(probe.tcp_socket.host or self.ip, port, timeout)
        if probe.grpc is not None:
            return await probes.grpc(self.ip, probe.grpc.port, probe.grpc.service, timeout)
        if probe.exec is not None and self.execute is not None:
            return await probes.execute(self.execute, probe.exec.command, timeout)
        return ProbeResult(True)

    async def _http(self, action: HTTPGetAction, timeout: float) -> ProbeResult:
        port = resolve_port(action.port, self.container)
        if port is None:
            return _no_port(action.port)
        return await probes.http(url_of(action, action.host or self.ip, port), headers_of(action), timeout)


def url_of(action: HTTPGetAction, host: str, port: int) -> str:
    """Where an HTTP probe or hook goes."""
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    return f"{(action.scheme or 'HTTP').lower()}://{join_host_port(host, port)}{path}"


def headers_of(action: HTTPGetAction) -> list[tuple[str, str]]:
    return [(header.name, header.value) for header in action.http_headers]


def _no_port(port: int | str) -> ProbeResult:
    return ProbeResult(False, f"couldn't find port: {port}")
