"""Archives of images: folders in the OCI layout, tar files of such, skopeo's ``dir``, and what ``docker save`` writes.

``read`` finds the images in one: each with its name, its configuration, and its layers, not read yet. Every document is checked by
its digest when it is read, every layer by whoever reads it (``store``).

Sources: https://github.com/opencontainers/image-spec/blob/main/image-layout.md, https://github.com/moby/docker-image-spec
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Final, Protocol

from podwire.images import documents
from podwire.images.documents import CONFIGS, INDEXES, LAYERS, MANIFESTS, Configuration, Descriptor, Index, Manifest, Platform, Saved, Typed
from podwire.images.errors import ImageRefused
from podwire.images.layer import Member
from podwire.images.streams import BROKEN, BROKEN_TAR, PIECE, Hashed, compression_of, decompressed

_MOST_DOCUMENT: Final = 4 << 20
_DEEPEST_INDEX: Final = 4
_MOST_ENTRIES: Final = 100_000
_FLAT: Final = b"Directory Transport Version:"


class Files(Protocol):
    """The files of an archive, by path."""

    what: str

    def open(self, name: str) -> IO[bytes] | None:
        """None: there is no such file."""


@dataclass(frozen=True)
class Layer:
    """One layer. ``digest`` and ``size`` of the blob are empty where the archive does not say them; ``diff_id`` is the unpacked one's."""

    what: str
    diff_id: str
    digest: str
    size: int
    open: Callable[[], tuple[IO[bytes], str]]
    """The blob, and how it is compressed."""


@dataclass(frozen=True)
class Found:
    """One image of an archive. ``names``: what the archive calls it. ``digests``: of its manifest and of the index that led to it."""

    names: tuple[str, ...]
    id: str
    digests: tuple[str, ...]
    configuration: Configuration
    layers: tuple[Layer, ...]


class Folder:
    """A folder in the OCI layout."""

    def __init__(self, path: str) -> None:
        self.what = path

    def open(self, name: str) -> IO[bytes] | None:
        path = os.path.join(self.what, name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ImageRefused(f"{path} is no file")
        return open(descriptor, "rb", buffering=0)


class TarFile:
    """A tar file, which may be compressed. ``spool`` makes a nameless file where it is decompressed."""

    def __init__(self, file: IO[bytes], what: str, spool: Callable[[], IO[bytes]], most: int) -> None:
        self.what = what
        self._entries: dict[str, tarfile.TarInfo] = {}
        try:
            self._tar = tarfile.open(fileobj=_seekable(file, what, spool, most), mode="r:", tarinfo=Member)  # noqa: SIM115  (read from later)
            for member in self._tar:
                self._entries[posixpath.normpath(member.name)] = member
                if len(self._entries) > _MOST_ENTRIES:
                    raise ImageRefused(f"{what} has more than {_MOST_ENTRIES} entries: it is no archive of images")
        except BROKEN_TAR as error:
            raise ImageRefused(f"{what} is no archive of images, or not all of it is there: {error}") from error

    def open(self, name: str) -> IO[bytes] | None:
        member = self._entries.get(posixpath.normpath(name))
        if member is not None and member.issym():  # `docker save` did so for a layer that it had written already
            member = self._entries.get(posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname)))
        if member is None:
            return None
        if not member.isreg():
            raise ImageRefused(f"{self.what}: {name} is no file")
        return self._tar.extractfile(member)


def _seekable(file: IO[bytes], what: str, spool: Callable[[], IO[bytes]], most: int) -> IO[bytes]:
    """The file itself, or what it holds decompressed."""
    beginning = file.read(4)
    compression = compression_of(beginning)
    if file.seekable() and not compression:
        file.seek(0)
        return file
    taken = spool()
    try:
        if file.seekable():
            file.seek(0)
            beginning = b""
        source = Hashed(decompressed(_Rest(beginning, file), compression), most, what)
        while block := source.read(PIECE):
            taken.write(block)
    except BROKEN as error:
        raise ImageRefused(f"{what} is broken, or not all of it is there: {error}") from error
    taken.seek(0)
    return taken


class _Rest:
    """A stream of which the beginning was read already."""

    def __init__(self, beginning: bytes, file: IO[bytes]) -> None:
        self._beginning, self._file = beginning, file

    def read(self, size: int = -1, /) -> bytes:
        if self._beginning:
            beginning, self._beginning = self._beginning, b""
            return beginning
        return self._file.read(size)


# The images of an archive ------------------------------------------------------------------------------------------------


def read(files: Files, machine: Platform) -> list[Found]:
    """The images that an archive has for this machine. Raises ImageRefused."""
    layout = files.open("oci-layout")
    if layout is not None:
        layout.close()
        index = files.open("index.json")
        if index is None:
            raise ImageRefused(f"{files.what} has an oci-layout, but no index.json")
        listed = documents.decode(_whole(index, f"{files.what}: index.json"), Index, f"{files.what}: index.json")
        found = [_described(files, one, machine) for one in _images(listed, machine, files.what)]
    elif (version := files.open("version")) is not None and _whole(version, f"{files.what}: version").startswith(_FLAT):
        flat = _Flat(files)
        found = [_described(flat, flat.manifest(), machine)]
    else:
        saved = files.open("manifest.json")
        if saved is None:
            raise ImageRefused(f"{files.what} is no archive of images: it has neither oci-layout with index.json nor manifest.json")
        what = f"{files.what}: manifest.json"
        found = [_saved(files, one, machine) for one in documents.decode(_whole(saved, what), list[Saved], what)]
    if not found:
        raise ImageRefused(f"{files.what} has no image in it")
    return found


