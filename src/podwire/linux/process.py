"""Programs: what to start, and starting it.

``Program`` says everything about a program before it runs; ``start`` forks, and in the child, between fork and exec, puts it
into its namespaces, gives it its view of the file system, its descriptors, its terminal, takes its rights away and executes
it. What goes wrong there comes back through a pipe that closes by itself when the program runs: ``Starting.outcome``. Nothing
blocks the parent, so the first process of a PID namespace can use it from its loop.

Its PID namespace is chosen by the parent, for this one fork. Order in the child, each step where it still can be done: session,
network, new namespaces, view, terminal, descriptors, folder, limits, rights, exec. A start time beside each pid (field 22 of
/proc/PID/stat) tells a process from a later one with the same number.

Sources: execve(2), capabilities(7), proc(5); containerd's default capabilities (oci.WithDefaultUnixCaps).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NoReturn, cast

from podwire.linux import cgroups, remains, runtime, syscalls, terminals, view
from podwire.linux.errors import ProgramNotStarted

#: What containerd leaves to a container: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
#: net_raw, sys_chroot, mknod, audit_write, setfcap.
CONTAINER_CAPABILITIES: Final = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_DESCRIPTOR_FIELDS: Final = ("stdin", "stdout", "stderr", "namespace", "ipc", "join", "console")
_NAMESPACES: Final = {
    "ipc": syscalls.CLONE_NEWIPC,
    "mnt": syscalls.CLONE_NEWNS,
    "net": syscalls.CLONE_NEWNET,
    "pid": syscalls.CLONE_NEWPID,
    "uts": syscalls.CLONE_NEWUTS,
}


@dataclass(frozen=True)
class Program:
    """A program to start.

    ``namespace``: a descriptor of a network namespace, or the name under which the first process holds one; None: where it is started.
    ``ipc``: likewise an IPC namespace; ``own_ipc``: a new one.
    ``join``: a pidfd, or the name of a program of the first process, whose namespaces of the kinds ``joins`` it enters; with ``mnt`` it has
    that program's view, with ``pid`` it ends at the latest when that program does.
    ``stdin``, ``stdout``, ``stderr``: a descriptor, a path (the outputs are appended to it), or None for /dev/null.
    ``descriptors``: become 3, 4, ... ``files``, ``folders``, ``hidden``, ``read_only``: see ``view.View``. ``session``: of its own.
    ``terminal``: stdin is a terminal and becomes the session's. ``console``: a unix socket; a terminal is made where the program is, with
    ``size`` (columns, rows), so that it has a name there; it becomes stdin, stdout, stderr and the session's, and its other end is sent
    through the socket, in a packet of its own. ``capabilities``: what may ever be had, by number; None takes none away.
    ``no_new_privileges``: nothing that it executes gains rights. ``own_processes``: it is the first process of a PID
    namespace: when it ends, all that it started ends; signals that it does not handle are ignored, save SIGKILL.
    ``ends_all``: when it ends, all that has its ``hostname`` is killed.
    ``own_sys``: /sys shows the interfaces of its network namespace (a container's does anyway).
    ``user``: a user, a group, and further groups that it has; it owns its stdin, stdout and stderr. Empty: those of its starter.
    ``hostname``: of its own when not empty. ``open_files``: the soft limit; None: what the starter had at its own start.
    ``cgroups``: folders of cgroups that it is in from its beginning on. ``runtime``: an OCI runtime, with its options, that makes the
    program of ``bundle`` and ends. ``overlay``: mounted for it, in a mount namespace of its own: ``target``, ``upper``, ``work``, and
    ``lower``, paths below ``base``. What the runtime makes has what else is not said to it from its starter.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    namespace: int | str | None = None
    ipc: int | str | None = None
    own_ipc: bool = False
    join: int | str | None = None
    joins: Sequence[str] = tuple(_NAMESPACES)
    stdin: int | str | None = None
    stdout: int | str | None = None
    stderr: int | str | None = None
    descriptors: Sequence[int] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[str] = ()
    read_only: bool = False
    session: bool = True
    terminal: bool = False
    console: int | None = None
    size: Sequence[int] = (0, 0)
    capabilities: Sequence[int] | None = None
    no_new_privileges: bool = False
    own_processes: bool = False
    ends_all: bool = False
    own_sys: bool = False
    user: Sequence[int] = ()
    hostname: str = ""
    umask: int = 0o022
    open_files: int | None = None
    overlay: Mapping[str, str] = field(default_factory=dict)
    runtime: Sequence[str] = ()
    bundle: str = ""
    cgroups: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("a program needs a name to be executed by: argv is empty")
        for word in (*self.argv, *self.env, *self.env.values(), self.cwd):
            if not isinstance(word, str) or "\0" in word:
                raise ValueError(f"{word!r} cannot be handed to a program")
        if self.ends_all and not self.hostname:
            raise ValueError("what ends with a program is told by its hostname, and it has none of its own")
        if self.terminal and not isinstance(self.stdin, int):
            raise ValueError("a program with a terminal needs it as its stdin")

    def contained(self) -> Program:
        """The same program as a container runs it: its view read-only, no new privileges, a container's capabilities."""
        return replace(self, read_only=True, no_new_privileges=True, capabilities=CONTAINER_CAPABILITIES)

    def to_message(self) -> tuple[dict[str, Any], list[int]]:
        """As JSON and the descriptors beside it; in the JSON each descriptor is {"descriptor": its place in the list}."""
        defaults = Program(("-",))
        message = {known.name: getattr(self, known.name) for known in fields(self)}
        message = {name: value for name, value in message.items() if value != getattr(defaults, name)}
        beside: list[int] = []
        for name in _DESCRIPTOR_FIELDS:
            value = getattr(self, name)
            if isinstance(value, int):
                message[name] = {"descriptor": len(beside)}
                beside.append(value)
        message["descriptors"] = [len(beside) + place for place in range(len(self.descriptors))]
        return message, beside + list(self.descriptors)

    @classmethod
    def from_message(cls, message: Mapping[str, Any], beside: Sequence[int]) -> Program:
        """What ``to_message`` made; the descriptors stay the caller's.

        Raises:
            ValueError, TypeError, IndexError: it is none.
        """
        values = dict(message)
        for name in _DESCRIPTOR_FIELDS:
            if isinstance(values.get(name), dict):
                values[name] = beside[values[name]["descriptor"]]
            elif isinstance(values.get(name), int):
                raise TypeError(f"{name}: a number is no descriptor here")
        values["descriptors"] = [beside[place] for place in values.get("descriptors", ())]
        unknown = values.keys() - {known.name for known in fields(cls)}
        if unknown:
            raise ValueError(f"a program has no {', '.join(sorted(unknown))}")
        return cls(**values)

    def printed(self) -> str:
        """The command, as a person would type it."""
        import shlex  # here, because the first process of a PID namespace lives long and imports little

        return shlex.join(self.argv)


class Starting:
    """A program between fork and exec.

    ``pipe`` becomes readable when there is news; ``advance`` takes it in. ``pid`` is the program's own as soon as that is known (with a
    ``runtime`` the forked child is another process that ends then). ``mark``: by which all that ends with it is known (``remains``).
    ``failure``: why it does not run.
    """

    def __init__(self, program: Program, pid: int, pipe: int) -> None:
        self.program = program
        self.pid = pid
        self.pipe = pipe
        self.failure: ProgramNotStarted | None = None
        self.mark = 0
        self._text = b""

    def advance(self) -> bool:
        """Take in what the child tells; True once the fate is known. Blocks while there is no news.

        A child that failed has ended, or does so at once, and is the caller's to reap.
        """
        block = os.read(self.pipe, 65_536)
        self._text += block
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "pid" in told:
                self.pid = told["pid"]
                continue
            if "mark" in told:
                self.mark = told["mark"]
                continue
            self.failure = ProgramNotStarted(told["errno"], f"start {self.program.argv[0]}", told["hint"], told["step"])
        return not block

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.pipe)

    def outcome(self) -> ProgramNotStarted | None:
        """Wait until the program runs (None) or it is known why not, and close the pipe."""
        try:
            while not self.advance():
                pass
        finally:
            self.close()
        return self.failure


