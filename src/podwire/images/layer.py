"""One layer unpacked into a folder of its own, as overlayfs wants it, without ever writing beside that folder.

A layer is a tar archive that somebody else made. A name that leads out (``..``, an absolute path, a symbolic link on the way, a hard
link to what the layer does not have), a device node, and more than the limits allow refuse the whole layer by name. Where a path
leads is decided from what the layer itself has said so far, never by asking the file system.

All files are this user's at first. ``give_owners`` gives those to their owners that have others, with their set-user-ID and set-group-ID
bits, where the machine lends this user further ones (``podwire.linux.ids``); elsewhere a container has one user, and none of that would
mean anything. File capabilities and all other extended attributes are dropped. A whiteout is the character device 0/0, an opaque folder
has the attribute that overlayfs reads in a user namespace.

Sources: https://github.com/opencontainers/image-spec/blob/main/layer.md; the kernel's filesystems/overlayfs (userxattr)
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
from dataclasses import dataclass
from typing import Any, Final

from podwire.images.errors import ImageRefused
from podwire.images.streams import Hashed
from podwire.linux import ids

_WHITEOUT, _OPAQUE, _RESERVED = ".wh.", ".wh..wh..opq", ".wh..wh."
_MOST_LINKS: Final = 40
_MOST_HEADER: Final = 1 << 20
_MOST_PATH: Final = 4096
_EARLIEST: Final = -(1 << 31)
_LATEST: Final = 1 << 34
"""Seconds since 1970: what ext4 can write down."""
_LONG_HEADERS: Final = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_OPAQUE_ATTRIBUTE: Final = "user.overlay.opaque"
_FOLDER, _FILE, _GONE = "folder", "file", "gone"


@dataclass
class Budget:
    """What may still be unpacked of one image."""

    size: int = 32 << 30
    files: int = 1_000_000
    names: int = 128 << 20

    def take(self, size: int, what: str) -> None:
        self.size -= size
        self.files -= 1
        self.names -= len(what)
        for left, word in ((self.size, "bytes"), (self.files, "files"), (self.names, "bytes of names")):
            if left < 0:
                raise ImageRefused(f"{what}: the image unpacks to more than is taken ({word})")


class Member(tarfile.TarInfo):
    """One entry. What of headers would have to be held in memory is limited.

    A sparse file can be of any size in an archive of any size, and no builder of images writes one: it is refused.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _LONG_HEADERS:
            for_all = tar.__dict__.setdefault("headers_for_all", 0) + (self.size if self.type == tarfile.XGLTYPE else 0)
            tar.__dict__["headers_for_all"] = for_all
            if not 0 <= self.size <= _MOST_HEADER or for_all > _MOST_HEADER:
                raise ImageRefused(f"a header of {max(self.size, for_all)} bytes, where at most {_MOST_HEADER} are read")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._proc_gnusparse_00(self)
        return super()._proc_member(tar)  # type: ignore[misc]  # tarfile has no other door

    def _proc_gnusparse_00(self, member: tarfile.TarInfo, *_: Any) -> None:
        raise ImageRefused(f"{member.name} is a sparse file, which no layer may bring")

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


