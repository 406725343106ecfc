"""The JSON documents of an image: indexes, manifests and configurations, as values, and which of several platforms is meant. Pure.

Sources: https://github.com/opencontainers/image-spec (image-index, manifest, config, descriptor);
https://github.com/moby/docker-image-spec for the archives of ``docker save``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from podwire.images.errors import ImageRefused
from podwire.images.reference import is_digest

T = TypeVar("T")

INDEXES: Final = frozenset({"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"})
MANIFESTS: Final = frozenset({"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"})
CONFIGS: Final = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})
LAYERS: Final[Mapping[str, str]] = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
"""How a layer of each media type is compressed."""

ARCHITECTURES: Final[Mapping[str, str]] = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""The kernel's word for a machine, and Go's, where they differ."""
_NAME, _NAME_OR_TAG = "io.containerd.image.name", "org.opencontainers.image.ref.name"
_MOST_LAYERS: Final = 127  # as many as Docker lays over each other; the options of a mount have one page


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    pass


class Platform(_Camel, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(_Camel, frozen=True):
    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """The name that the archive gives to what is described; a mere tag is none."""
        told = self.annotations or {}
        either = told.get(_NAME_OR_TAG, "")
        return told.get(_NAME, "") or (either if ":" in either or "/" in either else "")


class Typed(_Camel, frozen=True):
    """A manifest or an index, before it is known which."""

    media_type: str = "application/vnd.oci.image.manifest.v1+json"


class Index(_Camel, frozen=True):
    manifests: tuple[Descriptor, ...] = ()


class Manifest(_Camel, frozen=True):
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()


class Execution(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """How a container of the image is run, where nothing else is said."""

    user: str = ""
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    stop_signal: str = ""


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] | None = None


class Configuration(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    created: str | None = None
    config: Execution | None = None
    rootfs: _RootFs = _RootFs()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return self.rootfs.diff_ids or ()


class Saved(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of an archive of ``docker save``: files of the archive."""

    config: str
    layers: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None


def decode(text: bytes, kind: type[T], what: str) -> T:
    """A document. Raises ImageRefused naming it and the field."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImageRefused(f"{what} is not what it should be: {error}") from error


def check_descriptor(described: Descriptor, known: frozenset[str] | Mapping[str, str], what: str) -> None:
    """Raises ImageRefused for a media type that is not known here, and for a digest that cannot be checked."""
    if described.media_type not in known:
        raise ImageRefused(f"{what} {described.digest}: unknown media type {described.media_type!r}")
    if not is_digest(described.digest) or described.size < 0:
        raise ImageRefused(f"{what}: {described.digest!r} of {described.size} bytes is no digest that can be checked here")


def choose(index: Index, machine: Platform, what: str) -> Descriptor:
    """The manifest, or further index, for this machine. Raises ImageRefused naming the platforms that there are."""
    described = [one for one in index.manifests if one.platform is None or one.platform.os != "unknown"]  # attestations are no images
    for one in described:
        if one.platform is None or (one.platform.os, one.platform.architecture) == (machine.os, machine.architecture):
            return one
    platforms = ", ".join(sorted({str(one.platform) for one in described})) or "no platform"
    raise ImageRefused(f"{what} is for {platforms}; this machine is {machine}")


def check_configuration(configuration: Configuration, layers: Sequence[object], machine: Platform, what: str) -> None:
    """Raises ImageRefused for another platform's image, and for one whose layers are not those that it names."""
    theirs = Platform(configuration.architecture, configuration.os)
    if (theirs.os, theirs.architecture) != (machine.os, machine.architecture):
        raise ImageRefused(f"{what} is for {theirs or 'no platform'}; this machine is {machine}")
    if len(layers) != len(configuration.diff_ids):
        raise ImageRefused(f"{what} has {len(layers)} layers, its configuration names {len(configuration.diff_ids)}")
    if len(layers) > _MOST_LAYERS:
        raise ImageRefused(f"{what} has {len(layers)} layers; at most {_MOST_LAYERS} can be laid over each other")
    for diff_id in configuration.diff_ids:
        if not is_digest(diff_id):
            raise ImageRefused(f"{what}: {diff_id!r} is no digest that can be checked here")
