"""Files and folders of the machine that a view does not show: they are empty there, under each of their names, and stay so.

A mount over the file or folder itself would not do: whoever replaces it on the machine (an editor does, and so does every program
that rewrites its configuration at once) takes that mount away in all views, and what is not there yet could not be covered at all. So
the folder that holds it is shadowed, and what is hidden is left out of the shadow. That holds for names in folders that the cluster's
own user could fill; a folder of others, where nothing is hidden yet, stays as it is.

A hidden file has further names where a symbolic link leads to it (the file itself is hidden, so every link leads to nothing) and
where its file system is mounted a second time (``aliases``).

Sources: mount_namespaces(7) on what a rename does to a mount in another namespace; proc_pid_mountinfo(5)
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from podwire.linux import shadows, syscalls

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo: the file system, which of its folders is mounted, and where."""

    device: str
    root: str
    point: str


def parse(mountinfo: str) -> list[Mount]:
    """Read mountinfo; what was unmounted or deleted meanwhile is left out."""
    fields = [line.split(" ") for line in mountinfo.splitlines()]
    return [Mount(one[2], _plain(one[3]), _plain(one[4])) for one in fields if len(one) > 5 and not one[3].endswith("//deleted")]


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text).encode("latin-1", "surrogateescape").decode("utf-8", "surrogateescape")


def below(path: str, folder: str) -> bool:
    """Whether a path, by its text, is the folder or lies in it."""
    return path == folder or folder == "/" or path.startswith(f"{folder}/")


def aliases(path: str, mounts: Sequence[Mount]) -> set[str]:
    """Give the other names of a path that has no symbolic link in it: where its file system is mounted elsewhere, as a whole or in part."""
    own = max((one for one in reversed(mounts) if below(path, one.point)), key=lambda one: len(one.point), default=None)
    if own is None:
        return set()
    inside = _moved(path, own.point, own.root)
    found = set()
    for one in mounts:
        if one.device == own.device and below(inside, one.root):
            found.add(_moved(inside, one.root, one.point))
        elif one.device == own.device and below(one.root, inside):
            found.add(one.point)
    return found - {path}


def _moved(path: str, old: str, new: str) -> str:
    """The path, below another folder instead."""
    return "/" + f"{new}/{path[len(old.rstrip('/')) :]}".replace("//", "/").strip("/")


def names(paths: Iterable[str]) -> tuple[str, ...]:
    """Give all names of what is to be hidden, none of them below another; also of what is not there."""
    paths = [os.path.normpath(path) for path in paths if os.path.isabs(path)]
    if not paths:
        return ()
    with open("/proc/self/mountinfo", encoding="latin-1") as file:
        mounts = parse(file.read())
    folders: dict[str, str] = {}
    real = {_real(path, folders) for path in paths}
    # Most file systems are mounted once: they have no other names.
    devices = Counter(one.device for one in mounts)
    again = [one for one in mounts if devices[one.device] > 1]
    others = {alias for path in real for alias in aliases(path, mounts)} if again else set()
    found = {*paths, *real, *others} - {"/"}
    every = sorted(found)
    return tuple(path for path in every if not any(folder in found for folder in _above(path)))


def _above(path: str) -> Iterator[str]:
    """The folders that a path lies in."""
    while (path := os.path.dirname(path)) != "/":
        yield path


def _real(path: str, folders: dict[str, str]) -> str:
    """The path without symbolic links. Many of them lie in few folders, which are kept in ``folders``."""
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    path = os.path.join(folders[folder], name)
    return os.path.realpath(path) if os.path.islink(path) else path


def conceal(hidden: Iterable[str]) -> None:
    """Hide what ``names`` gave. Raises OSError."""
    empty: defaultdict[str, set[str]] = defaultdict(set)
    for path in hidden:
        place = _place(path)
        if place is not None:
            empty[place[0]].add(place[1])
    for folder in sorted(empty, key=lambda folder: folder.rstrip("/").count("/")):
        if os.access(folder, os.R_OK):
            shadows.shadow(folder, empty[folder])
        else:
            for name in empty[folder]:
                _cover(os.path.join(folder, name))


def _place(path: str) -> tuple[str, str] | None:
    """Give the folder that is to be shadowed and the name in it that is to be empty or may not appear; None: nobody could read it."""
    folder, name = os.path.split(path)
    while not os.path.isdir(folder):
        folder, name = os.path.split(folder)
    folder = os.path.realpath(folder)
    if os.path.lexists(os.path.join(folder, name)):
        return (folder, name) if os.access(os.path.join(folder, name), os.R_OK) else None
    return (folder, name) if folder != "/" and os.stat(folder).st_uid == os.geteuid() else None


def _cover(path: str) -> None:
    """Where the folder may be entered and not listed, no shadow can be made of it."""
    if os.path.isdir(path):
        flags = shadows.TIGHT | syscalls.MS_NOEXEC | syscalls.MS_RDONLY
        syscalls.mount("tmpfs", path, "tmpfs", flags, "size=4k,mode=0555")
    elif os.path.exists(path):
        syscalls.mount("/dev/null", path, "", syscalls.MS_BIND)
