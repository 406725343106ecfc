"""The user's kubeconfig: one context added by ``up``, exactly that removed by ``down``.

Which file: as kubectl decides it (``--kubeconfig``, else the files of ``$KUBECONFIG``, else ``~/.kube/config``). While it is
changed it is locked as kubectl locks it: a file ``<config>.lock``, made exclusively. It is written beside itself and renamed,
with mode 0600, so a reader sees the old or the new one.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import glob
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from podwire.cluster.problem import Problem

LOCK_TRIES = 50
LOCK_PAUSE_S = 0.1
_MARK = b"podwire\n"


class Unusable(Problem):
    """A kubeconfig that cannot be read, locked or written. The text names the file and what to do."""


@dataclass(frozen=True)
class Entry:
    """What ``up`` adds: PEM texts and the API's URL."""

    context: str
    server: str
    ca: bytes
    certificate: bytes
    key: bytes


def target(explicit: str | None, environment: Mapping[str, str]) -> str:
    """Give the file that a new context goes into, as kubectl chooses it."""
    if explicit:
        return os.path.abspath(os.path.expanduser(explicit))
    files = [os.path.abspath(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    if files:
        return next((file for file in files if os.path.exists(file)), files[-1])
    home = environment.get("HOME") or os.path.expanduser("~")
    return os.path.join(home, ".kube", "config")


def document(entry: Entry, *, current: bool = True) -> dict[str, Any]:
    """Give a whole kubeconfig with this one context."""

    def text(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    name = entry.context
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": entry.server, "certificate-authority-data": text(entry.ca)}}],
        "users": [
            {"name": name, "user": {"client-certificate-data": text(entry.certificate), "client-key-data": text(entry.key)}},
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name if current else "",
        "preferences": {},
    }


def add(file: str, entry: Entry) -> str:
    """Add the context to ``file`` and make it the current one.

    Returns the context that was current before (``""`` if none), which ``remove`` takes to put it back. An entry of the same
    name is replaced. Raises Unusable.
    """
    with _locked(file):
        tree = _read(file)
        before = str(tree.get("current-context") or "")
        fresh = document(entry)
        for section in ("clusters", "users", "contexts"):
            kept = [item for item in _entries(tree, section, file) if item.get("name") != entry.context]
            tree[section] = [*kept, *fresh[section]]
        tree["current-context"] = entry.context
        for word in ("apiVersion", "kind"):
            tree.setdefault(word, fresh[word])
        write(file, tree)
    return "" if before == entry.context else before


def remove(file: str, context: str, before: str = "") -> bool:
    """Remove what ``add`` added; say whether there was anything.

    Where the context is still the current one, the one before comes back if it still exists. A file that holds nothing else
    any more is deleted, and so is its folder when that is empty. Raises Unusable.
    """
    if not os.path.exists(file):
        return False
    with _locked(file):
        tree = _read(file)
        found = False
        for section in ("clusters", "users", "contexts"):
            entries = _entries(tree, section, file)
            tree[section] = [item for item in entries if item.get("name") != context]
            found = found or len(tree[section]) < len(entries)
        if tree.get("current-context") == context:
            names = {item.get("name") for item in tree["contexts"]}
            tree["current-context"] = before if before in names else ""
            found = True
        if not found:
            return False
        if not (tree["clusters"] or tree["users"] or tree["contexts"] or set(tree) - set(document(Entry("", "", b"", b"", b"")))):
            os.unlink(file)
        else:
            write(file, tree)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(file))  # an empty ~/.kube, which is there for nothing else
    return True


@contextlib.contextmanager
def _locked(file: str) -> Iterator[None]:
    try:
        os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unusable(
            f"cannot make the folder of {file}: {error.strerror}. Name another file (--kubeconfig), or none (--no-kubeconfig)."
        ) from None
    lock = file + ".lock"
    for attempt in range(LOCK_TRIES):
        try:
            held = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX)
            os.write(held, _MARK)
            break
        except FileExistsError:
            if _left_behind(lock, file):
                continue
            if attempt == LOCK_TRIES - 1:
                raise Unusable(f"{file} is locked: {lock} exists. If no kubectl is running, delete that file.") from None
            time.sleep(LOCK_PAUSE_S)
        except OSError as error:
            raise Unusable(f"cannot lock {file}: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
        os.close(held)


def _left_behind(lock: str, file: str) -> bool:
    """Remove the lock of one of us that was killed, and what it was writing; say whether it was that.

    Ours are marked, and the kernel's own lock on them goes with the process; kubectl's are empty, and nobody can tell.
    """
    try:
        found = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if os.read(found, len(_MARK)) != _MARK:
            return False
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(found), os.stat(lock)):
            for unfinished in glob.glob(f"{glob.escape(os.path.realpath(file))}.[0-9]*.tmp"):
                os.unlink(unfinished)
            os.unlink(lock)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(found)
    return True


def _read(file: str) -> dict[str, Any]:
    import yaml  # costs 20 ms, and only commands that change the file need it

    try:
        with open(file, encoding="utf-8") as stream:
            tree = yaml.load(stream, Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Unusable(f"cannot read {file}: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise Unusable(f"{file} is no kubeconfig: expected a mapping, got {type(tree).__name__}")
    return tree


def _entries(tree: dict[str, Any], section: str, file: str) -> list[dict[str, Any]]:
    entries = tree.get(section) or []
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise Unusable(f"{file} is no kubeconfig: {section} is no list of named entries")
    return entries


def write(file: str, tree: dict[str, Any]) -> None:
    """Write a kubeconfig whole, 0600, through a file beside it. Raises Unusable."""
    import yaml  # as above

    # A kubeconfig that is a link (people keep them elsewhere) stays one.
    real = os.path.realpath(file)
    beside = f"{real}.{os.getpid()}.tmp"
    try:
        descriptor = os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            yaml.dump(tree, stream, Dumper=yaml.CSafeDumper, sort_keys=False)
        os.replace(beside, real)
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise Unusable(f"cannot write {file}: {error.strerror}") from None
