"""What somebody sees of a container's log, as the kubelet shows it: the last lines, those since a time, at most so many bytes, and what
is still to come.

Rotated files are read before the present one, so that what is kept is seen. Files are read in blocks between which others have their turn.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from podwire.linux.inotify import FolderWatches
from podwire.pods.logs.file import rotated
from podwire.pods.logs.lines import fields, moment

_BLOCK: Final = 128 * 1024


@dataclass(frozen=True)
class Selection:
    """``tail``: so many of the last lines; None: all. ``since_ns``: none that is older. ``limit``: bytes of the answer; None: any.

    ``stream``: ``stdout`` or ``stderr`` alone; empty: both.
    """

    tail: int | None = None
    since_ns: int | None = None
    limit: int | None = None
    timestamps: bool = False
    stream: str = ""


class _Shown:
    """Turns entries into what is shown, until the limit is reached, or ``most`` entries are read."""

    def __init__(self, selection: Selection, most: int | None = None) -> None:
        self._most = most
        self._timestamps, self._stream = selection.timestamps, selection.stream.encode()
        self._since = b"" if selection.since_ns is None else moment(selection.since_ns)  # such times sort as their texts do
        self._left = selection.limit
        self._begins = {b"stdout": True, b"stderr": True}
        self._rest = b""

    @property
    def over(self) -> bool:
        return (self._left is not None and self._left <= 0) or self._most == 0

    def feed(self, data: bytes) -> bytes:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._most is not None:
            lines = lines[: self._most]
            self._most -= len(lines)
        shown = b"".join(map(self._line, lines))
        if self._left is not None:
            shown = shown[: self._left]
            self._left -= len(shown)
        return shown

    def _line(self, line: bytes) -> bytes:
        found = fields(line)
        if found is None:
            return b""
        time, stream, whole, text = found
        if (self._stream and stream != self._stream) or time < self._since:
            return b""
        begins, self._begins[stream] = self._begins[stream], whole
        shown = text + b"\n" if whole else text
        return time + b" " + shown if self._timestamps and begins else shown


async def read(path: Path, selection: Selection) -> AsyncIterator[bytes]:
    """What there is now. Raises OSError, FileNotFoundError where nothing was ever logged."""
    shown = _Shown(selection, selection.tail)  # what comes meanwhile are no more of the last lines
    for file in _from(path, selection):
        with file:
            async for piece in _rest_of(file, shown):
                yield piece
        if shown.over:
            return


async def follow(path: Path, selection: Selection, watches: FolderWatches, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """What there is and what comes, until ``ended`` is set and everything has been said. Nothing logged yet is no error."""
    shown = _Shown(selection)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with watches.watch(str(path.parent)) as changed:
        files = _there(path, selection)
        present: BinaryIO | None = None
        try:
            for file in files:
                if present is not None:
                    present.close()
                present = file
                async for piece in _rest_of(present, shown):
                    yield piece
            while not shown.over:
                changed.clear()
                last = ended.is_set()
                if present is None:
                    present = _opened(path)
                if present is not None:
                    async for piece in _rest_of(present, shown):
                        yield piece
                    if _is_another(path, present):
                        async for piece in _rest_of(present, shown):  # what came between the look and the renaming
                            yield piece
                        present.close()
                        present = None
                        continue
                if last:
                    return
                await _either(changed, ended)
        finally:
            if present is not None:
                present.close()


async def _either(changed: asyncio.Event, ended: asyncio.Event) -> None:
    waiting = {asyncio.ensure_future(changed.wait()), asyncio.ensure_future(ended.wait())}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def _rest_of(file: BinaryIO, shown: _Shown) -> AsyncIterator[bytes]:
    while not shown.over and (block := file.read(_BLOCK)):
        if piece := shown.feed(block):
            yield piece
        await asyncio.sleep(0)


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _is_another(path: Path, file: BinaryIO) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False  # in the middle of a rotation: the new one comes


def _from(path: Path, selection: Selection) -> Iterator[BinaryIO]:
    """The files that hold what is wanted, oldest first, each at its place. The last one is the present one."""
    files = [*rotated(path), path]
    left = selection.tail
    if left is None:
        for file in files[:-1]:
            opened = _opened(file)
            if opened is not None:
                yield opened
        yield path.open("rb")
        return
    found: list[BinaryIO] = []
    for file in reversed(files):
        opened = path.open("rb") if file == path else _opened(file)
        if opened is not None:
            left -= _seek_back(opened, left)
            found.insert(0, opened)
        if left <= 0:
            break
    yield from found


def _there(path: Path, selection: Selection) -> Iterator[BinaryIO]:
    return _from(path, selection) if path.exists() else iter(())


def _seek_back(file: BinaryIO, lines: int) -> int:
    """Go to where the last ``lines`` entries begin; gives how many there are, at most so many."""
    place = end = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return 0
    found, after = 0, end
    while place > 0:
        size = min(_BLOCK, place)
        place -= size
        file.seek(place)
        block = file.read(size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if place + at + 1 == end:
                continue  # ends the last entry
            found, after = found + 1, place + at + 1
            if found == lines:
                file.seek(after)
                return found
    file.seek(0)
    return found + 1 if end else 0
