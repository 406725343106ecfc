"""The volumes of a Pod: where each takes its files from. Only the kinds that a node of ours can make are told apart.

Source: https://kubernetes.io/docs/concepts/storage/volumes/, .../projected-volumes/
"""

from __future__ import annotations

from typing import Any

from podwire.objects.meta import Value


class ObjectFieldSelector(Value, frozen=True):
    api_version: str = "v1"
    field_path: str = ""


class ResourceFieldSelector(Value, frozen=True):
    container_name: str = ""
    resource: str = ""
    divisor: str | int = "0"


class KeyToPath(Value, frozen=True):
    key: str = ""
    path: str = ""
    mode: int | None = None


class ConfigMapVolumeSource(Value, frozen=True):
    """Also a projection of one, which has no ``defaultMode``."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int | None = None
    optional: bool = False


class SecretVolumeSource(Value, frozen=True):
    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int | None = None
    optional: bool = False


class SecretProjection(Value, frozen=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class DownwardAPIVolumeFile(Value, frozen=True):
    path: str = ""
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolumeSource(Value, frozen=True):
    items: tuple[DownwardAPIVolumeFile, ...] = ()
    default_mode: int | None = None


class ServiceAccountTokenProjection(Value, frozen=True):
    audience: str = ""
    expiration_seconds: int = 3600
    path: str = ""


class VolumeProjection(Value, frozen=True):
    """Exactly one is set; none: a kind that is not made here."""

    config_map: ConfigMapVolumeSource | None = None
    secret: SecretProjection | None = None
    downward_api: DownwardAPIVolumeSource | None = None
    service_account_token: ServiceAccountTokenProjection | None = None


class ProjectedVolumeSource(Value, frozen=True):
    sources: tuple[VolumeProjection, ...] = ()
    default_mode: int | None = None


class EmptyDirVolumeSource(Value, frozen=True):
    medium: str = ""
    size_limit: str | int | None = None


class HostPathVolumeSource(Value, frozen=True):
    path: str = ""
    type: str = ""


class PersistentVolumeClaimVolumeSource(Value, frozen=True):
    claim_name: str = ""
    read_only: bool = False


class EphemeralVolumeSource(Value, frozen=True):
    """A claim that lives as long as its Pod. The template stays a tree: what it says goes into the claim unread."""

    volume_claim_template: dict[str, Any] = {}


class Volume(Value, frozen=True):
    """Exactly one source is set; none: a kind that is not made here."""

    name: str = ""
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: EphemeralVolumeSource | None = None
