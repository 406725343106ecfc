"""Answers that take their time, in the order of their requests: what HTTP/1 and HTTP/2 sessions share.

A part answers at once or later. ``Later`` keeps one task a request and tells the connection when there is something to send.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from podwire.pods.standins.session import Answer, Place, Request

log = logging.getLogger("podwire.standins")

REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 301: "Moved Permanently", 302: "Found", 303: "See Other",
    304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 412: "Precondition Failed", 417: "Expectation Failed", 418: "I'm a teapot",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


class Later:
    """The answers of one connection that are not there yet. ``wake`` is called when one has come."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, place: Place, request: Request, take: Callable[[Answer], None]) -> None:
        """Let the part answer, and give the answer to ``take``: now, or later."""
        try:
            answer = place.part.respond(place, request)
        except Exception as error:
            answer = _failed(place, request, error)
        if isinstance(answer, Answer):
            place.part.served(place, request, answer)
            take(answer)
            return
        task = asyncio.get_running_loop().create_task(self._wait(answer, place, request, take))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, coming: Awaitable[Answer], place: Place, request: Request, take: Callable[[Answer], None]) -> None:
        try:
            answer = await coming
        except Exception as error:
            answer = _failed(place, request, error)
        place.part.served(place, request, answer)
        take(answer)
        self._wake()

    def close(self) -> None:
        """The client is gone: nobody waits any more."""
        for task in self._tasks:
            task.cancel()


def _failed(place: Place, request: Request, error: Exception) -> Answer:
    log.error("%s/%s: %s %s", place.role.namespace, place.role.name, request.method, request.target, exc_info=error)
    words = b"the stand-in could not answer; the log of this node's stand-ins says why\n"
    return Answer(words, 500, "text/plain; charset=utf-8", close=True)
