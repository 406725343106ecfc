"""Folders of the machine replaced by small ones with the same entries, in the calling process's own mount namespace.

A shadow is a tmpfs that holds each entry of the folder: a symbolic link with its text, anything else as a copy of its mount. In it
something can be made, or left out, where nothing may be made on the machine's own file system. What is made later in the folder is not
seen in its shadow, and a file that is replaced there stays the former one here.

What must not be here: which folders, and why (``view``, ``concealment``).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from typing import Final

from podwire.linux import syscalls

TIGHT: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV
_shadows: set[int] = set()


def made_here(folder: str) -> bool:
    """Whether the folder is on a file system that was made here: nothing may ever be made on the machine's own."""
    return os.stat(folder).st_dev in _shadows


def tmpfs(path: str, data: str, flags: int = TIGHT) -> None:
    """Mount a new one, in which things may be made."""
    syscalls.mount("tmpfs", path, "tmpfs", flags, data)
    _shadows.add(os.stat(path).st_dev)


def shadow(folder: str, empty: Collection[str] = ()) -> None:
    """Replace a folder by its shadow, in which the entries named in ``empty`` are empty files and folders. Raises OSError."""
    entries = [(entry.name, _empty(entry) if entry.name in empty else _copy(entry)) for entry in os.scandir(folder)]
    mode = stat.S_IMODE(os.stat(folder).st_mode)
    # Nothing can be mounted over the root: the new one is made elsewhere and then becomes the root.
    place = "/proc" if folder == "/" else folder
    tmpfs(place, f"mode={mode:o}")
    for name, copy in entries:
        path = os.path.join(place, name)
        if isinstance(copy, str):
            os.symlink(copy, path)
        elif isinstance(copy, bool):
            make(path, folder=copy)
        elif copy is not None:
            make(path, folder=stat.S_ISDIR(os.fstat(copy).st_mode))
            syscalls.move_mount(copy, path)
            os.close(copy)
    if folder == "/":
        where = os.getcwd()
        os.chdir(place)
        syscalls.pivot_root(".", ".")
        syscalls.umount(".")
        os.chdir("/")
        with contextlib.suppress(OSError):
            os.chdir(where)


def make(path: str, *, folder: bool) -> None:
    """Make an empty file or folder."""
    if folder:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _empty(entry: os.DirEntry[str]) -> bool | None:
    """Whether what is made instead is a folder; None for a symbolic link that leads nowhere."""
    return entry.is_dir() if os.path.exists(entry.path) else None


def _copy(entry: os.DirEntry[str]) -> int | str | None:
    """A symbolic link's text, or a copy of the mount with what is mounted in it; None for what vanished or cannot be reached."""
    try:
        return os.readlink(entry.path) if entry.is_symlink() else syscalls.open_tree(entry.path, recursive=True)
    except OSError:
        return None
