"""The cgroups of a cluster that was started with ``--privileged``: made outside it, written down, and taken away with it.

``STATE/cgroups.json`` is there as long as they may be. Their names end in a part of the state directory's digest: clusters in two places
may have the same name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os

from podwire.cluster.paths import Paths
from podwire.cluster.problem import Problem
from podwire.linux import cgroups
from podwire.linux.cgroups import CgroupsRefused, Tree


class NoLimits(Problem):
    """``--privileged`` was asked for and cannot be had; the text says what is missing."""


def check() -> None:
    """Whether this user may limit what processes use. Raises NoLimits."""
    try:
        cgroups.check()
    except CgroupsRefused as refused:
        raise NoLimits(f"--privileged: {refused}") from None


def make(place: Paths) -> None:
    """Make the cgroups of a cluster, whose lock is held. Raises NoLimits."""
    name = os.path.basename(place.root)
    try:
        tree = cgroups.make(f"podwire-{name}-{hashlib.sha256(place.root.encode()).hexdigest()[:8]}")
    except CgroupsRefused as refused:
        raise NoLimits(f"--privileged: {refused}") from None
    with open(os.open(place.cgroups, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
        json.dump(tree.to_words(), file)


def words(place: Paths) -> dict[str, str]:
    """What is written down of them; nothing where there are none."""
    try:
        with open(place.cgroups, encoding="utf-8") as file:
            return dict(json.load(file))
    except (FileNotFoundError, ValueError):
        return {}


def remove(place: Paths) -> None:
    """Take away those that there may be; nothing of the cluster runs. Raises OSError."""
    try:
        tree = Tree.from_words(words(place))
    except (KeyError, ValueError):
        tree = None
    if tree is not None:
        cgroups.remove(tree)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place.cgroups)
