"""A TCP probe: the connection is made and closed.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
import contextlib

from podwire.probes.result import ProbeResult, join_host_port, words_of


async def tcp(host: str, port: int, timeout: float = 1.0) -> ProbeResult:
    """Open a connection to ``host`` (an address) and close it. ``timeout`` in seconds."""
    address = join_host_port(host, port)
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return ProbeResult(False, f"dial tcp {address}: i/o timeout")
    except OSError as error:
        return ProbeResult(False, f"dial tcp {address}: connect: {words_of(error)}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ProbeResult(True)
