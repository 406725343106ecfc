"""The agent ``cni``: answers the calls of podwire-cni on a node, for the container runtime there.

It is beside the agents ``services`` and the kubelet of a real cluster what the lab's agent ``pods`` does by call.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from podwire.daemon.context import Context
from podwire.pods.cni.program import DEFAULT_SOCKET
from podwire.pods.cni.server import Server


async def run(context: Context) -> None:
    """Serve until cancelled."""
    path = Path(context.config.cni_socket or DEFAULT_SOCKET.decode())
    path.parent.mkdir(parents=True, exist_ok=True)
    server = Server(str(path), context.log.getChild("cni"))
    serving = asyncio.get_running_loop().run_in_executor(None, server.serve)
    context.ready("cni")
    try:
        await asyncio.shield(serving)
    finally:
        server.close()
        await serving
