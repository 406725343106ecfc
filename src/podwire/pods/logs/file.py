"""The file that a run of a container logs to: ``FOLDER/UID/CONTAINER/N.log``, N being how many runs came before.

It is rotated by size as the kubelet does it: the full one is renamed to ``N.log.YYYYMMDD-HHMMSS.NANOSECONDS``, of which the newest are
kept. Whoever writes one uses ``LogFile`` (the writing program, the stand-ins); one writer a file. Blocking, and for any thread.

Source: https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from podwire.pods.logs.lines import Entry, Stream, encode

MAXIMUM_SIZE: Final = 10 * 1024 * 1024  # containerLogMaxSize
MAXIMUM_FILES: Final = 5  # containerLogMaxFiles: the one that is written and the rotated ones
RUNS_KEPT: Final = 2  # the present one and the one before it, for `kubectl logs --previous`


def path_of(folder: str | Path, uid: str, container: str, number: int) -> Path:
    """Where a run logs to. ``folder`` is ``STATE/nodes/NODE/pods``."""
    return Path(folder, uid, container, f"{number}.log")


def rotated(path: Path) -> list[Path]:
    """The rotated files of a run, oldest first."""
    return sorted(path.parent.glob(f"{path.name}.*"))


def remove_older(path: Path) -> None:
    """Remove the files of runs that are no longer kept, now that ``path`` is the newest run's."""
    oldest = int(path.name.partition(".")[0]) - RUNS_KEPT + 1
    for file in path.parent.glob("*.log*"):
        number = file.name.partition(".")[0]
        if number.isdigit() and int(number) < oldest:
            file.unlink(missing_ok=True)


class LogFile:
    """An open log. It is made, with its folder, when something is written."""

    def __init__(self, path: str | Path, *, maximum_size: int = MAXIMUM_SIZE, maximum_files: int = MAXIMUM_FILES) -> None:
        self.path = Path(path)
        self._maximum_size, self._maximum_files = maximum_size, maximum_files
        self._fd = -1
        self._size = 0

    def line(self, text: bytes | str, *, stream: Stream = "stdout", time_ns: int | None = None) -> None:
        """Write one line, given without its newline. Raises OSError."""
        written = text.encode() if isinstance(text, str) else text
        now = time.time_ns() if time_ns is None else time_ns
        self.write(b"".join(encode(Entry(now, stream, True, part)) for part in written.split(b"\n")))

    def write(self, entries: bytes) -> None:
        """Write whole entries, as ``lines.encode`` makes them. Raises OSError."""
        if not entries:
            return
        if self._fd < 0:
            self.open()
        elif self._size and self._size + len(entries) > self._maximum_size:
            self._rotate()
        view = memoryview(entries)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]

    def open(self) -> None:
        """Make the file, though nothing is written yet: a container that runs has a log. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close it; the next write opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _rotate(self) -> None:
        self.close()
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        place = self.path.with_name(f"{self.path.name}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime(second))}.{rest:09d}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(place)
        for file in rotated(self.path)[: -(self._maximum_files - 1) or None]:
            file.unlink(missing_ok=True)
        self.open()