def start(
    program: Program,
    *,
    limits: tuple[int, int] | None = None,
    before: Callable[[], None] | None = None,
    instead: Callable[[], NoReturn] | None = None,
) -> Starting:
    """Fork and prepare the program. ``limits``: of open files (soft, hard) for it.

    ``before``: called first in the child. ``instead``: called where the program would be executed; it is what runs then.
    ``program.namespace``, ``program.ipc`` and ``program.join`` must be descriptors or None here.

    Raises:
        OSError: EAGAIN at the limit of processes, EMFILE.
        ProgramNotStarted: its PID namespace cannot be made or joined.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _fork(program)
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        try:
            _Child(program, writer, limits).run(before, instead)
        finally:
            os._exit(126)
    os.close(writer)
    return Starting(program, pid, reader)


def _fork(program: Program) -> int:
    """Fork into the PID namespace that the program is to be in.

    A process never changes its own, but the thread that forks chooses that of its next child: so one fork is enough, and the child
    is this process's own. Afterwards later children are again where this process is.
    """
    joins = isinstance(program.join, int) and "pid" in program.joins
    if not joins and not program.own_processes:
        return os.fork()
    step = "join the namespaces" if joins else "make its namespaces"
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if joins:
            syscalls.setns(cast("int", program.join), syscalls.CLONE_NEWPID)
        else:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            pid = os.fork()
        except OSError:
            syscalls.setns(own, syscalls.CLONE_NEWPID)
            raise
        if pid:
            syscalls.setns(own, syscalls.CLONE_NEWPID)
    except OSError as refused:
        raise ProgramNotStarted(refused.errno or errno.EINVAL, f"start {program.argv[0]}", f"{step}: {refused}", step) from refused
    finally:
        os.close(own)
    return pid


def start_time(pid: int | str = "self") -> int | None:
    """When a process started, in clock ticks since boot: with the pid its identity. None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return None


