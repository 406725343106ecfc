"""A disk that forgets: what was written since the last sync may be lost, all of it or any part.

A SQLite VFS that keeps, beside each real file, its image as it would be found after a loss of power: a write gets into the image when the
file is synced. ``Power.loss`` gives the images of a moment; ``Power.torn`` the same with some of the unsynced writes in them, as a disk may
have done them in any order.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

NAME = "lossy"
_SECTOR = 512


@dataclass
class Image:
    """One file: what is safe, and what was written since."""

    safe: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None) for a truncation

    def sync(self) -> None:
        for offset, data in self.unsynced:
            _do(self.safe, offset, data)
        self.unsynced.clear()


def _do(image: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del image[offset:]
        return
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


class Power:
    """All files of one database, and the moments at which ``moment`` is called: before each write and each sync."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.lock = threading.RLock()
        self.moment: Callable[[], None] = lambda: None

    def loss(self) -> dict[str, bytes]:
        """Give the files as they are found when all is lost that was not synced."""
        with self.lock:
            return {name: bytes(image.safe) for name, image in self.images.items()}

    def torn(self, choose: random.Random) -> dict[str, bytes]:
        """Give the files when a part of the unsynced writes has reached the disk, sector by sector, in any order."""
        with self.lock:
            found = {}
            for name, image in self.images.items():
                content = bytearray(image.safe)
                for offset, data in image.unsynced:
                    if data is None:
                        if choose.random() < 0.5:
                            _do(content, offset, None)
                        continue
                    for start in range(0, len(data), _SECTOR):
                        if choose.random() < 0.5:
                            _do(content, offset + start, data[start : start + _SECTOR])
                found[name] = bytes(content)
            return found


class _File(apsw.VFSFile):
    def __init__(self, power: Power, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)
        self._power = power
        self._image = power.images.setdefault(Path(path).name, Image())

    def xWrite(self, data: bytes, offset: int) -> None:
        self._power.moment()
        with self._power.lock:
            super().xWrite(data, offset)
            self._image.unsynced.append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        with self._power.lock:
            super().xTruncate(size)
            self._image.unsynced.append((size, None))

    def xSync(self, flags: int) -> None:
        self._power.moment()
        with self._power.lock:
            self._image.sync()
        self._power.moment()


class LossyVFS(apsw.VFS):
    """Register one for each test; ``unregister`` it after."""

    def __init__(self, power: Power) -> None:
        self._power = power
        super().__init__(NAME, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _File(self._power, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:
        super().xDelete(name, sync)
        if sync:
            with self._power.lock:
                self._power.images.pop(Path(name).name, None)


class Connection(apsw.Connection):
    """A connection by the lossy VFS. ``replaced`` are words of SQL to put in the place of others."""

    replaced: dict[str, str] = {}

    def __init__(self, path: str) -> None:
        super().__init__(path, vfs=NAME)

    def execute(self, statement: str, *more: Any, **options: Any) -> Any:
        for word, other in self.replaced.items():
            statement = statement.replace(word, other)
        return super().execute(statement, *more, **options)
