"""What is next for a claim and for a volume.

Pure. A claim that is not bound takes the smallest volume that suits it, or one is made for it; a volume whose claim is gone is kept or
deleted, as its policy says. Binding goes in both directions, and each decision is one step of it: the volume names the claim first
(``claimRef``), so that no second claim can take it, then the claim names the volume, then each says ``Bound``.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#lifecycle-of-a-volume-and-claim
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podwire.objects.core import Pod
from podwire.objects.storage import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    DIRECTORY_DRIVER,
    DIRECTORY_PROVISIONER,
    PROVISIONED_BY,
    PV_PROTECTION,
    PVC_PROTECTION,
    SELECTED_NODE,
    STORAGE_PROVISIONER,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    storage,
)

Tree = dict[str, Any]
DELAYED = "WaitForFirstConsumer"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


@dataclass(frozen=True)
class Notice:
    """An Event. ``by_provisioner``: the provisioner says it, not the one who binds."""

    type: str
    reason: str
    message: str
    by_provisioner: bool = False


@dataclass(frozen=True)
class Bind:
    """Let the volume name the claim, then the claim the volume."""

    volume: PersistentVolume


@dataclass(frozen=True)
class ClaimPlan:
    """At most one of ``bind`` and ``provision`` (a volume that is to be made). ``metadata``, ``status``: patches."""

    notices: tuple[Notice, ...] = ()
    bind: Bind | None = None
    provision: Tree | None = None
    metadata: Tree | None = None
    status: Tree | None = None
    grow: tuple[PersistentVolume, Tree] | None = None
    let_go: bool = False


@dataclass(frozen=True)
class VolumePlan:
    """``reclaim``: remove its directory, then the volume, then ``let_go`` of it. ``spec`` and ``status`` are patches."""

    notices: tuple[Notice, ...] = ()
    spec: Tree | None = None
    status: Tree | None = None
    reclaim: bool = False
    let_go: bool = False


def volume_name(claim: PersistentVolumeClaim) -> str:
    return f"pvc-{claim.metadata.uid}"


def is_ours(volume: PersistentVolume) -> bool:
    """Whether a volume is a directory of the cluster."""
    return volume.spec.csi is not None and volume.spec.csi.driver == DIRECTORY_DRIVER


# Claims ------------------------------------------------------------------------------------------------------------------------


def decide_claim(
    claim: PersistentVolumeClaim,
    named: PersistentVolume | None,
    free: Iterable[PersistentVolume],
    classes: Mapping[str, StorageClass],
    pods: Sequence[Pod],
) -> ClaimPlan:
    """``named``: the volume that the claim names; ``free``: those that name no claim, or this one; ``pods``: those that name the claim."""
    if claim.metadata.deletion_timestamp is not None:
        used = any(pod.spec.node_name for pod in pods)
        return ClaimPlan(let_go=PVC_PROTECTION in claim.metadata.finalizers and not used)
    if BIND_COMPLETED in claim.metadata.annotations:
        return _bound(claim, named, classes)
    if claim.spec.volume_name:
        return _asks_for_one(claim, named)
    storage_class = classes.get(claim.spec.storage_class_name or "")
    delayed = storage_class is not None and storage_class.volume_binding_mode == DELAYED and SELECTED_NODE not in claim.metadata.annotations
    found = match(claim, free, only_promised=delayed)
    if found is not None:
        return ClaimPlan(bind=Bind(found), status=_pending(claim))
    return _unmatched(claim, storage_class, pods, delayed=delayed)


def _unmatched(claim: PersistentVolumeClaim, storage_class: StorageClass | None, pods: Sequence[Pod], *, delayed: bool) -> ClaimPlan:
    """No volume suits the claim: who makes one, or why nobody does."""
    name, status = claim.spec.storage_class_name, _pending(claim)
    if delayed:
        return ClaimPlan((_waiting(pods),), status=status)
    if not name:
        words = "no persistent volumes available for this claim and no storage class is set"
        return ClaimPlan((Notice("Normal", "FailedBinding", words),), status=status)
    if storage_class is None:
        words = f'storageclass.storage.k8s.io "{name}" not found'
        return ClaimPlan((Notice("Warning", "ProvisioningFailed", words),), status=status)
    provisioner = storage_class.provisioner
    if provisioner == NO_PROVISIONER:
        words = "no persistent volumes available for this claim and no storage class is set"
        return ClaimPlan((Notice("Normal", "FailedBinding", words),), status=status)
    marked = claim.metadata.annotations.get(STORAGE_PROVISIONER) == provisioner
    metadata = None if marked else {"annotations": {STORAGE_PROVISIONER: provisioner}}
    external = Notice(
        "Normal",
        "ExternalProvisioning",
        f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. "
        "If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
    )
    if provisioner != DIRECTORY_PROVISIONER:
        return ClaimPlan((external,), metadata=metadata, status=status)
    refusal = _cannot_be_made(claim)
    if refusal:
        words = f'failed to provision volume with StorageClass "{name}": {refusal}'
        return ClaimPlan((external, Notice("Warning", "ProvisioningFailed", words, by_provisioner=True)), metadata=metadata, status=status)
    begun = Notice("Normal", "Provisioning", f'External provisioner is provisioning volume for claim "{claim.key}"', by_provisioner=True)
    return ClaimPlan((external, begun), provision=made_for(claim, storage_class), metadata=metadata, status=status)


def _cannot_be_made(claim: PersistentVolumeClaim) -> str:
    if claim.spec.selector is not None:
        return "claim Selector is not supported"
    if claim.spec.volume_mode == "Block":
        return "a directory is no block device: volumeMode must be Filesystem"
    return ""


def _waiting(pods: Sequence[Pod]) -> Notice:
    names = sorted(pod.name for pod in pods if not pod.spec.node_name)
    if not names:
        return Notice("Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
    what = f"pods {','.join(names)}" if len(names) > 1 else f"pod {names[0]}"
    return Notice("Normal", "WaitForPodScheduled", f"waiting for {what} to be scheduled")


def _pending(claim: PersistentVolumeClaim) -> Tree | None:
    return None if claim.status.phase == "Pending" else {"phase": "Pending"}


def match(claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume], *, only_promised: bool = False) -> PersistentVolume | None:
    """Give the volume that a claim takes: one that is promised to it, else the smallest that is free and suits."""
    best: tuple[int, str] | None = None
    chosen: PersistentVolume | None = None
    for volume in volumes:
        if not fits(volume, claim):
            continue
        if volume.spec.claim_ref is not None:
            return volume
        order = storage(volume.spec.capacity), volume.name
        if not only_promised and (best is None or order < best):
            best, chosen = order, volume
    return chosen


def fits(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a claim may take a volume: it is promised to it, or free and suits, and is large enough."""
    if volume.metadata.deletion_timestamp is not None or volume.spec.volume_mode != claim.spec.volume_mode:
        return False
    if storage(volume.spec.capacity) < storage(claim.spec.resources.requests):
        return False
    return _suits(volume, claim) if volume.spec.claim_ref is None else is_promised(volume, claim)


