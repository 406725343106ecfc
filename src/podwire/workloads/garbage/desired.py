"""What becomes of an object whose owners are gone or going.

Pure. An object lives as long as one of its owners does. References to owners that are gone are dropped while others remain. An
owner that is deleted in the foreground (finalizer ``foregroundDeletion``) waits for those of its dependents that block it; one
that is deleted and orphans them (finalizer ``orphan``) waits until they no longer name it.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from podwire.objects import codec
from podwire.objects.meta import ObjectMeta, OwnerReference
from podwire.workloads.kinds import Tree

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


class Owner(Enum):
    """What is known of an owner."""

    PRESENT = 1
    WAITING = 2  # is being deleted in the foreground and waits for its dependents
    ABSENT = 3


@dataclass(frozen=True)
class Verdict:
    """``delete``: with this propagation policy ("" for no). ``references``: those that should be left, None for as they are."""

    delete: str = ""
    references: tuple[OwnerReference, ...] | None = None


KEEP = Verdict()


def judge(meta: ObjectMeta, state: Callable[[OwnerReference], Owner], *, has_dependents: bool) -> Verdict:
    """Say what to do with a dependent."""
    if not meta.owner_references or meta.deletion_timestamp is not None:
        return KEEP
    states = [(owner, state(owner)) for owner in meta.owner_references]
    present = tuple(owner for owner, is_ in states if is_ is Owner.PRESENT)
    waiting = [owner for owner, is_ in states if is_ is Owner.WAITING]
    if present:
        return Verdict(references=present) if len(present) < len(states) else KEEP
    if waiting and has_dependents:
        return Verdict(delete="Foreground")  # so that its own dependents, too, go before the owner does
    if FOREGROUND in meta.finalizers:
        return Verdict(delete="Foreground")
    if ORPHAN in meta.finalizers:
        return Verdict(delete="Orphan")
    return Verdict(delete="Background")


def finalizer_done(meta: ObjectMeta, dependents: Iterable[ObjectMeta]) -> str:
    """Give the finalizer that an object which is being deleted no longer needs, "" if it must wait or has none of ours."""
    if meta.deletion_timestamp is None:
        return ""
    if FOREGROUND in meta.finalizers:
        blocking = any(owner.uid == meta.uid and owner.block_owner_deletion for one in dependents for owner in one.owner_references)
        return "" if blocking else FOREGROUND
    if ORPHAN in meta.finalizers:
        return "" if any(True for _ in dependents) else ORPHAN
    return ""


def without_owner(meta: ObjectMeta, uid: str) -> Tree:
    """Make the patch that takes an owner from a dependent."""
    return references(meta, tuple(owner for owner in meta.owner_references if owner.uid != uid))


def references(meta: ObjectMeta, left: tuple[OwnerReference, ...]) -> Tree:
    """Make the patch that leaves these owner references."""
    return {"metadata": {"uid": meta.uid, "ownerReferences": [codec.tree(owner) for owner in left] or None}}


def without_finalizer(meta: ObjectMeta, finalizer: str) -> Tree:
    """Make the patch that removes a finalizer; refused if the object has changed since."""
    left = [one for one in meta.finalizers if one != finalizer]
    return {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": left or None}}
