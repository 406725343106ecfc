"""The store of a user's images, shared by all clusters.

    FOLDER                0700
      lock                held by whoever changes anything
      catalogue.json      which images there are and what they are called; replaced in one step
      layers/KEY          a layer, unpacked: whole or not there. KEY: the first 24 digits of its diff id
      used/KEY            an image is used as long as somebody has this file's lock (shared); the kernel lets go of it with the last
                          descriptor
      new/                what is being unpacked; whoever has the lock and finds something here removes it
      pulls/              a folder for each pull, locked (shared) by whoever pulls; one without a lock is left of somebody killed

Readers need no lock: they read the catalogue, and hold an image that they use. Whatever kills a writer, the catalogue is the former one
or the new one, and names only what is whole on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from podwire.images import archive, reference
from podwire.images.archive import Found, Layer
from podwire.images.documents import Execution, Platform
from podwire.images.errors import ImageRefused
from podwire.images.layer import Budget, Unpacking, is_opaque, remove_tree
from podwire.images.reference import Reference
from podwire.images.streams import BROKEN_TAR, Hashed, decompressed
from podwire.linux import ids, syscalls

VERSION: Final = 1
_KEY: Final = 24
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class Image(msgspec.Struct, frozen=True, omit_defaults=True):
    """One image. ``id`` is its configuration's digest, ``layers`` are diff ids, the lowest first; ``size`` is unpacked, in bytes."""

    id: str
    digests: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    size: int = 0
    platform: str = ""
    created: str = ""
    execution: Execution = Execution()


class Catalogue(msgspec.Struct, frozen=True):
    """``names``: full name to id. ``pulled``: of a name that was pulled with credentials alone, prints of these (``print_of``).

    A name that was loaded, or pulled without credentials, has none: whoever may use images at all may use it.
    """

    version: int = VERSION
    images: dict[str, Image] = {}
    names: dict[str, str] = {}
    salt: str = ""
    pulled: dict[str, tuple[str, ...]] = {}

    def print_of(self, credential: bytes) -> str:
        """What is remembered of a credential, here and nowhere else."""
        return hashlib.blake2b(credential, digest_size=16, key=self.salt.encode()).hexdigest()

    def opens(self, name: str, credentials: Iterable[bytes]) -> bool:
        """Whether an image may be used by who has these credentials."""
        prints = self.pulled.get(name)
        return prints is None or any(self.print_of(one) in prints for one in credentials)

    def find(self, wanted: Reference) -> Image | None:
        """The image that a name stands for; a digest decides alone where there is one."""
        if str(wanted) in self.names:
            return self.images[self.names[str(wanted)]]
        if wanted.digest:
            found = (one for one in self.images.values() if wanted.digest in (one.id, *one.digests))
            return next((one for one in found if wanted.repository in {_repository(name) for name in self.names_of(one.id)}), None)
        return None

    def names_of(self, image: str) -> list[str]:
        return sorted(name for name, wanted in self.names.items() if wanted == image)


def _repository(name: str) -> str:
    return reference.parse(name).repository


