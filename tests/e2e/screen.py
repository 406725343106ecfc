"""A person at a terminal: a program started on one, what is typed, what is seen, and the window's size. Not a test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from typing import Any

from e2e.lab import LIMIT_S, User

CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"


class Screen:
    """``seen`` is all that was shown so far."""

    def __init__(self, master: int, process: subprocess.Popen[Any]) -> None:
        self._master, self.process, self.seen, self._past = master, process, "", 0

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def see(self, pattern: str, limit_s: float = LIMIT_S) -> re.Match[str]:
        """Wait until something is shown, after what was waited for before, and give it."""
        deadline = time.monotonic() + limit_s
        while True:
            found = re.compile(pattern).search(self.seen, self._past)
            if found:
                self._past = found.end()
                return found
            if time.monotonic() > deadline or not self._read(0.2):
                raise AssertionError(f"{pattern!r} is not shown:\n{self.seen[self._past :]}\n(before: {self.seen[: self._past]})")

    def end(self, limit_s: float = LIMIT_S) -> int:
        """Wait until the program has ended; gives its status."""
        deadline = time.monotonic() + limit_s
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        while self._read(0):
            pass
        assert self.process.poll() is not None, f"it does not end:\n{self.seen}"
        return int(self.process.returncode)

    def _read(self, wait_s: float) -> bool:
        """Read what is there; False: nothing more will come (or, without a wait, nothing is there)."""
        if not select.select([self._master], [], [], wait_s)[0]:
            return wait_s > 0
        with contextlib.suppress(OSError):
            if data := os.read(self._master, 65_536):
                self.seen += data.decode(errors="replace")
                return True
        return False


@contextlib.contextmanager
def a_screen(user: User, command: Sequence[str], columns: int = 90, rows: int = 30, **options: Any) -> Iterator[Screen]:
    """A program on a terminal that controls it."""
    master, slave = os.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    os.fchown(slave, user.uid, -1)
    try:
        # setsid makes the terminal the session's, so that the program hears of its size.
        process = user.start(["setsid", "--ctty", "--wait", *command], stdin=slave, stdout=slave, stderr=slave, **options)
    finally:
        os.close(slave)
    try:
        yield Screen(master, process)
    finally:
        os.close(master)  # hung up
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()