def is_promised(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume names this claim, and no other one of the same name before it."""
    reference = volume.spec.claim_ref
    return (
        reference is not None
        and (reference.namespace, reference.name) == (claim.namespace, claim.name)
        and reference.uid in ("", claim.metadata.uid)
    )


def _suits(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    spec = claim.spec
    return (
        volume.status.phase == "Available"
        and (spec.selector is None or spec.selector.matches(volume.metadata.labels))
        and volume.spec.storage_class_name == (spec.storage_class_name or "")
        and set(spec.access_modes) <= set(volume.spec.access_modes)
    )


def made_for(claim: PersistentVolumeClaim, storage_class: StorageClass) -> Tree:
    """Make the volume of a claim: promised to it from the first moment."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(claim), "annotations": {PROVISIONED_BY: storage_class.provisioner}},
        "spec": {
            "capacity": {"storage": claim.spec.resources.requests.get("storage", "0")},
            "accessModes": list(claim.spec.access_modes),
            "persistentVolumeReclaimPolicy": storage_class.reclaim_policy,
            "storageClassName": storage_class.name,
            "volumeMode": "Filesystem",
            "claimRef": reference_to(claim),
            "csi": {"driver": DIRECTORY_DRIVER, "volumeHandle": volume_name(claim)},
        },
    }