class _Flat:
    """The files of skopeo's ``dir``, under the paths of the OCI layout: ``manifest.json``, and the blobs beside it by their digits."""

    def __init__(self, files: Files) -> None:
        self.what, self._files, self._manifest = files.what, files, ""

    def manifest(self) -> Descriptor:
        file = self._files.open("manifest.json")
        if file is None:
            raise ImageRefused(f"{self.what}: manifest.json is not there")
        what = f"{self.what}: manifest.json"
        text = _whole(file, what)
        self._manifest = hashlib.sha256(text).hexdigest()
        return Descriptor(documents.decode(text, Typed, what).media_type, f"sha256:{self._manifest}", len(text))

    def open(self, name: str) -> IO[bytes] | None:
        digits = name.rpartition("/")[2]
        if digits == self._manifest:
            return self._files.open("manifest.json")
        return self._files.open(digits) or self._files.open(f"{digits}.manifest.json")


def _images(index: Index, machine: Platform, what: str) -> Iterator[Descriptor]:
    """The images that an archive lists. Several of one name are builds of it for several platforms."""
    named: dict[str, list[Descriptor]] = {}
    for one in index.manifests:
        named.setdefault(one.name, []).append(one)
    for name, described in named.items():
        if any(one.platform is None for one in described):
            yield from described
        else:
            yield documents.choose(Index(tuple(described)), machine, name or what)


def _described(files: Files, described: Descriptor, machine: Platform) -> Found:
    digests = []
    name = described.name
    for _ in range(_DEEPEST_INDEX):
        documents.check_descriptor(described, INDEXES | MANIFESTS, files.what)
        digests.append(described.digest)
        if described.media_type in MANIFESTS:
            return _found(files, described, name, tuple(reversed(digests)), machine)
        index = documents.decode(_blob(files, described), Index, f"{files.what}: index {described.digest}")
        described = documents.choose(index, machine, name or f"{files.what}: index {described.digest}")
    raise ImageRefused(f"{files.what}: index {described.digest} leads through more than {_DEEPEST_INDEX} indexes")


def _found(files: Files, described: Descriptor, name: str, digests: tuple[str, ...], machine: Platform) -> Found:
    what = f"{files.what}: manifest {described.digest}"
    manifest = documents.decode(_blob(files, described), Manifest, what)
    documents.check_descriptor(manifest.config, CONFIGS, f"{what}: configuration")
    configuration = documents.decode(_blob(files, manifest.config), Configuration, f"{what}: configuration")
    documents.check_configuration(configuration, manifest.layers, machine, name or what)
    layers = []
    for layer, diff_id in zip(manifest.layers, configuration.diff_ids, strict=True):
        documents.check_descriptor(layer, LAYERS, f"{what}: layer")
        layers.append(Layer(f"layer {layer.digest}", diff_id, layer.digest, layer.size, _opener(files, layer)))
    return Found((name,) if name else (), manifest.config.digest, digests, configuration, tuple(layers))


def _opener(files: Files, layer: Descriptor) -> Callable[[], tuple[IO[bytes], str]]:
    return lambda: (_open_blob(files, layer), LAYERS[layer.media_type])


def _saved(files: Files, saved: Saved, machine: Platform) -> Found:
    file = files.open(saved.config)
    what = f"{files.what}: {saved.config}"
    if file is None:
        raise ImageRefused(f"{what} is not there")
    text = _whole(file, what)
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
    named = saved.config.removesuffix(".json").rpartition("/")[2]
    if len(named) == 64 and digest != f"sha256:{named}":
        raise ImageRefused(f"{what}: its digest is {digest}")
    configuration = documents.decode(text, Configuration, what)
    names = saved.repo_tags or ()
    documents.check_configuration(configuration, saved.layers or (), machine, names[0] if names else what)

    def opener(path: str) -> Callable[[], tuple[IO[bytes], str]]:
        def open_layer() -> tuple[IO[bytes], str]:
            layer = files.open(path)
            if layer is None:
                raise ImageRefused(f"{files.what}: layer {path} is not there")
            compression = compression_of(layer.read(4))
            layer.seek(0)
            return layer, compression

        return open_layer

    layers = [
        Layer(f"layer {path}", diff_id, "", -1, opener(path))
        for path, diff_id in zip(saved.layers or (), configuration.diff_ids, strict=True)
    ]
    return Found(names, digest, (), configuration, tuple(layers))


# Blobs -------------------------------------------------------------------------------------------------------------------


def _open_blob(files: Files, described: Descriptor) -> IO[bytes]:
    file = files.open("blobs/" + described.digest.replace(":", "/"))
    if file is None:
        raise ImageRefused(f"{files.what}: blob {described.digest} is not there")
    return file


def _blob(files: Files, described: Descriptor) -> bytes:
    what = f"{files.what}: blob {described.digest}"
    text = _whole(_open_blob(files, described), what)
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
    if digest != described.digest or len(text) != described.size:
        raise ImageRefused(f"{what} of {described.size} bytes: what is there has {len(text)} bytes and the digest {digest}")
    return text


def _whole(file: IO[bytes], what: str) -> bytes:
    with file:
        try:
            text = file.read(_MOST_DOCUMENT + 1)
        except BROKEN_TAR as error:
            raise ImageRefused(f"{what}: not all of it is there: {error}") from error
    if len(text) > _MOST_DOCUMENT:
        raise ImageRefused(f"{what} has more than {_MOST_DOCUMENT} bytes: it is no document of an image")
    return text
