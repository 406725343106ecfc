"""The relay behind a published port: nothing is lost, whichever side speaks first or ends first."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from podwire.vpc.relay import Relay


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello;" + await reader.read())
    writer.close()


async def ask(parts: list[bytes]) -> bytes:
    server = await asyncio.start_server(echoing, "127.0.0.1", 0)
    relay = Relay(socket.create_server(("127.0.0.1", 0)), "127.0.0.1", server.sockets[0].getsockname()[1])
    port = relay._listening.getsockname()[1]
    await relay.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await relay.close()
    server.close()
    return answer


@pytest.mark.parametrize("parts", [[], [b"x"], [b"y" * 3_000_000, b"z"]], ids=["end at once", "little", "much"])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_what_comes_before_the_other_side_is_there_is_not_lost(run: object, parts: list[bytes]) -> None:
    assert callable(run)
    assert run(ask(parts)) == b"hello;" + b"".join(parts)
