"""The relay: every byte, both ways, ends passed on one by one, nothing held without bound."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from podwire.vpc.relay import Relay

LIMIT_S = 20.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def relayed(serve: Serve) -> AsyncIterator[tuple[Relay, int]]:
    """A server behind a relay; the relay's port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    listening = socket.create_server(("127.0.0.1", 0))
    relay = Relay(listening, "127.0.0.1", server.sockets[0].getsockname()[1])
    port = listening.getsockname()[1]
    await relay.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            yield relay, port
    finally:
        await relay.close()
        server.close()
        await server.wait_closed()
        for _ in range(5):
            await asyncio.sleep(0)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def at_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer only when the caller has said all it has to say."""
    data = await reader.read(-1)
    writer.write(b"%d bytes" % len(data))
    await writer.drain()


async def test_a_direction_ends_on_its_own() -> None:
    async with relayed(at_end) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 100_000)
        writer.write_eof()
        assert await reader.read(-1) == b"100000 bytes"
        writer.close()
        await writer.wait_closed()


async def test_a_server_that_ends_first_still_hears() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.set_result(await reader.read(-1))

    async with relayed(serve) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read(-1) == b"bye"
        writer.write(b"late words")
        writer.write_eof()
        assert await heard == b"late words"
        writer.close()
        await writer.wait_closed()


async def test_many_megabytes_both_ways_through_slow_readers() -> None:
    async with relayed(echo) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        block, count = bytes(range(256)) * 256, 200

        async def send() -> None:
            for _ in range(count):
                writer.write(block)
                await writer.drain()
            writer.write_eof()

        task = asyncio.create_task(send())
        received = 0
        while data := await reader.read(10_000):
            assert data == (block * 2)[received % len(block) : received % len(block) + len(data)]
            received += len(data)
        await task
        assert received == count * len(block)
        writer.close()
        await writer.wait_closed()


async def test_what_nobody_reads_is_not_taken() -> None:
    stop = asyncio.Event()

    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await stop.wait()

    async with relayed(deaf) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(64 << 20))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await writer.drain()
        assert writer.transport.get_write_buffer_size() > 32 << 20  # type: ignore[attr-defined]
        stop.set()
        writer.transport.abort()


async def test_nobody_behind_it_breaks_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    listening = socket.create_server(("127.0.0.1", 0))
    relay = Relay(listening, "127.0.0.1", port)
    await relay.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(LIMIT_S):
            await reader.read(1)
    writer.close()
    await relay.close()


async def test_closing_breaks_what_is_open_and_frees_the_port() -> None:
    async with relayed(echo) as (relay, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await relay.close()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        assert not relay.sides
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
