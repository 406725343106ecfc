"""Rows of storage: PersistentVolume, PersistentVolumeClaim (core) and StorageClass (storage.k8s.io/v1).

Source: https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver import quantity
from podwire.apiserver.cells import age
from podwire.apiserver.kind import AGE, NAME, STATUS, Column, Kind, Tree
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, forbidden, invalid, required
from podwire.apiserver.validation_values import amount_errors, one_of

_SPEC = Path("spec")
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_CLASS = Column("StorageClass", description="The class of the storage.")
_ATTRIBUTES = Column("VolumeAttributesClass", description="The class of the volume's attributes.")
_ACCESS = Column("Access Modes", description="How it may be mounted.")
_CAPACITY = Column("Capacity", description="Its size.")
_MODE = Column("VolumeMode", priority=1, description="Filesystem or Block.")
_UNSET = "<unset>"


def _modes(words: list[str]) -> str:
    return ",".join(short for word, short in _MODES.items() if word in words)


def _volume_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status, claim = tree.get("spec", {}), tree.get("status", {}), tree.get("spec", {}).get("claimRef", {})
    phase = "Terminating" if tree["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [
        tree["metadata"]["name"],
        spec.get("capacity", {}).get("storage", ""),
        _modes(spec.get("accessModes", [])),
        spec.get("persistentVolumeReclaimPolicy", ""),
        phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or _UNSET,
        status.get("reason", ""),
        age(tree["metadata"].get("creationTimestamp"), now),
        spec.get("volumeMode") or _UNSET,
    ]


def _claim_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    bound = bool(spec.get("volumeName"))
    return [
        tree["metadata"]["name"],
        "Terminating" if tree["metadata"].get("deletionTimestamp") else status.get("phase", ""),
        spec.get("volumeName", ""),
        status.get("capacity", {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes", [])) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or _UNSET,
        age(tree["metadata"].get("creationTimestamp"), now),
        spec.get("volumeMode") or _UNSET,
    ]


def _default_volume(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")


def _default_claim(tree: Tree) -> None:
    tree.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _pending(tree: Tree) -> None:
    tree["status"] = {"phase": "Pending"}


def _validate_volume(tree: Tree, old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors = _access(spec)
    if not spec.get("capacity"):
        errors.append(required(_SPEC / "capacity"))
    for name, text in spec.get("capacity", {}).items():
        errors += amount_errors(text, _SPEC / "capacity" % name)
    allowed = ("Delete", "Recycle", "Retain")
    errors += one_of(spec.get("persistentVolumeReclaimPolicy", ""), allowed, _SPEC / "persistentVolumeReclaimPolicy")
    if old is not None and not errors:
        before = old.get("spec", {})
        if _source(spec) != _source(before):
            errors.append(forbidden(_SPEC / "persistentvolumesource", "spec.persistentvolumesource is immutable after creation"))
        if spec.get("volumeMode") != before.get("volumeMode"):
            errors.append(invalid(_SPEC / "volumeMode", spec.get("volumeMode"), IMMUTABLE))
    return errors


def _source(spec: Tree) -> Tree:
    """Where the data of a volume lies: what is left of it without what may change."""
    return {key: value for key, value in spec.items() if key not in _CHANGEABLE}


_CHANGEABLE = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


def _validate_claim(tree: Tree, old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors = _access(spec)
    size = spec.get("resources", {}).get("requests", {}).get("storage")
    path = _SPEC / "resources" % "storage"
    errors += [required(path)] if size is None else amount_errors(size, path)
    return errors if old is None or errors else _claim_changes(tree, old)


def _claim_changes(tree: Tree, old: Tree) -> list[FieldError]:
    """A claim may be given its volume, once, and a class where it has none; a bound one may ask for more."""
    spec, before = dict(tree["spec"]), dict(old.get("spec", {}))
    for once in ("volumeName", "storageClassName"):
        if not before.get(once):
            spec.pop(once, None)
            before.pop(once, None)
    asked, had = (_size(one) for one in (spec, before))
    bound = old.get("status", {}).get("phase") == "Bound"
    if bound:
        for one in (spec, before):
            one["resources"] = {**one.get("resources", {}), "requests": {**one.get("resources", {}).get("requests", {}), "storage": ""}}
            one.pop("volumeAttributesClassName", None)
    if spec != before:
        words = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        return [forbidden(_SPEC, words)]
    if bound and asked < had:
        capacity = old.get("status", {}).get("capacity", {}).get("storage", "0")
        if asked <= quantity.value(capacity):
            path = _SPEC / "resources" / "requests" / "storage"
            return [forbidden(path, "field can not be less than status.capacity")]
    return []


def _size(spec: Tree) -> Any:
    return quantity.value(spec.get("resources", {}).get("requests", {}).get("storage", "0"))


def _access(spec: Tree) -> list[FieldError]:
    modes = spec.get("accessModes", [])
    if not modes:
        return [required(_SPEC / "accessModes", "at least 1 access mode is required")]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        return [forbidden(_SPEC / "accessModes", "may not use ReadWriteOncePod with other access modes")]
    return [error for mode in modes for error in one_of(mode, _MODES, _SPEC / "accessModes")]


def _class_row(tree: Tree, now: datetime) -> list[Any]:
    metadata = tree["metadata"]
    chosen = metadata.get("annotations", {}).get(_DEFAULT_CLASS) == "true"
    return [
        metadata["name"] + (" (default)" if chosen else ""),
        tree.get("provisioner", ""),
        tree.get("reclaimPolicy", "Delete"),
        tree.get("volumeBindingMode", "Immediate"),
        tree.get("allowVolumeExpansion", False),
        age(metadata.get("creationTimestamp"), now),
    ]


def _default_class(tree: Tree) -> None:
    tree.setdefault("reclaimPolicy", "Delete")
    tree.setdefault("volumeBindingMode", "Immediate")


def _validate_class(tree: Tree, old: Tree | None) -> list[FieldError]:
    errors = [] if tree.get("provisioner") else [required(Path("provisioner"))]
    if old is not None:
        fixed = ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode")
        errors += [invalid(Path(key), tree.get(key), IMMUTABLE) for key in fixed if tree.get(key) != old.get(key)]
    return errors


PERSISTENT_VOLUME = Kind(
    "",
    "v1",
    "persistentvolumes",
    "PersistentVolume",
    False,
    "io.k8s.api.core.v1.PersistentVolume",
    short_names=("pv",),
    subresources=(STATUS,),
    columns=(
        NAME,
        _CAPACITY,
        _ACCESS,
        Column("Reclaim Policy", description="What becomes of it when its claim is gone."),
        Column("Status", description="Available, Bound, Released or Failed."),
        Column("Claim", description="The claim that has it."),
        _CLASS,
        _ATTRIBUTES,
        Column("Reason", description="Why it failed."),
        AGE,
        _MODE,
    ),
    row=_volume_row,
    default=_default_volume,
    prepare_create=_pending,
    validate=_validate_volume,
    generations=False,
)
PERSISTENT_VOLUME_CLAIM = Kind(
    "",
    "v1",
    "persistentvolumeclaims",
    "PersistentVolumeClaim",
    True,
    "io.k8s.api.core.v1.PersistentVolumeClaim",
    short_names=("pvc",),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column("Status", description="Pending, Bound or Lost."),
        Column("Volume", description="The volume that it has."),
        _CAPACITY,
        _ACCESS,
        _CLASS,
        _ATTRIBUTES,
        AGE,
        _MODE,
    ),
    row=_claim_row,
    default=_default_claim,
    prepare_create=_pending,
    validate=_validate_claim,
    generations=False,
)
STORAGE_CLASS = Kind(
    "storage.k8s.io",
    "v1",
    "storageclasses",
    "StorageClass",
    False,
    "io.k8s.api.storage.v1.StorageClass",
    short_names=("sc",),
    columns=(
        NAME,
        Column("Provisioner", description="Who makes the volumes."),
        Column("ReclaimPolicy", description="What becomes of a volume when its claim is gone."),
        Column("VolumeBindingMode", description="When a volume is made."),
        Column("AllowVolumeExpansion", "boolean", description="Whether a volume may grow."),
        AGE,
    ),
    row=_class_row,
    default=_default_class,
    validate=_validate_class,
    generations=False,
)

CORE = (PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM)
STORAGE = (STORAGE_CLASS,)
