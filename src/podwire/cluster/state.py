"""The state directory of a cluster: what lasts, and who may touch it.

    $XDG_STATE_HOME/podwire/NAME      0700
      state.json                      the layout's version, the specification, the API's port, the kubeconfig entry
      changes.json                    how the nodes differ from the specification: added, deleted, stopped
      lock                            flock held by door and init for the life of the cluster: whoever gets it knows that nothing runs
      upgrade-POOL.lock               flock held by the command that upgrades a node pool
      making                          there until the first ``up`` is whole: with the lock free, rubble
      deleting                        there from the first step of ``down`` on: with the lock free, rubble
      run.json                        the processes to end (meaningful only while the lock is held)

Each marker is made and removed in one step of the file system, so after kill -9 at any moment the truth can be read here.
What must not be here: processes (lifecycle.py), the network.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from podwire.cluster import changes, limits
from podwire.cluster.changes import Changes
from podwire.cluster.paths import IMAGES, NAME_RULE, Paths, is_name
from podwire.cluster.problem import Problem
from podwire.linux import ids

LAYOUT = 1


class Unusable(Problem):
    """A state directory that cannot be used. The text says which, why, and what to do."""


class Busy(Exception):
    """Somebody else holds the cluster's lock."""


@dataclass(frozen=True)
class Entry:
    """The kubeconfig entry that ``up`` made and ``down`` removes; ``before`` was the current context."""

    file: str
    context: str
    before: str = ""


@dataclass(frozen=True)
class State:
    """What ``state.json`` holds. ``spec`` is a Cluster manifest with every default written out; ``private``: see private.py."""

    name: str
    spec: Mapping[str, Any]
    api_port: int = 0
    kubeconfig: Entry | None = None
    private: tuple[str, ...] = ()
    layout: int = LAYOUT


@dataclass(frozen=True)
class Identity:
    """A process, beyond doubt: its number may be used again, the moment of its start since this boot not."""

    pid: int
    started: int


@dataclass(frozen=True)
class Run:
    """Who keeps the cluster alive, as numbers of the machine's own."""

    boot: str
    door: Identity
    init: Identity | None = None


# Places ------------------------------------------------------------------------------------------------------------------


def base(environment: Mapping[str, str]) -> str:
    """Give the folder that holds all clusters' state directories."""
    chosen = environment.get("XDG_STATE_HOME", "")
    if not os.path.isabs(chosen):
        home = environment.get("HOME") or os.path.expanduser("~")
        chosen = os.path.join(home, ".local", "state")
    return os.path.join(os.path.abspath(chosen), "podwire")


def images(environment: Mapping[str, str]) -> str:
    """Give the folder of the images that all clusters share."""
    return os.path.join(base(environment), IMAGES)


def paths(name: str, environment: Mapping[str, str]) -> Paths:
    """Give where the cluster of this name keeps its things. Raises Unusable (2) for what is no name: it could lead to other folders."""
    if not is_name(name):
        raise Unusable(f"--name: {name!r} is no cluster name: {NAME_RULE}", 2)
    return Paths(os.path.join(base(environment), name))


