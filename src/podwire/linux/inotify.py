"""Being told that files in a folder change, on an event loop.

One instance serves a process, since an ordinary user has few of them (fs.inotify.max_user_instances); a folder that is watched twice is
one watch of the kernel's. Who watches learns only that something has changed, and looks for themselves.

Source: inotify(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Iterator
from typing import Final

from podwire.linux import syscalls

_MASK: Final = syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_FROM | syscalls.IN_CLOSE_WRITE
_EVENT: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name


class FolderWatches:
    """All watches of one event loop. Make it on the loop."""

    def __init__(self) -> None:
        self._fd = -1
        self._heard: dict[int, list[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, folder: str) -> Iterator[asyncio.Event]:
        """An event that is set at every change of a file in that folder; who waits for it clears it. Raises OSError."""
        if self._fd < 0:
            self._fd = syscalls.inotify_init()
            asyncio.get_running_loop().add_reader(self._fd, self._read)
        number = syscalls.inotify_add_watch(self._fd, folder, _MASK)
        event = asyncio.Event()
        self._heard.setdefault(number, []).append(event)
        try:
            yield event
        finally:
            if number in self._heard:
                self._heard[number].remove(event)
                if not self._heard[number]:
                    del self._heard[number]
                    with contextlib.suppress(OSError):  # the folder is gone, and the watch with it
                        syscalls.inotify_rm_watch(self._fd, number)

    def close(self) -> None:
        """End all watches."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65_536)
        except BlockingIOError:
            return
        place = 0
        while place < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, place)
            place += _EVENT.size + length
            # A queue that overflowed names no watch: everybody looks.
            for event in self._heard.get(number, ()) if number >= 0 else (one for heard in self._heard.values() for one in heard):
                event.set()
            if mask & syscalls.IN_IGNORED:
                self._heard.pop(number, None)
