"""What the node keeps on disk of its Pods: ``FOLDER/UID.json``, and ``FOLDER/UID/`` with the Pod's files and logs.

A record is replaced in one step, so that an agent killed at any moment finds the former one or the new one whole. It is
written before what it speaks of is held or started: whatever exists has a record.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from podwire.pods.runs import Record


class Records:
    """The records below one folder."""

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        self._folder = folder
        self._log = log
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> list[Record]:
        """All records. One that does not decode is reported and set aside."""
        found = []
        for file in self._folder.glob("*.json"):
            try:
                found.append(msgspec.json.decode(file.read_bytes(), type=Record))
            except (msgspec.DecodeError, OSError) as error:
                self._log.error("the record %s is not usable: %s", file, error)
                file.rename(file.with_suffix(".unusable"))
        return found

    def write(self, record: Record) -> None:
        """Replace the record of that Pod."""
        new = self._folder / f".{record.uid}.new"
        new.write_bytes(msgspec.json.encode(record))
        new.rename(self._folder / f"{record.uid}.json")

    def remove(self, uid: str) -> None:
        """Remove everything that is kept of a Pod."""
        shutil.rmtree(self._folder / uid, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{uid}.json").unlink()

    def path(self, uid: str, name: str = "") -> str:
        """Where a Pod's file lies."""
        return str(self._folder / uid / name)

    def write_files(self, uid: str, files: Mapping[str, str | bytes], folder: str = "") -> str:
        """Write files of a Pod, readable by this user alone, and give the path of their folder."""
        place = self._folder / uid / folder
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, content in files.items():
            new = place / f".{name}.new"
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            new.rename(place / name)
        return str(place)
