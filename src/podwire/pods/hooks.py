"""The hooks of a container's life: postStart and preStop, and how each is carried out.

A stand-in runs no command, so an exec hook of one succeeds at once; its HTTP hooks are real requests, and its sleeps last.

Source: https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/
"""

from __future__ import annotations

import asyncio

from podwire import probes
from podwire.objects.core import Container, LifecycleHandler
from podwire.pods.checks import Execute, headers_of, url_of
from podwire.pods.desired import resolve_port
from podwire.probes.result import ProbeResult

_LONGEST_S = 24 * 3600.0
"""A hook has no limit of its own: the end of the container, or of its grace, is its end."""
_ANSWERED = "HTTP probe failed with statuscode"


async def call(hook: LifecycleHandler, container: Container, ip: str, execute: Execute | None) -> ProbeResult:
    """Carry out a hook. ``ip``: where its request goes. ``execute``: runs a command in the container, None for a stand-in."""
    if hook.sleep is not None:
        await asyncio.sleep(hook.sleep.seconds)
    elif hook.http_get is not None:
        port = resolve_port(hook.http_get.port, container)
        if port is None:
            return ProbeResult(False, f"couldn't find port: {hook.http_get.port}")
        url = url_of(hook.http_get, hook.http_get.host or ip, port)
        result = await probes.http(url, headers_of(hook.http_get), timeout=_LONGEST_S)
        # Any answer will do, whatever its status.
        return ProbeResult(True) if result.message.startswith(_ANSWERED) else result
    elif hook.exec is not None and execute is not None:
        return await probes.execute(execute, hook.exec.command, timeout=_LONGEST_S)
    return ProbeResult(True)
