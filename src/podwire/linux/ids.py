"""Users and groups that a user namespace may have beside its own one: which there are, and giving them to it.

A namespace that an ordinary user makes has one user. Further ones are lent by the machine: to root, whose namespace has all of them, a
range that belongs to nobody; to an ordinary user those that /etc/subuid and /etc/subgid name, through newuidmap and newgidmap (Debian:
uidmap). User 0 of the namespace is in any case the one who makes it; 1 to 65535 are those that are lent. So no user of a container is ever
a user of the machine, but for who made the cluster.

A map is written by a process outside, which waits there before the namespace is made (``Mapper``).

Sources: user_namespaces(7), newuidmap(1), subuid(5); https://systemd.io/UIDS-GIDS/ (ranges that are spoken for).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from podwire.linux import syscalls

COUNT: Final = 65_536
"""Users that a container's image may name: 0 to 65535."""
NOBODYS: Final = 0x7000_0000
"""From here on no user of the machine is numbered: beyond what systemd gives to containers, below what is negative for some."""
_PATH: Final = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin"
_SETGID, _SETUID = 6, 7


@dataclass(frozen=True)
class Lent:
    """``users``, ``groups``: the first number outside, and how many. ``programs``: newuidmap and newgidmap, where they are needed."""

    users: tuple[int, int]
    groups: tuple[int, int]
    programs: tuple[str, str] | None = None


def lent() -> Lent | None:
    """What users this process could give to a namespace beside itself; None: none."""
    if os.geteuid() == 0:
        if not {_SETUID, _SETGID} <= syscalls.permitted_capabilities():
            return None
        found = Lent(_of_file("/etc/subuid", "root") or (NOBODYS, COUNT - 1), _of_file("/etc/subgid", "root") or (NOBODYS, COUNT - 1))
        inside = _holds("uid_map", found.users) and _holds("gid_map", found.groups)
        return found if inside else None
    programs = shutil.which("newuidmap", path=_PATH), shutil.which("newgidmap", path=_PATH)
    user = _name(os.geteuid())
    users, groups = _of_file("/etc/subuid", user), _of_file("/etc/subgid", user)
    if programs[0] is None or programs[1] is None or users is None or groups is None:
        return None
    return Lent(users, groups, (programs[0], programs[1]))


def missing() -> str:
    """Why no users are lent, and what an ordinary user can do for it."""
    if os.geteuid() == 0:
        return "this namespace has no users to lend"
    if shutil.which("newuidmap", path=_PATH) is None:
        return "newuidmap is not installed (Debian: apt-get install uidmap)"
    if lent() is not None:
        return "newuidmap or newgidmap refuses what /etc/subuid and /etc/subgid lend"
    user = _name(os.geteuid())
    ranges = "--add-subuids 100000-165535 --add-subgids 100000-165535"
    return f"/etc/subuid and /etc/subgid lend {user} none: as root, run `usermod {ranges} {user}`"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _of_file(path: str, user: str) -> tuple[int, int] | None:
    """The first range that is lent to a user, by name or by number."""
    with contextlib.suppress(OSError, KeyError):
        names = {user, str(pwd.getpwnam(user).pw_uid)} if not user.isdigit() else {user}
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            fields = line.split(":")
            if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit() and int(fields[2]) > 0:
                return int(fields[1]), min(int(fields[2]), COUNT - 1)
    return None


def _holds(name: str, wanted: tuple[int, int]) -> bool:
    first, count = wanted
    return any(start <= first and first + count <= start + length for start, _, length in _map(name))


def _map(name: str) -> list[tuple[int, int, int]]:
    try:
        lines = Path("/proc/self", name).read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    return [(int(inside), int(outside), int(length)) for inside, outside, length in (line.split() for line in lines)]


def own() -> tuple[int, int]:
    """How many users and groups this process's namespace has, from 0 on without a gap."""
    found = []
    for name in ("uid_map", "gid_map"):
        end = 0
        for inside, _, length in sorted(_map(name)):
            if inside > end:
                break
            end = max(end, inside + length)
        found.append(end)
    return found[0], found[1]


def is_cluster() -> bool:
    """Whether this process is in a namespace that was given users here: its files' owners are what containers see."""
    lines = _map("uid_map")
    return len(lines) == 2 and (lines[0][0], lines[0][2], lines[1][0]) == (0, 1, 1)


class Mapper:
    """A process that stays outside and writes the maps of this one. Make it before the namespace, ask it after; it ends in any case."""

    def __init__(self, lent: Lent) -> None:
        target, uid, gid = os.getpid(), os.geteuid(), os.getegid()
        waiting, self._go = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.close(self._go)
                if os.read(waiting, 1):
                    _write_maps(lent, target, uid, gid)
                    status = 0
            finally:
                os._exit(status)
        os.close(waiting)

    def map(self) -> bool:
        """Have the maps written; False: that is refused."""
        os.write(self._go, b"m")
        return self.end()

    def end(self) -> bool:
        """End it, whether it has done anything or not."""
        os.close(self._go)
        return os.waitpid(self._pid, 0)[1] == 0


def _write_maps(lent: Lent, pid: int, uid: int, gid: int) -> None:
    for name, own_id, (first, count) in (("uid_map", uid, lent.users), ("gid_map", gid, lent.groups)):
        if lent.programs is not None:
            program = lent.programs[name == "gid_map"]
            words = ("0", str(own_id), "1", "1", str(first), str(count))
            subprocess.run([program, str(pid), *words], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            continue
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"0 {own_id} 1\n1 {first} {count}\n".encode())
        finally:
            os.close(descriptor)


def with_users(action: Callable[[], None]) -> bool:
    """Call ``action`` where the files of all users that are lent may be changed; False: none are lent, and nothing was done.

    In a namespace that has them that is here, else in a forked process, whose failure is raised as an OSError. The process must have one
    thread then.
    """
    if is_cluster():
        action()
        return True
    given = lent()
    if given is None:
        return False
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _act(action, given, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == _REFUSED:
        return False
    if status:
        number, _, words = said.partition(" ")
        raise OSError(int(number or 0), words or f"ended with status {status}")
    return True


_REFUSED: Final = 3


def _act(action: Callable[[], None], given: Lent, report: int) -> NoReturn:
    status = 1
    try:
        mapper = Mapper(given)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        if not mapper.map():
            os._exit(_REFUSED)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        action()
        status = 0
    except OSError as failure:
        os.write(report, f"{failure.errno or 0} {failure.strerror}: {failure.filename or ''}".encode())
    finally:
        os._exit(status)