class Unpacking:
    """``root`` is an empty folder. ``take`` unpacks; ``size`` is then what the layer's files hold."""

    def __init__(self, root: str, budget: Budget) -> None:
        self._root, self._budget = root, budget
        self._kinds: dict[str, str] = {"": _FOLDER}  # path -> kind; of a symbolic link: "->" and where it leads
        self._folders: dict[str, tuple[int, float]] = {}  # modes and times, set when nothing is written below them any more
        self._owned: dict[str, tuple[int, int, int]] = {}  # user, group, mode of what is not user 0's, or has more than rights for all
        self.size = 0

    def take(self, stream: Hashed) -> None:
        """Unpack the archive. Raises ImageRefused, tarfile.TarError, OSError, and what reading the stream raises."""
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20, tarinfo=Member, errorlevel=2) as tar:
            for member in tar:
                self._budget.take(max(0, member.size) if member.isreg() else 0, member.name)
                try:
                    self._add(tar, member)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, member.name) from error
                except ValueError as error:  # a NUL in a name, a time that is none
                    raise ImageRefused(f"{member.name}: {error}") from error
                tar.members = []  # type: ignore[attr-defined]  # it would remember every entry
        for path, (mode, modified) in reversed(self._folders.items()):
            os.chmod(self._place(path), mode)
            os.utime(self._place(path), (modified, modified))

    def give_owners(self) -> None:
        """Give files to their owners: in a namespace that has these. One that it has not leaves the file with user 0."""
        for path, (user, group, mode) in self._owned.items():
            place = self._place(path)
            try:
                os.lchown(place, user, group)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                continue
            if not stat.S_ISLNK(os.lstat(place).st_mode):
                os.chmod(place, mode)

    @property
    def has_owners(self) -> bool:
        """Whether there is anything to give."""
        return bool(self._owned)

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if not parts:
            return
        parent = self._resolve(parts[:-1], member.name)
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            self._white_out(parent, name, member.name)
            return
        path = f"{parent}/{name}" if parent else name
        if member.isdir():
            self._folder(path, member)
            self._own(path, member)
            return
        if member.isreg():
            self._remove(path)
            self._file(tar, path, member)
        elif member.issym():
            self._remove(path)
            os.symlink(member.linkname, self._place(path))
            self._kinds[path] = f"->{member.linkname}"
        elif member.islnk():
            self._link(path, member)
        elif member.isfifo():
            self._remove(path)
            os.mkfifo(self._place(path), stat.S_IMODE(member.mode) & 0o777)
            self._kinds[path] = _FILE
        else:
            kind = "a device node" if member.ischr() or member.isblk() else f"of the unknown type {member.type!r}"
            raise ImageRefused(f"{member.name} is {kind}, which no layer may bring")
        self._own(path, member)

    def _own(self, path: str, member: tarfile.TarInfo) -> None:
        if member.islnk():
            return  # it is another name of what has its owner already
        self._owned.pop(path, None)
        user, group = (one if 0 <= one < ids.COUNT else 0 for one in (member.uid, member.gid))
        if user or group or member.mode & (stat.S_ISUID | stat.S_ISGID):
            self._owned[path] = user, group, stat.S_IMODE(member.mode)

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}"

    # Where a path leads -----------------------------------------------------------------------------------------------------

    def _resolve(self, parts: list[str], name: str) -> str:
        """The folder with this path within the layer, made where it is missing. Symbolic links of the layer are followed within it."""
        path: list[str] = []
        left, followed = list(reversed(parts)), 0
        while left:
            part = left.pop()
            if part == "..":
                if not path:
                    raise ImageRefused(f"{name} leads out of the layer by a symbolic link")
                path.pop()
                continue
            below = "/".join((*path, part))
            kind = self._kinds.get(below, _GONE)
            if kind.startswith("->"):
                target, followed = kind[2:], followed + 1
                if target.startswith("/") or followed > _MOST_LINKS:
                    raise ImageRefused(f"{name} leads out of the layer: {below} is a symbolic link to {target}")
                left += [one for one in reversed(target.split("/")) if one not in {"", "."}]
                continue
            if kind == _FILE:
                raise ImageRefused(f"{name}: {below} is a file")
            path.append(part)
            if kind == _GONE:
                self._budget.take(0, below)
                self._make_folder(below)
        return "/".join(path)

    def _make_folder(self, path: str) -> None:
        whited_out = self._kinds.get(path) == _GONE
        if whited_out:
            os.unlink(self._place(path))
        os.mkdir(self._place(path), 0o755)
        if whited_out:
            self._make_opaque(path)
        self._kinds[path] = _FOLDER

    def _remove(self, path: str) -> None:
        """Make place for what comes again in the same layer."""
        kind = self._kinds.pop(path, None)
        self._owned.pop(path, None)
        if kind == _FOLDER:
            for folder, names, files in os.walk(self._place(path)):
                below = folder[len(self._root) + 1 :]
                for name in (*names, *files):
                    del self._kinds[f"{below}/{name}"]
                    self._owned.pop(f"{below}/{name}", None)
                self._folders.pop(below, None)
            shutil.rmtree(self._place(path))
        elif kind is not None:
            os.unlink(self._place(path))

    # What there is ------------------------------------------------------------------------------------------------------------

    def _folder(self, path: str, member: tarfile.TarInfo) -> None:
        if self._kinds.get(path) != _FOLDER:
            if self._kinds.get(path) not in {_GONE, None}:
                self._remove(path)
            self._make_folder(path)
        self._folders[path] = (member.mode & 0o1777, _time(member))

    def _file(self, tar: tarfile.TarFile, path: str, member: tarfile.TarInfo) -> None:
        source = tar.extractfile(member)
        assert source is not None
        descriptor = os.open(self._place(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with source, open(descriptor, "wb", buffering=0) as file:
            shutil.copyfileobj(source, file, 1 << 20)
            os.fchmod(descriptor, member.mode & 0o1777)
            os.utime(descriptor, (_time(member), _time(member)))
        self._kinds[path] = _FILE
        self.size += member.size

    def _link(self, path: str, member: tarfile.TarInfo) -> None:
        parts = _parts(member.linkname, f"{member.name} is a hard link to ")
        target = "/".join(parts)
        if parts:
            parent = self._resolve(parts[:-1], member.name)
            target = f"{parent}/{parts[-1]}" if parent else parts[-1]
        kind = self._kinds.get(target, _GONE)
        if kind in {_GONE, _FOLDER}:
            raise ImageRefused(f"{member.name} is a hard link to {member.linkname}, which is no file of this layer")
        if target != path:
            self._remove(path)
            os.link(self._place(target), self._place(path), follow_symlinks=False)
            self._kinds[path] = kind

    def _white_out(self, parent: str, name: str, whole: str) -> None:
        if name == _OPAQUE:
            self._make_opaque(parent)
            return
        if name.startswith(_RESERVED):
            return  # aufs kept its own affairs under such names
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in {"", ".", ".."}:
            raise ImageRefused(f"{whole} hides nothing that has a name")
        path = f"{parent}/{hidden}" if parent else hidden
        kind = self._kinds.get(path)
        if kind == _FOLDER:
            self._make_opaque(path)  # what this layer brings stays: a whiteout hides what lies below
        elif kind is None:
            os.mknod(self._place(path), stat.S_IFCHR, 0)
            self._kinds[path] = _GONE

    def _make_opaque(self, path: str) -> None:
        os.setxattr(self._place(path), _OPAQUE_ATTRIBUTE, b"y")


def _parts(name: str, before: str = "") -> list[str]:
    """The parts of a path in the archive. Raises ImageRefused for one that leads out."""
    if name.startswith("/") and name.strip("/"):
        raise ImageRefused(f"{before}{name}, an absolute path")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ImageRefused(f"{before}{name}, which leads out of the layer by '..'")
    if len(name) > _MOST_PATH:
        raise ImageRefused(f"{before}{name[:64]}..., a path of {len(name)} characters")
    return parts


def _time(member: tarfile.TarInfo) -> float:
    """When the entry was changed. Raises ValueError for what no file system can write down."""
    if not _EARLIEST <= member.mtime <= _LATEST:
        raise ValueError(f"{member.mtime} is no time of a file")
    return member.mtime


def is_opaque(place: str) -> bool:
    """Whether an unpacked layer hides all that lies below it. Overlayfs asks that of every folder but the root."""
    try:
        return os.getxattr(place, _OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        return False


def remove_tree(path: str) -> None:
    """Remove what was unpacked, whatever the modes and owners of its folders are."""
    if not os.path.lexists(path):
        return
    try:
        _remove_tree(path)
    except PermissionError:
        if not ids.with_users(lambda: _remove_tree(path)):
            raise


def _remove_tree(path: str) -> None:
    folders = [path]
    while folders:
        folder = folders.pop()
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            folders += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    shutil.rmtree(path)