def reset_signals() -> None:
    """Every signal to its default and none blocked, as a program expects it (Python ignores SIGPIPE)."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in {signal.SIG_DFL, None}:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


# ---------------------------------------------------------------------------------------------------------- the child


class _Child:
    """The child between fork and exec. ``step`` names what is being done, for whoever reports its failure."""

    def __init__(self, program: Program, report: int, limits: tuple[int, int] | None) -> None:
        self.program = program
        self.limits = limits
        self.step = "prepare"
        self._cgroups: list[int] = []
        lowest = 3 + len(program.descriptors)
        self.report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, lowest)
        os.close(report)
        self._console = None if program.console is None else fcntl.fcntl(program.console, fcntl.F_DUPFD_CLOEXEC, lowest)

    def run(self, before: Callable[[], None] | None, instead: Callable[[], NoReturn] | None) -> NoReturn:
        status = 126
        try:
            if before is not None:
                before()
            self._prepare()
            self.step = "execute"
            if instead is not None:
                os.close(self.report)
                instead()
            if self.program.runtime:
                self._let_runtime()
            self._execute()
        except BaseException as failure:
            number = (failure.errno if isinstance(failure, OSError) else None) or errno.EINVAL
            executing = self.step == "execute"
            if executing and number == errno.ENOENT:
                status = 127
            hint = f"{self.step}: {failure}"
            if executing and isinstance(failure, OSError):
                hint = "" if failure.strerror in {None, os.strerror(number)} else str(failure.strerror)
            self._tell({"errno": number, "hint": hint, "step": self.step})
        finally:
            os._exit(status)

    def _tell(self, words: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # whoever started this is gone
            os.write(self.report, json.dumps(words).encode() + b"\n")

    def _prepare(self) -> None:
        program = self.program
        reset_signals()
        if program.cgroups:
            self.step = "enter the cgroups"
            self._enter_cgroups()
        self.step = "open stdin, stdout and stderr"
        descriptors = self._take_descriptors()
        if program.session:
            self.step = "make a session"
            os.setsid()
        if isinstance(program.namespace, int):
            self.step = "enter the network namespace"
            syscalls.setns(program.namespace, syscalls.CLONE_NEWNET)
        if isinstance(program.ipc, int):
            self.step = "enter the IPC namespace"
            syscalls.setns(program.ipc, syscalls.CLONE_NEWIPC)
        if isinstance(program.join, int):
            self.step = "join the namespaces"
            others = sum(_NAMESPACES[kind] for kind in program.joins if kind != "pid")  # that one it was forked into
            if others:
                syscalls.setns(program.join, others)
        own_view = view.View(program.files, program.folders, program.hidden, program.read_only, program.own_processes, program.own_sys)
        self._own_namespaces(mount=bool(own_view) or bool(program.runtime))
        if program.runtime:
            self.step = "mount the image"
            runtime.mount_image(program.overlay)
        if own_view:
            self.step = "prepare the file system"
            view.apply(own_view)
        if program.console is not None and not program.runtime:
            self.step = "make a terminal"
            descriptors[:3] = [self._make_terminal()] * 3
        for place, fd in enumerate(descriptors):
            os.dup2(fd, place, inheritable=True)
        syscalls.close_on_exec_from(len(descriptors))
        if program.terminal or (program.console is not None and not program.runtime):
            self.step = "take the terminal"
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if program.user:
            self._own_streams(program.user[0])
        if not program.runtime:  # which does the same where its program is
            self.step = f"change to the folder {program.cwd}"
            os.chdir(program.cwd)
        os.umask(program.umask)
        self._limit()
        self._give_up_rights()

    def _enter_cgroups(self) -> None:
        """What a runtime makes is put there when it is there: what the runtime itself uses is not the program's."""
        if self.program.runtime:
            self._cgroups = [syscalls.open_tree(folder) for folder in self.program.cgroups]
            return
        for folder in self.program.cgroups:
            cgroups.enter(folder)

    def _take_descriptors(self) -> list[int]:
        """Copies of what is to become 0, 1, 2, ..., above all the numbers that they will have; paths are opened."""
        program = self.program
        lowest = 3 + len(program.descriptors)
        append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        taken = []
        for source, flags in ((program.stdin, os.O_RDONLY), (program.stdout, append), (program.stderr, append)):
            if isinstance(source, int):
                taken.append(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, lowest))
                continue
            opened = os.open(source or os.devnull, (flags if source else os.O_RDWR) | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
            taken.append(fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, lowest))
            os.close(opened)
        return taken + [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest) for fd in program.descriptors]

    def _make_terminal(self) -> int:
        """A terminal of the file system that the program sees; gives its end, above all the numbers that are to be had."""
        master, slave = terminals.open_pair()
        terminals.set_size(master, *self.program.size)
        terminals.hand_over(cast("int", self._console), master)
        os.close(master)
        return fcntl.fcntl(slave, fcntl.F_DUPFD_CLOEXEC, 3 + len(self.program.descriptors))

    @staticmethod
    def _own_streams(user: int) -> None:
        """A program may open its streams once more by their names in /proc, where who owns them counts."""
        for fd in (0, 1, 2):
            mode = os.fstat(fd).st_mode
            if stat.S_ISFIFO(mode) or os.isatty(fd):
                os.fchown(fd, user, -1)

    def _own_namespaces(self, *, mount: bool) -> None:
        program = self.program
        flags = mount * syscalls.CLONE_NEWNS | bool(program.hostname) * syscalls.CLONE_NEWUTS | program.own_ipc * syscalls.CLONE_NEWIPC
        self.step = "make its namespaces"
        if flags:
            syscalls.unshare(flags)
        if program.hostname:
            socket.sethostname(program.hostname)
        if program.ends_all:
            self._tell({"mark": remains.mark_of()})

    def _limit(self) -> None:
        self.step = "limit open files"
        soft, hard = self.limits or resource.getrlimit(resource.RLIMIT_NOFILE)
        if self.program.open_files is not None:
            soft = min(self.program.open_files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def _give_up_rights(self) -> None:
        self.step = "give up rights"
        if self.program.runtime:
            return  # it needs its own, and gives the program what the program is to have
        if self.program.capabilities is not None:
            keep = frozenset(self.program.capabilities)
            permitted = syscalls.permitted_capabilities()
            syscalls.drop_bounding_set(keep)
            self._become_user()
            syscalls.set_capabilities(keep & permitted & syscalls.permitted_capabilities())
        else:
            self._become_user()
        if self.program.no_new_privileges:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1, "set no new privileges")

    def _become_user(self) -> None:
        """The kernel takes all capabilities from who stops being user 0."""
        if not self.program.user:
            return
        user, group, *groups = self.program.user
        os.setgroups(groups)
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)

    def _let_runtime(self) -> NoReturn:
        program = self.program
        try:
            pid = runtime.make(program.runtime, program.bundle, self._console, self._cgroups)
        except runtime.RuntimeRefused as refused:
            self._tell({"errno": refused.number, "hint": str(refused), "step": refused.step})
            os._exit(126)
        self._tell({"pid": pid})
        os._exit(0)

    def _execute(self) -> None:
        program = self.program
        env = {"PATH": DEFAULT_PATH, **program.env}
        name = program.argv[0]
        if "/" in name:
            os.execve(name, list(program.argv), env)
        refused: OSError | None = None
        for folder in env["PATH"].split(":"):
            try:
                os.execve(os.path.join(folder or ".", name), list(program.argv), env)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as failure:
                refused = failure  # there is one, but it cannot be executed; a later folder may have a better one
        raise refused or FileNotFoundError(errno.ENOENT, f"it is in none of {env['PATH']}")