def names(environment: Mapping[str, str]) -> list[str]:
    """Give the names of all state directories, rubble included, sorted."""
    try:
        with os.scandir(base(environment)) as entries:
            return sorted(entry.name for entry in entries if is_name(entry.name) and entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unusable(f"cannot read {base(environment)}: {error.strerror}") from None


# The lock ----------------------------------------------------------------------------------------------------------------


def make(place: Paths) -> int:
    """Make the state directory if it is missing and take its lock; give the lock's descriptor.

    The lock is gone when the last process that has the descriptor has gone: nobody ever unlocks it.
    Raises Busy, Unusable.
    """
    while True:
        try:
            os.makedirs(place.root, mode=0o700, exist_ok=True)
            os.chmod(place.root, 0o700)
            descriptor = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Unusable(
                f"cannot keep the cluster's state in {place.root}: {error.strerror}. "
                "Set XDG_STATE_HOME (or HOME) to a folder that you can write."
            ) from None
        if _locked(descriptor, place):
            return descriptor


def take(place: Paths) -> int:
    """Take the lock of a state directory that is there. Raises FileNotFoundError, Busy."""
    while True:
        try:
            descriptor = os.open(place.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if not os.path.isdir(place.root):
                raise
            return make(place)
        if _locked(descriptor, place):
            return descriptor


def take_upgrade(place: Paths, pool: str) -> int:
    """Take the lock of a node pool's upgrade. Raises Busy, OSError."""
    descriptor = os.open(place.upgrade_lock(pool), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Busy(pool) from None
    return descriptor


def _locked(descriptor: int, place: Paths) -> bool:
    """Lock the open file; say whether it is still the one at its path, since who held it may have deleted it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(place.lock)):
                return True
    except BlockingIOError:
        os.close(descriptor)
        raise Busy(place.root) from None
    os.close(descriptor)
    return False


def is_free(place: Paths) -> bool:
    """Say whether nothing runs there (or nothing is there at all)."""
    try:
        os.close(take(place))
    except Busy:
        return False
    except FileNotFoundError:
        return True
    return True


# Markers -----------------------------------------------------------------------------------------------------------------


def _marker(place: Paths, word: str) -> str:
    return os.path.join(place.root, word)


def mark(place: Paths, word: str) -> None:
    os.close(os.open(_marker(place, word), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def is_marked(place: Paths, word: str) -> bool:
    return os.path.exists(_marker(place, word))


def unmark(place: Paths, word: str) -> None:
    _unlink(_marker(place, word))


def _unlink(file: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file)


def is_rubble(place: Paths) -> bool:
    """Say whether, with the lock free, this is what a killed ``up`` or ``down`` left."""
    return is_marked(place, "making") or is_marked(place, "deleting") or not os.path.exists(place.state)


# What is written ---------------------------------------------------------------------------------------------------------


def read(place: Paths) -> State:
    """Read ``state.json``. Raises FileNotFoundError, Unusable (a layout newer than this program knows)."""
    try:
        with open(place.state, encoding="utf-8") as stream:
            tree = json.load(stream)
        layout = tree["layout"]
        if layout > LAYOUT:
            raise Unusable(
                f"{place.state} has layout {layout}, this podwire knows up to {LAYOUT}. "
                f"Use the podwire that made it, or delete the folder {place.root}."
            )
        entry, private = tree.pop("kubeconfig"), tuple(tree.pop("private", ()))
        return State(**tree, kubeconfig=Entry(**entry) if entry else None, private=private)
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(f"{place.state} cannot be read ({error}). Delete the folder {place.root} if the cluster is not needed.") from None


def write(place: Paths, state: State) -> None:
    _write(place.state, asdict(state))


def read_changes(place: Paths) -> Changes:
    """Read how the nodes differ from the specification; as it says, where nothing was written. Raises Unusable."""
    try:
        with open(place.changes, "rb") as stream:
            return changes.decode(stream.read())
    except FileNotFoundError:
        return Changes()
    except ValueError as error:
        raise Unusable(
            f"{place.changes} cannot be read ({error}). Delete it, and the nodes are again those of the specification."
        ) from None


def write_changes(place: Paths, value: Changes) -> None:
    """Write it, whole or not at all."""
    beside = f"{place.changes}.tmp"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
        stream.write(changes.encode(value))
    os.replace(beside, place.changes)


def read_run(place: Paths) -> Run | None:
    """Give who keeps the cluster alive; None when that was not written, or was before the machine's last start."""
    try:
        with open(_marker(place, "run.json"), encoding="utf-8") as stream:
            tree = json.load(stream)
        init = Identity(**tree["init"]) if tree["init"] else None
        run = Run(tree["boot"], Identity(**tree["door"]), init)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run if run.boot == boot_id() else None


def write_run(place: Paths, run: Run) -> None:
    _write(_marker(place, "run.json"), asdict(run))


def _write(file: str, tree: Mapping[str, Any]) -> None:
    beside = f"{file}.{os.getpid()}.tmp"
    descriptor = os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(tree, stream, indent=1)
    os.replace(beside, file)


# Processes ---------------------------------------------------------------------------------------------------------------


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def identify(pid: int) -> Identity | None:
    """Give a living process's identity; None when there is no such process (any more)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else Identity(pid, int(fields[19]))


def open_process(identity: Identity) -> int | None:
    """Open a descriptor of exactly this process; None when it has ended."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if identify(identity.pid) == identity:
        return descriptor
    os.close(descriptor)
    return None


# Removal -----------------------------------------------------------------------------------------------------------------


def remove(place: Paths, forget_entry: Callable[[Entry], None]) -> None:
    """Delete the state directory; the caller holds the lock. What remains after a kill is rubble still, until the last step.

    ``forget_entry`` removes the kubeconfig entry.
    """
    with contextlib.suppress(OSError):  # a full disk must not keep what fills it
        mark(place, "deleting")
    with contextlib.suppress(FileNotFoundError, Unusable):
        entry = read(place).kubeconfig
        if entry:
            forget_entry(entry)
    with contextlib.suppress(OSError):  # who has lost the right to them can still be rid of the rest
        limits.remove(place)
    last = {"deleting", "lock"}
    with os.scandir(place.root) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for item in entries:
        if item.name in last:
            continue
        if item.is_dir(follow_symlinks=False):
            _remove_folder(item.path)
        else:
            _unlink(item.path)
    unmark(place, "deleting")
    _unlink(place.lock)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(place.root)
    _remove_empty_parents(place.root)


def _remove_folder(path: str) -> None:
    """Remove a folder in which containers may have had their say: modes, and owners that are this user's only in a cluster."""
    try:
        shutil.rmtree(path, onerror=_open_up)
    except PermissionError:
        if not ids.with_users(lambda: shutil.rmtree(path, onerror=_open_up)):
            raise


def _remove_empty_parents(root: str) -> None:
    """The last cluster takes the folder of all with it, and the default folders around that when nobody else uses them."""
    folder = os.path.dirname(root)
    around = ("podwire", "state", ".local") if folder.endswith("/.local/state/podwire") else ("podwire",)
    with contextlib.suppress(OSError):
        for _ in around:
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _open_up(function: Callable[..., Any], path: str, failure: Any) -> None:
    """Give ourselves the rights that a container took from a folder of its own, and try again."""
    if isinstance(failure[1], FileNotFoundError):
        return
    if not isinstance(failure[1], PermissionError):
        raise failure[1]
    folder = path if function in {os.scandir, os.open, os.listdir} else os.path.dirname(path)
    os.chmod(folder, stat.S_IRWXU)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def sweep(environment: Mapping[str, str], forget_entry: Callable[[Entry], None]) -> Iterator[str]:
    """Delete all rubble; yield the names of the clusters that it was of. A folder of all clusters that holds nothing is rubble too."""
    found = names(environment)
    if not found:
        with contextlib.suppress(OSError):
            os.rmdir(base(environment))
    for name in found:
        place = paths(name, environment)
        try:
            lock = take(place)
        except (Busy, FileNotFoundError, Unusable):
            continue
        try:
            if is_rubble(place):
                remove(place, forget_entry)
                yield name
        finally:
            os.close(lock)
