"""What the claims of a Pod say about where it may run, and whether it may run yet.

Pure. A Pod waits for claims that bind at once. One that binds with its first consumer learns of the node that was chosen (by an
annotation), and the Pod waits until it is bound. A volume that is bound may be reachable from some nodes alone.

Source: https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from podwire.objects.core import Node, Pod
from podwire.objects.storage import (
    BIND_COMPLETED,
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    belongs_to,
    claim_name,
)
from podwire.views.placement import reaches
from podwire.workloads.storage.desired import NO_PROVISIONER, fits

CONFLICT = "node(s) had volume node affinity conflict"
NONE_THERE = "node(s) didn't find available persistent volumes to bind"


@dataclass(frozen=True)
class Known:
    """What there is, by key; each gives None for what there is not."""

    claim: Callable[[str], PersistentVolumeClaim | None] = lambda _key: None
    volume: Callable[[str], PersistentVolume | None] = lambda _name: None
    storage_class: Callable[[str], StorageClass | None] = lambda _name: None
    volumes: Callable[[], Iterable[PersistentVolume]] = lambda: ()


@dataclass(frozen=True)
class Verdict:
    """``refusal``: why no node may run the Pod. ``waits``: its claims are being bound. ``choose``: claims that want to know the node.

    ``volumes`` are bound; of each of ``offers`` one must be reached from the node, since nobody makes volumes of their class.
    ``exclusive``: keys of claims that one Pod alone may use.
    """

    refusal: str = ""
    waits: bool = False
    choose: tuple[PersistentVolumeClaim, ...] = ()
    volumes: tuple[PersistentVolume, ...] = ()
    offers: tuple[tuple[PersistentVolume, ...], ...] = ()
    exclusive: tuple[str, ...] = ()


NO_CLAIMS = Verdict()


def judge(pod: Pod, known: Known) -> Verdict:
    choose: list[PersistentVolumeClaim] = []
    volumes: list[PersistentVolume] = []
    offers: list[tuple[PersistentVolume, ...]] = []
    exclusive: list[str] = []
    waits = False
    for one in pod.spec.volumes:
        name = claim_name(pod, one)
        if not name:
            continue
        claim = known.claim(f"{pod.namespace}/{name}")
        refusal = _refusal(pod, name, claim, ephemeral=one.ephemeral is not None)
        if refusal or claim is None:
            return Verdict(refusal)
        if "ReadWriteOncePod" in claim.spec.access_modes:
            exclusive.append(claim.key)
        if BIND_COMPLETED in claim.metadata.annotations and claim.spec.volume_name:
            volume = known.volume(claim.spec.volume_name)
            if volume is None:
                return Verdict(f'persistentvolume "{claim.spec.volume_name}" not found')
            volumes.append(volume)
            continue
        storage_class = known.storage_class(claim.spec.storage_class_name or "")
        if storage_class is None or storage_class.volume_binding_mode != "WaitForFirstConsumer":
            return Verdict("pod has unbound immediate PersistentVolumeClaims")
        if SELECTED_NODE in claim.metadata.annotations:
            waits = True
        else:
            choose.append(claim)
            if storage_class.provisioner == NO_PROVISIONER:
                offers.append(tuple(volume for volume in known.volumes() if fits(volume, claim)))
    return Verdict("", waits, tuple(choose), tuple(volumes), tuple(offers), tuple(exclusive))


def _refusal(pod: Pod, name: str, claim: PersistentVolumeClaim | None, *, ephemeral: bool) -> str:
    if claim is None:
        if ephemeral:
            return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        return f'persistentvolumeclaim "{name}" not found'
    if claim.status.phase == "Lost":
        return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim.spec.volume_name}"'
    if claim.metadata.deletion_timestamp is not None:
        return f'persistentvolumeclaim "{name}" is being deleted'
    if ephemeral and not belongs_to(pod, claim):
        return f"PVC {claim.key} was not created for pod {pod.key} (pod is not owner)"
    return ""


def obstacle(verdict: Verdict, node: Node) -> str:
    """Say what of the volumes keeps the Pod from a node, "" if nothing does."""
    if not all(reaches(volume, node) for volume in verdict.volumes):
        return CONFLICT
    return "" if all(any(reaches(volume, node) for volume in offer) for offer in verdict.offers) else NONE_THERE
