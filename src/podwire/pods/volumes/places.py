"""Where the volumes lie that are not the Pod's own: directories of claims, and folders of the machine that the cluster may use.

A claim's directory follows from the name of its PersistentVolume. A hostPath, of a Pod or of a PersistentVolume, must lie below a folder
that the cluster's specification names; symbolic links are followed before that is judged. The hostPath ``/`` of a Pod (``kubectl debug
node/NAME`` mounts it at /host) is no such place: it shows a container, read-only, what a container may see of the machine anyway.

Source: https://kubernetes.io/docs/concepts/storage/volumes/#hostpath, .../persistent-volumes/#claims-as-volumes
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from podwire.client.api import Client
from podwire.client.errors import ApiError, Unreachable
from podwire.objects.core import Pod
from podwire.objects.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from podwire.objects.storage import (
    BIND_COMPLETED,
    DIRECTORY_DRIVER,
    PersistentVolume,
    PersistentVolumeClaim,
    belongs_to,
    claim_name,
    directory_of,
)
from podwire.objects.volumes import Volume
from podwire.pods.environment import Unavailable


def shows_root(volume: Volume) -> bool:
    """Whether a volume is the machine's root, as a container sees it."""
    return volume.host_path is not None and volume.host_path.path != "" and volume.host_path.path.strip("/") == ""


@dataclass(frozen=True)
class Place:
    """``is_claim``: a directory of the cluster's own, which a Pod's group may be given."""

    path: str
    read_only: bool = False
    is_claim: bool = False


@dataclass(frozen=True)
class Places:
    """``state``: the cluster's state directory; ``host_paths``: folders of the machine that Pods may use.

    ``private``: what of the machine is hidden from containers; a folder in it is shown only where ``host_paths`` names it, or one in it.
    """

    client: Client
    state: str
    host_paths: Sequence[str] = ()
    private: Sequence[str] = ()
    taken: dict[str, str] = field(default_factory=dict)
    """By the name of a volume that one Pod alone may use: that Pod's uid, as long as it has its volumes."""

    def leave(self, uid: str) -> None:
        """A Pod no longer has its volumes."""
        for name in [name for name, holder in self.taken.items() if holder == uid]:
            del self.taken[name]

    async def of(self, pod: Pod, volume: Volume) -> Place | None:
        """Find a volume's place; None: it is the Pod's own. Raises Unavailable."""
        name = claim_name(pod, volume)
        if name:
            source = volume.persistent_volume_claim
            place = await self._of_claim(pod, name, ephemeral=volume.ephemeral is not None)
            return replace(place, read_only=place.read_only or (source is not None and source.read_only))
        if volume.host_path is not None:
            return Place(self._on_machine(volume.host_path.path, volume.host_path.type))
        return None

    async def _of_claim(self, pod: Pod, name: str, *, ephemeral: bool) -> Place:
        where = f"error processing PVC {pod.namespace}/{name}"
        try:
            claim = await self.client.get(PERSISTENT_VOLUME_CLAIMS, name, pod.namespace)
            _check(pod, claim, where, ephemeral=ephemeral)
            volume = await self.client.get(PERSISTENT_VOLUMES, claim.spec.volume_name)
        except (ApiError, Unreachable) as error:
            raise Unavailable(f"{where}: failed to fetch it from API server: {error}") from error
        reference = volume.spec.claim_ref
        if reference is None or reference.uid != claim.metadata.uid:
            raise Unavailable(f"{where}: PV {volume.name} is bound to another PVC")
        if volume.spec.access_modes == ("ReadWriteOncePod",) and self.taken.setdefault(volume.name, pod.metadata.uid) != pod.metadata.uid:
            raise Unavailable("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
        return self._of_volume(volume)

    def _of_volume(self, volume: PersistentVolume) -> Place:
        if volume.spec.csi is not None and volume.spec.csi.driver == DIRECTORY_DRIVER:
            try:
                path = directory_of(self.state, volume.name)
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                with contextlib.suppress(FileExistsError):  # of a volume that a person made there is none yet
                    os.mkdir(path, 0o700)
                    os.chmod(path, 0o755)  # noqa: S103  (as a new disk's root is; the folder above it is its user's alone)
            except (OSError, ValueError) as error:
                raise Unavailable(f"the directory of volume {volume.name} cannot be made: {error}") from error
            if os.path.islink(path):
                raise Unavailable(f"the directory of volume {volume.name} is a symbolic link")
            return Place(path, volume.spec.csi.read_only, is_claim=True)
        if volume.spec.host_path is not None:
            return Place(self._on_machine(volume.spec.host_path.path, volume.spec.host_path.type))
        raise Unavailable(f"volume {volume.name} is of a kind that is not mounted here: only csi of {DIRECTORY_DRIVER} and hostPath are")

    def _on_machine(self, path: str, kind: str) -> str:
        real = os.path.realpath(path)
        if not any(_below(real, os.path.realpath(folder)) for folder in self.host_paths):
            allowed = ", ".join(self.host_paths) or "none"
            raise Unavailable(f"hostPath {path} lies below no folder that the cluster may use (spec.hostPaths: {allowed})")
        if _below(real, os.path.realpath(self.state)) or _below(os.path.realpath(self.state), real):
            raise Unavailable(f"hostPath {path} would show the state of the cluster")
        for hidden in (os.path.realpath(one) for one in self.private):
            shown = os.path.exists(hidden) and _below(hidden, real)
            named = any(_below(os.path.realpath(folder), hidden) and _below(real, os.path.realpath(folder)) for folder in self.host_paths)
            if shown or (_below(real, hidden) and not named):
                raise Unavailable(f"hostPath {path} would show {hidden}, which is hidden from containers")
        try:
            if kind == "DirectoryOrCreate":
                os.makedirs(real, mode=0o755, exist_ok=True)
            elif kind == "FileOrCreate":
                os.close(os.open(real, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
            mode = os.stat(real).st_mode
        except OSError as error:
            raise Unavailable(f"hostPath type check failed: {path}: {error.strerror}") from error
        for word, holds in (("Directory", stat.S_ISDIR(mode)), ("File", stat.S_ISREG(mode))):
            if kind.removesuffix("OrCreate") == word and not holds:
                raise Unavailable(f"hostPath type check failed: {path} is not a {word.lower()}")
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise Unavailable(f"hostPath {path} is neither a directory nor a file; nothing else is shown to a container")
        return real


def _check(pod: Pod, claim: PersistentVolumeClaim, where: str, *, ephemeral: bool) -> None:
    if ephemeral and not belongs_to(pod, claim):
        raise Unavailable(f"{where}: it was not created for pod {pod.key} (pod is not owner)")
    if BIND_COMPLETED not in claim.metadata.annotations or not claim.spec.volume_name:
        raise Unavailable(f"{where}: PVC is not bound")


def _below(path: str, folder: str) -> bool:
    return folder == "/" or path == folder or path.startswith(f"{folder}/")
