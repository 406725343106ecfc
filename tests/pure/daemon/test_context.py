"""What an agent is given: which lists its readiness waits for."""

from __future__ import annotations

from podwire.client.api import Client
from podwire.daemon.config import AgentConfig
from podwire.daemon.context import Context
from podwire.objects.resources import NODES, PODS


async def test_ready_waits_for_what_is_needed_and_for_nothing_else() -> None:
    client = Client("http://127.0.0.1:9")  # nobody answers: nothing is ever listed
    context = Context(client, AgentConfig())
    context.informer(PODS, needed=False)
    context.informer(NODES)
    assert context.unready == ("nodes not listed",)
    context.informer(PODS)  # somebody else needs them
    assert context.unready == ("nodes not listed", "pods not listed")
    await context.close()
    await client.close()
