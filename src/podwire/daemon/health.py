"""Health pages on 127.0.0.1: /livez (the loop turns), /healthz (every part is ready), /metrics (text format 0.0.4).

What must not be here: any other page. The server reads a request line, answers, and closes; nothing more is needed by a probe or a scraper.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable

from podwire.daemon.context import Context
from podwire.daemon.watchdog import Watchdog

_READ_S = 5.0


def metrics(context: Context, watchdog: Watchdog) -> str:
    """Give the metrics page."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rows = [
        ("podwire_loop_lag_seconds", "gauge", watchdog.last_s),
        ("podwire_loop_lag_worst_seconds", "gauge", watchdog.worst_s),
        ("podwire_loop_late_total", "counter", watchdog.late),
        ("process_cpu_seconds_total", "counter", usage.ru_utime + usage.ru_stime),
        ("process_resident_memory_max_bytes", "gauge", usage.ru_maxrss * 1024),
    ]
    lines = [line for name, kind, value in rows for line in (f"# TYPE {name} {kind}", f"{name} {value:g}")]
    lines.append("# TYPE podwire_objects gauge")
    lines += [f'podwire_objects{{resource="{informer.resource.plural}"}} {len(informer.table)}' for informer in context.informers]
    return "\n".join(lines) + "\n"


async def listen(port: int, context: Context, watchdog: Watchdog) -> asyncio.Server:
    """Begin to serve: before the agents start, so that who hears of their readiness can look. Raises OSError if the port cannot be had."""

    def ready() -> tuple[int, str]:
        missing = context.unready
        return (503, "".join(f"not ready: {part}\n" for part in missing)) if missing else (200, "ok\n")

    pages: dict[str, Callable[[], tuple[int, str]]] = {
        "/livez": lambda: (200, "ok\n"),
        "/healthz": ready,
        "/readyz": ready,
        "/metrics": lambda: (200, metrics(context, watchdog)),
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),  # also when the process ends meanwhile
            contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError),
        ):
            async with asyncio.timeout(_READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                page = pages.get(words[1].split("?")[0]) if len(words) == 3 and words[0] == "GET" else None
                status, text = page() if page else (404, "there are /livez, /healthz and /metrics\n")
                body = text.encode()
                writer.write(
                    f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()

    return await asyncio.start_server(answer, "127.0.0.1", port, limit=16384)