def reference_to(claim: PersistentVolumeClaim) -> Tree:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": claim.namespace,
        "name": claim.name,
        "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version,
    }


def _asks_for_one(claim: PersistentVolumeClaim, volume: PersistentVolume | None) -> ClaimPlan:
    """The claim names a volume, and is not bound to it yet."""
    status = _pending(claim)
    if volume is None:
        return ClaimPlan(status=status)
    if volume.spec.claim_ref is not None and not is_promised(volume, claim):
        words = f'volume "{volume.name}" already bound to a different claim.'
        return ClaimPlan((Notice("Warning", "FailedBinding", words),), status=status)
    if why := _mismatch(claim, volume):
        words = f'Cannot bind to requested volume "{volume.name}": {why}'
        return ClaimPlan((Notice("Warning", "VolumeMismatch", words),), status=status)
    return ClaimPlan(bind=Bind(volume), status=status)


def _mismatch(claim: PersistentVolumeClaim, volume: PersistentVolume) -> str:
    if storage(volume.spec.capacity) < storage(claim.spec.resources.requests):
        return "requested PV is too small"
    if volume.spec.storage_class_name != (claim.spec.storage_class_name or ""):
        return "storageClassName does not match"
    if volume.spec.volume_mode != claim.spec.volume_mode:
        return "incompatible volumeMode"
    return "" if set(claim.spec.access_modes) <= set(volume.spec.access_modes) else "incompatible accessMode"


