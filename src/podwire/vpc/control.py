"""A conversation with the lab through its control socket: requests and answers, one after the other, descriptors beside them.

The lab's side may go and come back (it is restarted when it dies); then ``lost`` is called, the next request connects anew, and
whoever keeps something there says it again.

Source: docs/architecture.md, "the control socket"; unix(7).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from podwire.linux import unix

_INLINE_BYTES: Final = 60_000
_ANSWER_S: Final = 30.0


class Refused(Exception):
    """The lab answered with an error; the text is its own."""


class Control:
    """One connection. ``lost`` is called on the loop when it ends unasked."""

    def __init__(self, path: str, lost: Callable[[], None]) -> None:
        self._path, self._lost = path, lost
        self._socket: socket.socket | None = None
        self._answer: asyncio.Future[tuple[dict[str, Any], list[int]]] | None = None
        self._turn = asyncio.Lock()

    async def ask(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """Send a request; give its answer and the descriptors that came with it, which are the caller's to close.

        Raises Refused, OSError when nobody is there, TimeoutError.
        """
        async with self._turn:
            connection = self._connected()
            answer = self._answer = asyncio.get_running_loop().create_future()
            _send(connection, message)
            try:
                async with asyncio.timeout(_ANSWER_S):
                    words, descriptors = await answer
            except BaseException:
                self.close()  # a late answer must not be taken for that of another request
                raise
        if "error" in words:
            for descriptor in descriptors:
                os.close(descriptor)
            raise Refused(str(words["error"]))
        return words, descriptors

    def close(self) -> None:
        """End the conversation."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = unix.connect(self._path)
            self._socket.setblocking(False)
            asyncio.get_running_loop().add_reader(self._socket, self._readable)
        return self._socket

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            received = unix.receive(self._socket)
        except BlockingIOError:
            return
        except (OSError, ValueError, TypeError):
            received = None
        if received is None:
            self.close()
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(ConnectionError("the lab has gone"))
            self._lost()
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(received)
        else:
            for descriptor in received[1]:
                os.close(descriptor)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) <= _INLINE_BYTES:
        unix.send_bytes(connection, body)
        return
    spill = os.memfd_create("report", os.MFD_CLOEXEC)
    try:
        with open(spill, "wb", closefd=False) as stream:
            stream.write(body)
        unix.send_bytes(connection, b'{"memfd":true}', [spill])
    finally:
        os.close(spill)
