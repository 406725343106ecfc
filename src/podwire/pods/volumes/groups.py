"""Giving a volume to the group that its Pod names (fsGroup): it reads all files, writes where that is for writing, and owns what is new.

Sources: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/ (fsGroup, fsGroupChangePolicy)
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

READ: Final = 0o440
_WRITE, _ENTER = 0o660, 0o110


def give(volume: Path, group: int, *, read_only: bool = False, only_on_mismatch: bool = False) -> None:
    """Give a volume and all that it holds. ``only_on_mismatch``: nothing, where its root is as it should be. Raises OSError."""
    if only_on_mismatch and _is_given(volume, group, read_only=read_only):
        return
    # The root comes last: whoever was interrupted begins anew.
    for root, folders, files in os.walk(volume, topdown=False):
        for name in (*folders, *files):
            give_one(Path(root, name), group, read_only=read_only)
    give_one(volume, group, read_only=read_only)


def give_one(path: Path, group: int, *, read_only: bool = False) -> None:
    """Give one file or folder. Raises OSError."""
    mode = path.lstat().st_mode
    os.lchown(path, -1, group)
    if not stat.S_ISLNK(mode):
        path.chmod(stat.S_IMODE(mode) | _rights(mode, read_only=read_only))  # after lchown, which takes bits away


def _rights(mode: int, *, read_only: bool) -> int:
    rights = READ if read_only else _WRITE
    return rights | _ENTER | stat.S_ISGID if stat.S_ISDIR(mode) else rights


def _is_given(volume: Path, group: int, *, read_only: bool) -> bool:
    found = volume.stat()
    wanted = _rights(found.st_mode, read_only=read_only)
    return found.st_gid == group and found.st_mode & wanted == wanted
