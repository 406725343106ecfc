"""An exec probe: a command's exit status.

How the command gets into the container is the caller's: a callable that runs it and gives exit status and output.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

from podwire.probes.result import ProbeResult, seconds

MAXIMUM_OUTPUT = 10 * 1024
"""Bytes of output kept, as the kubelet keeps."""


async def execute(
    run: Callable[[Sequence[str]], Awaitable[tuple[int, bytes]]], command: Sequence[str], timeout: float = 1.0
) -> ProbeResult:
    """Run ``command`` through ``run``: status 0 is a success. When time is up the call is cancelled, and ``run`` ends the program."""
    try:
        async with asyncio.timeout(timeout):
            status, output = await run(command)
    except TimeoutError:
        return ProbeResult(False, f"command timed out: {json.dumps(' '.join(command))} timed out after {seconds(timeout)}")
    except OSError as error:
        return ProbeResult(False, f"error: {error.strerror or error}")
    return ProbeResult(status == 0, output[:MAXIMUM_OUTPUT].decode(errors="replace") if status else "")