class Store:
    """The store below one folder, which is made when it is first needed. ``progress`` hears what is being done."""

    def __init__(
        self,
        folder: str,
        *,
        machine: Platform,
        budget: Callable[[], Budget] = Budget,
        progress: Callable[[str], None] = lambda _words: None,
    ) -> None:
        self.folder = folder
        self._machine, self._budget, self._progress = machine, budget, progress
        self._read: tuple[tuple[int, int], Catalogue] | None = None

    # Reading -----------------------------------------------------------------------------------------------------------------

    def catalogue(self) -> Catalogue:
        """What there is now. Raises ImageRefused when it cannot be read."""
        path = f"{self.folder}/catalogue.json"
        try:
            state = os.stat(path)
            key = (state.st_ino, state.st_mtime_ns)
            if self._read is None or self._read[0] != key:
                self._read = key, msgspec.json.decode(Path(path).read_bytes(), type=Catalogue)
        except FileNotFoundError:
            return Catalogue()
        except (msgspec.DecodeError, OSError) as error:
            raise ImageRefused(f"{path} cannot be read: {error}") from error
        if self._read[1].version != VERSION:
            raise ImageRefused(f"{path} was written by another version of podwire")
        return self._read[1]

    def layer(self, diff_id: str) -> str:
        """Where a layer lies."""
        return f"{self.folder}/layers/{_key(diff_id)}"

    def stack(self, image: Image) -> list[str]:
        """The layers to lay over each other, the topmost first.

        One that is there twice counts once, on top: whatever it has hides the same of it below. A layer whose root is opaque is the lowest.
        """
        found: list[str] = []
        for diff_id in reversed(image.layers):
            if (place := self.layer(diff_id)) not in found:
                found.append(place)
            if is_opaque(place):
                break
        return found

    def use(self, image: str) -> int | None:
        """Hold an image, so that it is not removed: a descriptor, to be kept as long as it is used. None: it is no longer there."""
        try:
            descriptor = os.open(f"{self.folder}/used/{_key(image)}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if image in self.catalogue().images:
            return descriptor
        os.close(descriptor)
        return None

    def is_used(self, image: str) -> bool:
        """Whether a container uses an image now."""
        with self._unused(image) as unused:
            return not unused

    @contextlib.contextmanager
    def _unused(self, image: str) -> Iterator[bool]:
        descriptor = os.open(f"{self.folder}/used/{_key(image)}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)

    # Changing ----------------------------------------------------------------------------------------------------------------

    def load(self, source: str | IO[bytes], name: str = "", credential: bytes = b"") -> list[str]:
        """Take in all images of an archive (a tar file or a folder), or the one of it under this name; gives the names.

        ``credential``: what opened the registry that it comes from. Raises ImageRefused; then nothing of the archive is in the store.
        """
        wanted = str(reference.parse(name)) if name else ""
        with self._changing() as before, contextlib.ExitStack() as opened:
            new = f"{self.folder}/new"
            found = archive.read(self._files(source, opened), self._machine)
            names = _named(found, wanted, source if isinstance(source, str) else "the archive")
            unpacked: dict[str, tuple[str, int]] = {}
            try:
                images = {one.id: self._image(one, unpacked) for one in found}
                self._commit(_remembered(before, names, credential), images, names, unpacked)
            except OSError as error:
                if error.errno in _FULL:
                    raise ImageRefused(f"{error.strerror}: {self.folder} has no room for the image") from error
                raise ImageRefused(f"{error.filename or new}: {error.strerror}") from error
        return sorted(names)

    def tag(self, image: str, name: str) -> str:
        """Give an image one more name, which it takes from another one. Raises ImageRefused."""
        wanted = str(reference.parse(name))
        with self._changing() as before:
            found = self._known(before, image)
            pulled = {key: value for key, value in before.pulled.items() if key != wanted}
            if (prints := before.pulled.get(str(reference.parse(image)) if not _is_id(found, image) else "")) is not None:
                pulled[wanted] = prints
            self._write(msgspec.structs.replace(before, names={**before.names, wanted: found.id}, pulled=pulled))
            self._prune()
        return wanted

    def remove(self, name: str) -> str:
        """Take a name away, or by an image's id all of its names; the image goes with the last one. Raises ImageRefused."""
        with self._changing() as before:
            found = self._known(before, name)
            theirs = before.names_of(found.id)
            gone = theirs if _is_id(found, name) else [str(reference.parse(name))]
            if set(gone) >= set(theirs) and self.is_used(found.id):
                raise ImageRefused(f"{name} is used by a container that runs")
            names, pulled = ({key: one for key, one in held.items() if key not in gone} for held in (before.names, before.pulled))
            self._write(msgspec.structs.replace(before, names=names, pulled=pulled))
            self._prune()
        return name

    def _known(self, catalogue: Catalogue, name: str) -> Image:
        found = next((one for one in catalogue.images.values() if _is_id(one, name)), None)
        if found is None:
            found = catalogue.find(reference.parse(name))
        if found is None:
            raise ImageRefused(f"there is no image {name}")
        return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Catalogue]:
        """Alone, with nothing left of whoever was killed before."""
        try:
            for folder in ("", "layers", "used", "new"):
                os.makedirs(f"{self.folder}/{folder}", mode=0o700, exist_ok=True)
            os.chmod(self.folder, 0o700)
            lock = os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ImageRefused(f"images cannot be kept in {self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._sweep()
            self._sweep_pulls()
            try:
                yield self.catalogue()
            finally:
                self._sweep()
        finally:
            os.close(lock)

    def _sweep(self) -> None:
        for left in os.listdir(f"{self.folder}/new"):
            remove_tree(f"{self.folder}/new/{left}")

    # Taking in ---------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def room(self) -> Iterator[tuple[str, int]]:
        """An empty folder for what is on its way here, and the descriptor that holds it. Raises ImageRefused."""
        while True:
            folder = f"{self.folder}/pulls/{secrets.token_hex(8)}"
            try:
                os.makedirs(folder, mode=0o700)
                os.chmod(self.folder, 0o700)
                held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(held, fcntl.LOCK_SH)
            except FileNotFoundError:
                continue  # it looked like one that was left
            except OSError as error:
                raise ImageRefused(f"images cannot be kept in {self.folder}: {error.strerror}") from error
            if os.path.isdir(folder):
                break
            os.close(held)
        try:
            yield folder, held
        finally:
            remove_tree(folder)
            os.close(held)

    def _sweep_pulls(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for left in os.listdir(f"{self.folder}/pulls"):
                folder = f"{self.folder}/pulls/{left}"
                with contextlib.suppress(FileNotFoundError):
                    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        remove_tree(folder)
                    except BlockingIOError:
                        pass
                    finally:
                        os.close(held)

    def _files(self, source: str | IO[bytes], opened: contextlib.ExitStack) -> archive.Files:
        if isinstance(source, str) and os.path.isdir(source):
            return archive.Folder(source)
        try:
            file = open(source, "rb") if isinstance(source, str) else source  # noqa: SIM115  (closed with the others)
        except OSError as error:
            raise ImageRefused(f"{source}: {error.strerror}") from error
        opened.enter_context(file)
        what = source if isinstance(source, str) else "the archive on standard input"

        def spool() -> IO[bytes]:
            return opened.enter_context(tempfile.TemporaryFile(dir=f"{self.folder}/new"))

        return archive.TarFile(file, what, spool, self._budget().size)

    def _image(self, found: Found, unpacked: dict[str, tuple[str, int]]) -> Image:
        """An image's row; its layers are unpacked where they are not there. ``unpacked``: diff id to the new folder and its size."""
        budget, size = self._budget(), 0
        for number, layer in enumerate(found.layers, 1):
            if layer.diff_id not in unpacked:
                if os.path.isdir(self.layer(layer.diff_id)):
                    unpacked[layer.diff_id] = "", _size(self.layer(layer.diff_id))
                else:
                    self._progress(f"unpacking layer {number} of {len(found.layers)}")
                    unpacked[layer.diff_id] = self._unpack(layer, budget)
            size += unpacked[layer.diff_id][1]
        configuration = found.configuration
        return Image(
            id=found.id,
            digests=found.digests,
            layers=configuration.diff_ids,
            size=size,
            platform=f"{configuration.os}/{configuration.architecture}",
            created=configuration.created or "",
            execution=configuration.config or Execution(),
        )

    def _unpack(self, layer: Layer, budget: Budget) -> tuple[str, int]:
        place = f"{self.folder}/new/{secrets.token_hex(8)}"
        os.mkdir(place, 0o755)
        file, compression = layer.open()
        with file:
            blob = Hashed(file, budget.size, layer.what)
            plain = Hashed(decompressed(blob, compression), budget.size, layer.what)
            unpacking = Unpacking(place, budget)
            try:
                unpacking.take(plain)
                plain.drain()
                blob.drain()
            except BROKEN_TAR as error:
                self._check_blob(layer, blob)
                raise ImageRefused(f"{layer.what} is broken, or not all of it is there: {error}") from error
            except ImageRefused as refused:
                raise ImageRefused(f"{layer.what}: {refused}") from refused
            self._check_blob(layer, blob)
        if plain.digest != layer.diff_id:
            raise ImageRefused(f"{layer.what}: its content has the digest {plain.digest}, the configuration says {layer.diff_id}")
        if unpacking.has_owners:
            ids.with_users(unpacking.give_owners)
        return place, unpacking.size

    @staticmethod
    def _check_blob(layer: Layer, blob: Hashed) -> None:
        """What is not what its digest says is wrong before anything else is."""
        if not layer.digest:
            return
        with contextlib.suppress(*BROKEN_TAR):
            blob.drain()
        if (blob.digest, blob.count) != (layer.digest, layer.size):
            raise ImageRefused(f"{layer.what} of {layer.size} bytes: what is there has {blob.count} bytes and the digest {blob.digest}")

    def _commit(self, before: Catalogue, images: dict[str, Image], names: dict[str, str], unpacked: dict[str, tuple[str, int]]) -> None:
        for diff_id, (place, _) in unpacked.items():
            if place:
                os.rename(place, self.layer(diff_id))
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syscalls.sync_file_system(folder)
            finally:
                os.close(folder)
            self._write(msgspec.structs.replace(before, images=before.images | images, names=before.names | names))
        finally:
            self._prune()  # of a load that failed: what it has brought

    def _write(self, catalogue: Catalogue) -> None:
        path = f"{self.folder}/catalogue.json"
        new = f"{self.folder}/new/catalogue.json"
        with open(new, "wb") as file:
            file.write(msgspec.json.encode(catalogue))
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
        self._read = None

    def _prune(self) -> None:
        """Let go of images that have no name and are not used, and of layers that belong to none."""
        now = self.catalogue()
        named = set(now.names.values())
        kept = {key: image for key, image in now.images.items() if key in named or self.is_used(key)}
        if kept != now.images:
            self._write(msgspec.structs.replace(now, images=kept))
        wanted = {_key(diff_id) for image in kept.values() for diff_id in image.layers}
        used = {_key(image) for image in kept}
        for key in os.listdir(f"{self.folder}/layers"):
            if key not in wanted:
                os.rename(f"{self.folder}/layers/{key}", f"{self.folder}/new/{secrets.token_hex(8)}")
        for key in os.listdir(f"{self.folder}/used"):
            if key not in used:
                os.unlink(f"{self.folder}/used/{key}")


def _remembered(before: Catalogue, names: dict[str, str], credential: bytes) -> Catalogue:
    """The catalogue with what opened a registry for these names; others that opened it before are kept as long as the image is the same."""
    pulled = {
        key: value for key, value in before.pulled.items() if key not in names or (credential and names[key] == before.names.get(key))
    }
    if not credential:
        return msgspec.structs.replace(before, pulled=pulled)
    salted = before if before.salt else msgspec.structs.replace(before, salt=secrets.token_hex(16))
    for name, image in names.items():
        if name in pulled or before.names.get(name) != image:  # what everybody may use stays so
            pulled[name] = tuple(dict.fromkeys((*pulled.get(name, ()), salted.print_of(credential))))
    return msgspec.structs.replace(salted, pulled=pulled)


def _named(found: Sequence[Found], wanted: str, what: str) -> dict[str, str]:
    """Full name to id."""
    if wanted:
        if len(found) > 1:
            raise ImageRefused(f"{what} has {len(found)} images: they cannot all be called {wanted}")
        return {wanted: found[0].id}
    names: dict[str, str] = {}
    for one in found:
        if not one.names:
            raise ImageRefused(f"{what} does not say what its image {one.id} is called: say it with --name")
        names |= {str(reference.parse(name)): one.id for name in one.names}
    return names


def _key(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_KEY]


def _is_id(image: Image, text: str) -> bool:
    digits = text.removeprefix("sha256:")
    return len(digits) >= 12 and image.id.removeprefix("sha256:").startswith(digits)


def _size(folder: str) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(root, name)).st_size
    return total
