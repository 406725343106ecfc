"""Files that are all exchanged in one step: whoever reads them sees all the old ones or all the new ones.

The files lie in a folder named by the time, ``..data`` is a symbolic link to it, and each name that a reader sees leads through
that link. New files make a new folder; the step is the renaming of the link. Names that are new get their links after it, names that
are gone lose them before the old folder goes, as the kubelet does it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from podwire.pods.volumes import groups
from podwire.pods.volumes.payload import File, Payload

_DATA, _NEW_DATA = "..data", "..data_tmp"


def write(folder: Path, payload: Payload, stamp: str, group: int | None = None) -> bool:
    """Make the folder show exactly these files; False: it does already. ``stamp``: the time, as part of a file's name.

    ``group``: may read all of it.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    if group is not None:
        groups.give_one(folder, group, read_only=True)
        payload = {path: File(file.content, file.mode | groups.READ) for path, file in payload.items()}
    data = folder / _DATA
    old = os.readlink(data) if data.is_symlink() else ""
    if old and dict(_files(folder / old)) == dict(payload):
        _link(folder, payload)
        return False
    new = Path(tempfile.mkdtemp(prefix=f"..{stamp}.", dir=folder))
    new.chmod(0o755)
    for path, file in payload.items():
        _write(new / path, file)
    if group is not None:
        groups.give(new, group, read_only=True)
    with contextlib.suppress(FileNotFoundError):
        (folder / _NEW_DATA).unlink()
    (folder / _NEW_DATA).symlink_to(new.name)
    (folder / _NEW_DATA).rename(data)
    _link(folder, payload)
    for entry in os.scandir(folder):
        if entry.name.startswith("..") and entry.name not in {_DATA, new.name}:
            shutil.rmtree(entry.path, ignore_errors=True)
    return True


def _write(path: Path, file: File) -> None:
    _make_parents(path.parent)
    path.write_bytes(file.content)
    path.chmod(file.mode)


def _make_parents(folder: Path) -> None:
    """Make a folder that every user of a container may enter, whatever this process's umask is."""
    if not folder.is_dir():
        _make_parents(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _link(folder: Path, payload: Payload) -> None:
    """The names that a reader sees: the first part of each path."""
    wanted = {path.split("/")[0] for path in payload}
    for name in wanted:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in os.scandir(folder):
        if not entry.name.startswith("..") and entry.name not in wanted:
            os.unlink(entry.path)


def _files(folder: Path) -> Iterator[tuple[str, File]]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            with contextlib.suppress(OSError):
                yield str(path.relative_to(folder)), File(path.read_bytes(), path.stat().st_mode & 0o7777)
