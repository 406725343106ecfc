"""Who has which address of one range, on disk: a file to which each gift and each return is added as a line.

A line is written in one piece under a lock on the file, which the kernel drops with its holder. So whoever is killed at whatever moment
leaves a whole line, and the address is given, or a piece of one, which the next who comes cuts off, and nobody has got it. To add a line
to a file costs a fraction of what a file for each address does, and what was read before need not be read again.

    +10.4.0.5 OWNER     given in its turn: the next one begins behind it
    =10.4.0.9 OWNER     given because it was asked for
    -10.4.0.5           returned

The first line is a mark of the file's own: a file that somebody has removed and made anew is another one. When most lines no longer count,
the file is written anew beside and put in its place; who waits for the lock of the old one then finds that it has no name any more.
Nothing is forced to the disk: what an address leads to ends with the machine, too.

Not here: which address is given (``addresses``). Source: flock(2), rename(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from typing import Final

_MARK_BYTES: Final = 17
_KEPT_LINES: Final = 256
_FILE: Final = "given"


class AddressLog:
    """The file of one range, in its folder. What is here may be read and changed while ``locked``; for any number of threads."""

    def __init__(self, folder: str) -> None:
        self._folder, self._path = folder, f"{folder}/{_FILE}"
        self._lock = threading.Lock()
        self._fd = -1
        self._mark = b""
        self._read, self._lines = 0, 0
        self.owners: dict[str, str] = {}
        self.last = ""
        """The address that was given last in its turn; "" before the first."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time, over all processes. Raises OSError."""
        with self._lock:
            self._fd = self._opened()
            try:
                self._catch_up()
                yield
                if self._lines > _KEPT_LINES and self._lines > 4 * len(self.owners):
                    self._renew()
            finally:
                os.close(self._fd)

    def give(self, address: str, owner: str, *, in_turn: bool) -> None:
        """Record it; the owner is one line of words."""
        self._add(f"{'+' if in_turn else '='}{address} {owner}\n")

    def take_back(self, address: str) -> None:
        """Nobody has it any more."""
        if address in self.owners:
            self._add(f"-{address}\n")

    def _opened(self) -> int:
        """The file of that name, locked."""
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _catch_up(self) -> None:
        """Read what others have written since."""
        size = os.fstat(self._fd).st_size
        mark = os.pread(self._fd, _MARK_BYTES, 0)
        if mark != self._mark or not mark or size < self._read:
            self._begin(mark)
            size = os.fstat(self._fd).st_size
        if size > self._read:
            whole, newline, cut_off = os.pread(self._fd, size - self._read, self._read).rpartition(b"\n")
            for line in whole.decode().splitlines():
                self._obey(line)
            self._read += len(whole) + len(newline)
            if cut_off:
                os.ftruncate(self._fd, self._read)

    def _begin(self, mark: bytes) -> None:
        self.owners, self.last, self._lines = {}, "", 0
        if len(mark) < _MARK_BYTES:
            mark = _new_mark()
            os.ftruncate(self._fd, 0)
            os.write(self._fd, mark)
        self._mark, self._read = mark, _MARK_BYTES

    def _obey(self, line: str) -> None:
        kind, (address, _, owner) = line[:1], line[1:].partition(" ")
        self._lines += 1
        if kind == "-":
            self.owners.pop(address, None)
        else:
            self.owners[address] = owner
            if kind == "+":
                self.last = address

    def _add(self, line: str) -> None:
        data = line.encode()
        if os.write(self._fd, data) != len(data):
            os.ftruncate(self._fd, self._read)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self._read += len(data)
        self._obey(line[:-1])

    def _renew(self) -> None:
        lines = [f"={address} {owner}\n" for address, owner in self.owners.items()]
        if self.last:  # as a gift and a return: the turn is kept, and the one who has it now comes after
            lines = [f"+{self.last} -\n", f"-{self.last}\n", *lines]
        with contextlib.suppress(OSError):  # a full disk: the old one still serves
            self._replace(lines)

    def _replace(self, lines: list[str]) -> None:
        """A whole file in place of the one of that name."""
        new = f"{self._path}.new"
        with open(new, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(_new_mark() + "".join(lines).encode())
        os.replace(new, self._path)


def _new_mark() -> bytes:
    return os.urandom(8).hex().encode() + b"\n"
