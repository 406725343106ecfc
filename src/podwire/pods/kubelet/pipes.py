"""Pipes and terminals on an event loop: what a program writes goes to a channel, what a client writes goes to the program.

Descriptors are non-blocking and stay the caller's.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from typing import Final

_READ: Final = 128 * 1024


async def _ready(add: Callable[..., None], remove: Callable[[int], bool], fd: int, otherwise: asyncio.Event | None) -> None:
    """Wait until the descriptor is ready, or the event is set."""
    ready = asyncio.Event()
    add(fd, ready.set)
    waiting = [asyncio.ensure_future(event.wait()) for event in (ready, otherwise) if event is not None]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        remove(fd)
        for one in waiting:
            one.cancel()


async def copy_out(fd: int, send: Callable[[bytes], Awaitable[None]], ended: asyncio.Event | None = None) -> None:
    """Send what can be read until its end; once ``ended`` is set, until nothing more is there. Raises what ``send`` raises."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            if ended is not None and ended.is_set():
                return
            await _ready(loop.add_reader, loop.remove_reader, fd, ended)
            continue
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal that nobody has any more
                return
            raise
        if not data:
            return
        await send(data)


async def copy_in(read: Callable[[], Awaitable[bytes]], fd: int) -> None:
    """Write what comes until its end, or until nobody reads it any more."""
    loop = asyncio.get_running_loop()
    while data := await read():
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                await _ready(loop.add_writer, loop.remove_writer, fd, None)
            except OSError as error:
                if error.errno in {errno.EPIPE, errno.EIO}:
                    return
                raise
