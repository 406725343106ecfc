"""What the node keeps on disk of its Pods: ``FOLDER/UID.json``, and ``FOLDER/UID/`` with the Pod's files and logs.

A record is replaced in one step, so that an agent killed at any moment finds the former one or the new one whole. It is
written before what it speaks of is held or started: whatever exists has a record.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from podwire.pods.runs import Record

_PAGE = 4096


class Records:
    """The records below one folder."""

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        self._folder = folder
        self._log = log
        self._shared = folder.with_name(f"{folder.name}-shared")  # files that many Pods have
        for one in (folder, self._shared):
            one.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> list[Record]:
        """All records. One that does not decode is reported and set aside."""
        found = []
        for file in self._shared.iterdir():
            if file.stat().st_nlink == 1:
                file.unlink()  # no Pod has it any more
        for file in self._folder.glob("*.json"):
            try:
                found.append(msgspec.json.decode(file.read_bytes(), type=Record))
            except (msgspec.DecodeError, OSError) as error:
                self._log.error("the record %s is not usable: %s", file, error)
                file.rename(file.with_suffix(".unusable"))
        known = {file.stem for file in self._folder.iterdir() if not file.is_dir()}
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder.name not in known:  # whoever was killed while it was removed, or wrote to it then, left it
                shutil.rmtree(folder, ignore_errors=True)
        return found

    def write(self, record: Record) -> None:
        """Replace the record of that Pod."""
        text, path = msgspec.json.encode(record), f"{self._folder}/{record.uid}.json"
        if not _over_written(path, text):
            new = f"{self._folder}/.{record.uid}.new"
            _write(new, text, 0o600)
            os.rename(new, path)

    def share(self, uid: str, name: str, content: str) -> None:
        """Write a file of a Pod that others have just so: all of them have one file, which nobody writes to.

        Making a file is much of what a Pod costs on a disk; another name for one costs little.
        """
        shared = f"{self._shared}/{name}-{hashlib.sha256(content.encode()).hexdigest()[:32]}"
        path = f"{self._folder}/{uid}/{name}"
        with contextlib.suppress(OSError):
            if os.path.samefile(shared, path):
                return
        try:
            if not os.path.exists(shared):
                _write(f"{shared}.new", content.encode(), 0o644)
                os.rename(f"{shared}.new", shared)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.link(shared, path)
        except OSError:  # as many names as a file may have, or a file system that knows only one
            self.write_files(uid, {name: content}, mode=0o644)

    def remove(self, uid: str) -> None:
        """Remove everything that is kept of a Pod."""
        shutil.rmtree(self._folder / uid, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{uid}.json").unlink()

    def path(self, uid: str, name: str = "") -> str:
        """Where a Pod's file lies."""
        return str(self._folder / uid / name)

    def termination(self, uid: str, container: str) -> str:
        """Where the message of a container's end lies."""
        return self.path(uid, f"termination/{container}")

    def write_files(self, uid: str, files: Mapping[str, str | bytes], folder: str = "", mode: int = 0o600) -> str:
        """Write files of a Pod and give the path of their folder, which is this user's alone; ``mode``: for users of containers."""
        place = str(self._folder / uid / folder)
        os.makedirs(place, exist_ok=True, mode=0o700)
        for name, content in files.items():
            new = f"{place}/.{name}.new"
            _write(new, content.encode() if isinstance(content, str) else content, mode)
            os.rename(new, f"{place}/{name}")
        return place


def _write(path: str, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if mode != 0o600:
            os.fchmod(descriptor, mode)
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def _over_written(path: str, text: bytes) -> bool:
    """Write a text over a file in one step, spaces over what the former one had more; False: there is none, or one step is not enough.

    A file that takes the place of another one costs an inode each time, and ext4 looks long for one where many were just given up.
    What fits into one page the kernel writes whole or not at all, whatever becomes of the process.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        size = max(len(text), os.fstat(descriptor).st_size)
        return size <= _PAGE and os.pwrite(descriptor, text.ljust(size), 0) == size
    finally:
        os.close(descriptor)
