"""Storage: volumes, the claims that people make on them, and the classes that say how volumes are made.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/, .../storage-classes/
"""

from __future__ import annotations

from podwire.objects.core import Condition, ObjectReference, Pod
from podwire.objects.meta import LabelSelector, Object, Value
from podwire.objects.placement import NodeSelector
from podwire.objects.quantities import exact
from podwire.objects.volumes import Volume

DIRECTORY_PROVISIONER = "podwire.dev/directory"
"""Who makes volumes of a StorageClass as directories below the cluster's state."""

DIRECTORY_DRIVER = "directory.podwire.dev"
"""The CSI driver that such a volume names. Where the directory lies follows from the volume's own name, never from a field of it."""

PVC_PROTECTION, PV_PROTECTION = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
BIND_COMPLETED, BOUND_BY_CONTROLLER = "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"


class ResourceRequests(Value, frozen=True):
    requests: dict[str, str | int | float] = {}


class PersistentVolumeClaimSpec(Value, frozen=True):
    """``storage_class_name``: None is "the default one, once there is one", "" is "none"."""

    access_modes: tuple[str, ...] = ()
    selector: LabelSelector | None = None
    resources: ResourceRequests = ResourceRequests()
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str = "Filesystem"


class PersistentVolumeClaimStatus(Value, frozen=True):
    phase: str = ""
    access_modes: tuple[str, ...] = ()
    capacity: dict[str, str | int | float] = {}
    conditions: tuple[Condition, ...] = ()


class PersistentVolumeClaim(Object, frozen=True):
    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()


class CSIPersistentVolumeSource(Value, frozen=True):
    driver: str = ""
    volume_handle: str = ""
    read_only: bool = False


class HostPathSource(Value, frozen=True):
    path: str = ""
    type: str = ""


class VolumeNodeAffinity(Value, frozen=True):
    required: NodeSelector | None = None


class PersistentVolumeSpec(Value, frozen=True):
    """Of the sources only those are told apart that a node of ours can mount."""

    capacity: dict[str, str | int | float] = {}
    access_modes: tuple[str, ...] = ()
    persistent_volume_reclaim_policy: str = "Retain"
    storage_class_name: str = ""
    volume_mode: str = "Filesystem"
    claim_ref: ObjectReference | None = None
    node_affinity: VolumeNodeAffinity | None = None
    csi: CSIPersistentVolumeSource | None = None
    host_path: HostPathSource | None = None


class PersistentVolumeStatus(Value, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""


class PersistentVolume(Object, frozen=True):
    spec: PersistentVolumeSpec = PersistentVolumeSpec()
    status: PersistentVolumeStatus = PersistentVolumeStatus()


class StorageClass(Object, frozen=True):
    provisioner: str = ""
    reclaim_policy: str = "Delete"
    volume_binding_mode: str = "Immediate"
    allow_volume_expansion: bool = False
    parameters: dict[str, str] = {}


def directory_of(state: str, volume: str) -> str:
    """Give the path of a volume's directory below the cluster's state. Raises ValueError for a name that is none of a PersistentVolume."""
    if not volume or volume.startswith(".") or "/" in volume or "\0" in volume:
        raise ValueError(f"{volume!r} is no name of a PersistentVolume")
    return f"{state}/volumes/{volume}"


def storage(amounts: dict[str, str | int | float]) -> int:
    """Give the bytes of ``storage`` among amounts, rounded up; 0: it is not named. Raises Malformed."""
    return -int(-exact(str(amounts.get("storage", 0))) // 1)


def claim_name(pod: Pod, volume: Volume) -> str:
    """Give the name of the claim that a volume of a Pod is; "": it is none."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.name}-{volume.name}" if volume.ephemeral is not None else ""


def claims_of(pod: Pod) -> list[str]:
    """Give the keys of the claims that a Pod names."""
    return [f"{pod.namespace}/{name}" for volume in pod.spec.volumes if (name := claim_name(pod, volume))]


def belongs_to(pod: Pod, claim: PersistentVolumeClaim) -> bool:
    """Whether a claim was made for this Pod's own ephemeral volume."""
    return any(owner.controller and owner.uid == pod.metadata.uid for owner in claim.metadata.owner_references)
