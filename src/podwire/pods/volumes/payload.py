"""The files of a volume: what each source gives, under which names and with which permissions. Pure.

Sources: https://kubernetes.io/docs/concepts/storage/volumes/, .../projected-volumes/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from podwire.objects.core import Pod
from podwire.objects.volumes import (
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    KeyToPath,
    SecretProjection,
    SecretVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from podwire.pods import downward
from podwire.pods.environment import Sources, Unavailable

DEFAULT_MODE = 0o644


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int


Payload = Mapping[str, File]
"""Files by their path in the volume."""


def is_written(volume: Volume) -> bool:
    """Whether the volume's files are taken from elsewhere (and not an empty folder of the Pod's own)."""
    return any(source is not None for source in (volume.config_map, volume.secret, volume.projected, volume.downward_api))


def projections(volume: Volume) -> Sequence[VolumeProjection]:
    """The volume as a projected one says it: every kind of written volume is one of these with one source."""
    if volume.projected is not None:
        return volume.projected.sources
    if volume.config_map is not None:
        return (VolumeProjection(config_map=volume.config_map),)
    if volume.secret is not None:
        return (VolumeProjection(secret=_as_projection(volume.secret)),)
    if volume.downward_api is not None:
        return (VolumeProjection(downward_api=volume.downward_api),)
    return ()


def _as_projection(source: SecretVolumeSource) -> SecretProjection:
    return SecretProjection(name=source.secret_name, items=source.items, optional=source.optional)


def references(volumes: Sequence[Volume]) -> tuple[set[str], set[str], set[ServiceAccountTokenProjection]]:
    """The names of the ConfigMaps and Secrets that volumes are taken from, and the tokens that they hold."""
    sources = [source for volume in volumes for source in projections(volume)]
    config_maps = {source.config_map.name for source in sources if source.config_map is not None}
    secrets = {source.secret.name for source in sources if source.secret is not None}
    return config_maps, secrets, {source.service_account_token for source in sources if source.service_account_token is not None}


def payload(volume: Volume, pod: Pod, found: Sources) -> Payload:
    """The files of a written volume. Raises Unavailable."""
    source = volume.projected or volume.config_map or volume.secret or volume.downward_api
    mode = source.default_mode if source is not None and source.default_mode is not None else DEFAULT_MODE
    files: dict[str, File] = {}
    for projection in projections(volume):
        for path, content, own_mode in _of(projection, pod, found):
            files[path.strip("/")] = File(content, mode if own_mode is None else own_mode)
    return files


def _of(source: VolumeProjection, pod: Pod, found: Sources) -> Iterator[tuple[str, bytes, int | None]]:
    if source.config_map is not None:
        yield from _of_config_map(source.config_map, found)
    elif source.secret is not None:
        yield from _of_secret(source.secret, found)
    elif source.downward_api is not None:
        for item in source.downward_api.items:
            yield item.path, _of_pod(item, pod, found).encode(), item.mode
    elif source.service_account_token is not None:
        token = found.tokens.get(source.service_account_token)
        if token is None:
            raise Unavailable(f"failed to fetch token: there is none yet of serviceaccount {pod.namespace}/{account(pod)}")
        yield source.service_account_token.path, token.encode(), None
    else:
        raise Unavailable("a source of this kind is not made here: only configMap, secret, downwardAPI and serviceAccountToken are")


def _of_config_map(source: ConfigMapVolumeSource, found: Sources) -> Iterator[tuple[str, bytes, int | None]]:
    held = found.config_maps.get(source.name)
    if held is None:
        if source.optional:
            return
        raise Unavailable(f'configmap "{source.name}" not found')
    data = {key: text.encode() for key, text in held.data.items()} | {key: _decoded(text) for key, text in held.binary_data.items()}
    yield from _chosen(data, source.items, source.optional, "config")


def _of_secret(source: SecretProjection, found: Sources) -> Iterator[tuple[str, bytes, int | None]]:
    held = found.secrets.get(source.name)
    if held is None:
        if source.optional:
            return
        raise Unavailable(f'secret "{source.name}" not found')
    yield from _chosen({key: _decoded(text) for key, text in held.data.items()}, source.items, source.optional, "secret")


def _chosen(data: Mapping[str, bytes], items: Sequence[KeyToPath], optional: bool, kind: str) -> Iterator[tuple[str, bytes, int | None]]:
    if not items:
        for key, content in data.items():
            yield key, content, None
    for item in items:
        if item.key in data:
            yield item.path, data[item.key], item.mode
        elif not optional:
            what = "configmap references non-existent config key" if kind == "config" else "references non-existent secret key"
            raise Unavailable(f"{what}: {item.key}")


def _of_pod(item: DownwardAPIVolumeFile, pod: Pod, found: Sources) -> str:
    try:
        if item.field_ref is not None:
            return downward.field(pod, item.field_ref.field_path)
        if item.resource_field_ref is not None:
            return downward.resource(pod, None, item.resource_field_ref, found.allocatable)
    except downward.NoSuchField as unknown:
        raise Unavailable(str(unknown)) from unknown
    return ""


def account(pod: Pod) -> str:
    """The name of the Pod's ServiceAccount."""
    return pod.spec.service_account_name or "default"


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""
