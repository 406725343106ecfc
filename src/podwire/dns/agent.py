"""The agent ``dns``: follows Services and EndpointSlices, and answers on port 53 of its Pod.

What belongs here: informers, sockets, health pages, the moment when each is ready. What must not: what the answers are (zone.py).

A change of one Service or slice makes the records of that Service anew and nothing else. Until everything has been listed once,
questions get SERVFAIL, so that resolvers ask another server and nobody believes that a name does not exist. Names outside the zone are
refused; there is no upstream in a network of its own.

Health, as CoreDNS has it and its probes ask: ``/ready`` on 8181 (200 once the first lists are in), ``/health`` on 8080 (200 while
the loop turns).

Sources: https://coredns.io/plugins/ready/, https://coredns.io/plugins/health/
"""

from __future__ import annotations

import asyncio
import contextlib

from podwire.daemon.context import Context
from podwire.dns import desired
from podwire.dns.server import Server
from podwire.dns.zone import NotOurs, Zone
from podwire.objects.core import Service
from podwire.objects.discovery import EndpointSlice
from podwire.objects.resources import ENDPOINT_SLICES, SERVICES
from podwire.wire import dns

READY_PORT, HEALTH_PORT = 8181, 8080
SLICE_S = 0.01  # how long the loop may be held by one piece of work


class Names:
    """The zone, following the API. ``synced`` is set when everything that was there at the start is in it."""

    def __init__(self, context: Context) -> None:
        config = context.config
        ranges = (*config.service_ranges, *config.pod_ranges)
        self._context = context
        self.zone = Zone(config.cluster_domain, ranges, config.cluster_dns, serial=int(context.now().timestamp()))
        self.synced = asyncio.Event()
        self._services = context.informer(SERVICES)
        self._slices = context.informer(ENDPOINT_SLICES, indexes={"service": _service_of})
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._services.subscribe(self._service_changed)
        self._slices.subscribe(self._slice_changed)

    def respond(self, query: bytes, udp: bool) -> bytes | None:
        """Answer one message."""
        try:
            return self.zone.respond(query, udp=udp, synced=self.synced.is_set())
        except NotOurs:
            return self.zone.failure(query, dns.REFUSED)

    async def follow(self) -> None:
        """Keep the zone up to date until cancelled."""
        await self._services.synced.wait()
        await self._slices.synced.wait()
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            while self._dirty and loop.time() - began < SLICE_S:
                key = next(iter(self._dirty))
                del self._dirty[key]
                self._update(key)
            if self._dirty:
                await asyncio.sleep(0)
                continue
            self.synced.set()
            self._wake.clear()
            await self._wake.wait()

    def _update(self, key: str) -> None:
        try:
            records = desired.records(self._services.table.get(key), self._slices.table.by("service", key), self.zone.domain)
        except ValueError as error:
            # The object is wrong, and the API let it pass: the names of others must go on.
            self._context.log.warning("Service %s has no names: %s", key, error)
            records = {}
        self.zone.put(key, records)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        changed = new or old
        if changed is not None:
            self._mark(changed.key)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for piece in (old, new):
            if piece is not None and piece.service_key:
                self._mark(piece.service_key)

    def _mark(self, key: str) -> None:
        self._dirty[key] = None
        self._wake.set()


def _service_of(piece: EndpointSlice) -> tuple[str, ...]:
    return (piece.service_key,)


async def run(context: Context) -> None:
    """Serve until cancelled. Raises OSError if a port cannot be had."""
    names = Names(context)
    server = Server(names.respond)
    await server.open()
    pages = [await _page(HEALTH_PORT, "/health")]
    following = context.start(names.follow(), "names")
    try:
        await names.synced.wait()
        # Opened only now: a probe that is refused is soon repeated, one that hears "not yet" waits out its period.
        pages.append(await _page(READY_PORT, "/ready"))
        context.ready("dns")
        await asyncio.Event().wait()
    finally:
        following.cancel()
        for page in pages:
            page.close()
        server.close()


async def _page(port: int, path: str) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),  # also when the agent ends meanwhile
            contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError),
        ):
            async with asyncio.timeout(5):
                words = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
                status = "200 OK" if words[1:2] == [path.encode()] else "404 Not Found"
                text = "OK" if status == "200 OK" else status
                head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
                writer.write(f"{head}{text}".encode())
                await writer.drain()

    return await asyncio.start_server(answer, None, port)