def _bound(claim: PersistentVolumeClaim, volume: PersistentVolume | None, classes: Mapping[str, StorageClass]) -> ClaimPlan:
    if volume is None:
        lost = "lost its PersistentVolume" if claim.spec.volume_name else "lost reference to PersistentVolume"
        return _lost(claim, "ClaimLost", f"Bound claim has {lost}. Data on the volume is lost!")
    reference = volume.spec.claim_ref
    if reference is None:
        return ClaimPlan(bind=Bind(volume))
    if reference.uid != claim.metadata.uid:
        return _lost(claim, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
    if growth := _growth(claim, volume, classes):
        return growth
    wanted, status = bound_status(volume), claim.status
    have = {"phase": status.phase, "accessModes": list(status.access_modes), "capacity": dict(status.capacity)}
    if have == wanted:
        return ClaimPlan()
    grown = 0 < storage(status.capacity) < storage(volume.spec.capacity)
    notices = (Notice("Normal", "VolumeResizeSuccessful", "Resize volume succeeded", by_provisioner=True),) if grown else ()
    allocated = {"allocatedResources": {"storage": wanted["capacity"]["storage"]}} if grown else {}
    return ClaimPlan(notices, status=wanted | allocated)


def bound_status(volume: PersistentVolume) -> Tree:
    return {"phase": "Bound", "accessModes": list(volume.spec.access_modes), "capacity": dict(volume.spec.capacity)}


def _growth(claim: PersistentVolumeClaim, volume: PersistentVolume, classes: Mapping[str, StorageClass]) -> ClaimPlan | None:
    """A directory has the room that the disk has, so that growing is saying so."""
    storage_class = classes.get(claim.spec.storage_class_name or "")
    if storage(claim.spec.resources.requests) <= storage(volume.spec.capacity) or not is_ours(volume):
        return None
    if storage_class is None or not storage_class.allow_volume_expansion:
        return None
    notice = Notice("Normal", "Resizing", f"External resizer is resizing volume {volume.name}", by_provisioner=True)
    return ClaimPlan((notice,), grow=(volume, {"capacity": {"storage": claim.spec.resources.requests["storage"]}}))


def _lost(claim: PersistentVolumeClaim, reason: str, words: str) -> ClaimPlan:
    if claim.status.phase == "Lost":
        return ClaimPlan()
    return ClaimPlan((Notice("Warning", reason, words),), status={"phase": "Lost", "accessModes": None, "capacity": None})


def completion(claim: PersistentVolumeClaim, volume: PersistentVolume) -> Tree:
    """Give the patch by which a claim names its volume. Who was bound by the controller may be bound elsewhere by it."""
    annotations = {BIND_COMPLETED: "yes"} | ({} if claim.spec.volume_name else {BOUND_BY_CONTROLLER: "yes"})
    metadata = {"resourceVersion": claim.metadata.resource_version, "annotations": annotations}
    return {"metadata": metadata, "spec": {"volumeName": volume.name}}


def promise(volume: PersistentVolume, claim: PersistentVolumeClaim) -> Tree | None:
    """Give the patch by which a volume names its claim; None: it does already."""
    reference = volume.spec.claim_ref
    if reference is not None and reference.uid == claim.metadata.uid:
        return None
    annotations = {"annotations": {BOUND_BY_CONTROLLER: "yes"}} if reference is None else {}
    return {"metadata": {"resourceVersion": volume.metadata.resource_version} | annotations, "spec": {"claimRef": reference_to(claim)}}


# Volumes -----------------------------------------------------------------------------------------------------------------------


def decide_volume(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> VolumePlan:
    """``claim``: the one of the name that the volume names, None: there is none."""
    reference = volume.spec.claim_ref
    if volume.metadata.deletion_timestamp is not None and volume.status.phase != "Bound":
        held = reference is not None and bool(reference.uid) and volume.spec.persistent_volume_reclaim_policy == "Delete"
        return VolumePlan(reclaim=held and is_ours(volume), let_go=PV_PROTECTION in volume.metadata.finalizers)
    if reference is None or not reference.uid:
        return VolumePlan(status=_phase(volume, "Available"))
    if claim is None or claim.metadata.uid != reference.uid:
        return _released(volume)
    if not claim.spec.volume_name or BIND_COMPLETED not in claim.metadata.annotations:
        return VolumePlan()  # the claim is about to take it
    if claim.spec.volume_name == volume.name:
        return VolumePlan(status=_phase(volume, "Bound"))
    if PROVISIONED_BY in volume.metadata.annotations and volume.spec.persistent_volume_reclaim_policy == "Delete":
        return _released(volume)
    if BOUND_BY_CONTROLLER in volume.metadata.annotations:
        return VolumePlan(spec={"claimRef": None}, status=_phase(volume, "Available"))
    return VolumePlan(spec={"claimRef": {"uid": None, "resourceVersion": None}}, status=_phase(volume, "Available"))


def _released(volume: PersistentVolume) -> VolumePlan:
    policy = volume.spec.persistent_volume_reclaim_policy
    if volume.status.phase not in ("Released", "Failed"):
        return VolumePlan(status={"phase": "Released"})
    if policy == "Retain":
        return VolumePlan(status=_phase(volume, "Released"))
    if policy == "Delete" and is_ours(volume):
        return VolumePlan(reclaim=True, let_go=PV_PROTECTION in volume.metadata.finalizers)
    if volume.status.phase == "Failed":
        return VolumePlan()
    if policy == "Recycle":
        return failed(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
    return failed(volume, "VolumeFailedDelete", f'error getting deleter volume plugin for volume "{volume.name}": no volume plugin matched')


def failed(volume: PersistentVolume, reason: str, message: str) -> VolumePlan:
    """What is done about a volume that could not be reclaimed: it says so, once for each reason."""
    if (volume.status.phase, volume.status.message) == ("Failed", message):
        return VolumePlan()
    return VolumePlan((Notice("Warning", reason, message),), status={"phase": "Failed", "reason": reason, "message": message})


def _phase(volume: PersistentVolume, phase: str) -> Tree | None:
    return None if volume.status.phase == phase else {"phase": phase, "reason": None, "message": None}


# Ephemeral volumes -------------------------------------------------------------------------------------------------------------


def ephemeral_claims(pod: Pod) -> list[Tree]:
    """Make the claims of a Pod's ephemeral volumes, which end with it."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.metadata.uid, "controller": True, "blockOwnerDeletion": True}
    found = []
    for volume in pod.spec.volumes:
        if volume.ephemeral is not None:
            template = volume.ephemeral.volume_claim_template
            metadata = dict(template.get("metadata") or {}) | {"name": f"{pod.name}-{volume.name}", "namespace": pod.namespace}
            metadata["ownerReferences"] = [owner]
            found.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template.get("spec") or {}})
    return found
