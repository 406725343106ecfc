"""One Pod's volumes: made before its containers start, written anew when what they are taken from changes, and mounted in them.

They lie below the Pod's folder on the node's disk; empty folders of medium Memory below a folder of the cluster's own tmpfs. Nothing is
mounted on the node: a container's mounts are made in its own view and end with it, so nothing of them can be left behind.

The token of a Pod's ServiceAccount is a projected volume like any other: the API adds it to the Pods that are to have it.

Source: https://kubernetes.io/docs/concepts/storage/volumes/
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from podwire.client.api import Client
from podwire.linux import ids, view
from podwire.objects.core import Container, Pod, VolumeMount
from podwire.objects.quantities import exact
from podwire.objects.volumes import Volume
from podwire.pods import downward, environment
from podwire.pods.admission import CannotStart
from podwire.pods.desired import Player, player
from podwire.pods.environment import Sources, Unavailable, expand
from podwire.pods.volumes import atomic, groups, payload, tokens
from podwire.pods.volumes.places import Place, Places, shows_root
from podwire.pods.volumes.sources import Interest
from podwire.pods.volumes.sources import Sources as Followed

_RETRY_S, _LONGEST_RETRY_S, _SILENT_S = 0.02, 10.0, 0.5
_MEASURE_S, _LONGEST_MEASURE_S = 0.5, 10.0
"""How often folders with a limit are measured: soon after the Pod's start, then as the kubelet does it."""


@dataclass(frozen=True)
class VolumePlace:
    """What the volumes of all Pods of a node share."""

    client: Client
    followed: Followed
    disk: Path
    memory: Path
    now: Callable[[], float]
    allocatable: downward.Amounts
    places: Places

    def folder(self, uid: str, volume: Volume) -> Path:
        in_memory = volume.empty_dir is not None and volume.empty_dir.medium == "Memory"
        return self.memory / uid / volume.name if in_memory else self.disk / uid / "volumes" / volume.name

    def remove(self, uid: str) -> None:
        """Remove all volumes of a Pod."""
        self.places.leave(uid)
        shutil.rmtree(self.memory / uid, ignore_errors=True)
        shutil.rmtree(self.disk / uid / "volumes", ignore_errors=True)


@dataclass
class Mounts:
    """Path in the container to the path of what is shown there; ``folders`` may be written to."""

    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)


class PodVolumes:
    """``event`` reports something that has happened to the Pod: type, reason, message. ``images``: containers that are run from their
    image.
    ``used``: a program is there to see them.
    """

    def __init__(self, place: VolumePlace, pod: Pod, event: Callable[[str, str, str], None], images: Collection[str] = ()) -> None:
        self._place, self._pod, self._event = place, pod, event
        self._interest = Interest(place.followed, pod.namespace)
        self._tokens = tokens.PodTokens(place.client, place.now)
        self._elsewhere: dict[str, Place] = {}  # volumes that are not the Pod's own
        programs = [one for one in (*pod.spec.init_containers, *pod.spec.containers) if player(one, images) is not Player.STAND_IN]
        self.used = bool(programs)
        self._volumes = pod.spec.volumes if programs else ()
        if not programs:
            return
        taken = [environment.references(container) for container in programs]
        config_maps, secrets, _ = payload.references(self._volumes)
        self._interest.want(config_maps.union(*(maps for maps, _ in taken)), secrets.union(*(kept for _, kept in taken)))

    def update(self, pod: Pod) -> None:
        """The Pod's object has changed: its labels and annotations may stand in a volume."""
        former, self._pod = self._pod.metadata, pod
        if (former.labels, former.annotations) != (pod.metadata.labels, pod.metadata.annotations):
            self._interest.changed.set()

    def close(self) -> None:
        """Follow nothing any more; the files stay."""
        self._interest.close()

    async def changed(self) -> None:
        """Wait until something has changed that volumes or variables are taken from."""
        await self._interest.changed.wait()

    async def known(self) -> None:
        """Wait, within reason, until it is known what there is of all that volumes and variables are taken from."""
        await self._interest.unknown()

    def sources(self) -> Sources:
        """What variables are taken from, as it is now."""
        return Sources(self._interest.config_maps(), self._interest.secrets(), self._tokens.held(), self._place.allocatable)

    # Making and keeping -----------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Make all volumes; what is missing is waited for, and said."""
        wait_s, began = _RETRY_S, self._place.now()
        while True:
            self._interest.changed.clear()
            failures = await self._write_all()
            if not failures:
                return
            if self._place.now() - began >= _SILENT_S:
                self._report(failures)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._interest.changed.wait()
            wait_s = min(2 * wait_s, _LONGEST_RETRY_S)

    async def follow(self) -> None:
        """Write volumes anew whenever something has changed, until cancelled; at first what an agent before this one wrote."""
        if self._volumes:
            await self._write_all()
        while True:
            with contextlib.suppress(TimeoutError):
                renewal = self._tokens.next_renewal()
                async with asyncio.timeout(None if renewal is None else max(0.0, renewal - self._place.now())):
                    await self._interest.changed.wait()
            self._interest.changed.clear()
            self._report(await self._write_all())

    def _report(self, failures: Mapping[str, str]) -> None:
        for name, message in failures.items():
            self._event("Warning", "FailedMount", f'MountVolume.SetUp failed for volume "{name}" : {message}')

    async def _write_all(self) -> dict[str, str]:
        """Bring all volumes up to date; gives those that cannot be, and why."""
        failures: dict[str, str] = {}
        unknown = await self._interest.unknown()
        for volume in self._volumes:
            try:
                if unknown and payload.is_written(volume):
                    raise Unavailable(f"failed to sync {unknown[0]} cache: timed out waiting for the condition")
                await self._tokens.refresh(self._pod, payload.references([volume])[2])
                await self._make(volume)
            except Unavailable as missing:
                failures[volume.name] = str(missing)
            except OSError as error:
                failures[volume.name] = f"{error.strerror}: {error.filename}"
        return failures

    async def _make(self, volume: Volume) -> None:
        folder = self._place.folder(self._pod.metadata.uid, volume)
        if payload.is_written(volume):
            atomic.write(folder, payload.payload(volume, self._pod, self.sources()), self._stamp(), self._group())
        elif volume.empty_dir is not None:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            if (group := self._group()) is not None:
                groups.give_one(folder, group)
        elif volume.name not in self._elsewhere and not shows_root(volume):
            place = await self._place.places.of(self._pod, volume)
            if place is None:
                kinds = "configMap, secret, projected, downwardAPI, emptyDir, persistentVolumeClaim, ephemeral and hostPath"
                raise Unavailable(f"a volume of this kind is not made here: only {kinds} are")
            await self._give(place)
            self._elsewhere[volume.name] = place

    def _group(self) -> int | None:
        """The group that is to have the Pod's volumes, where there is one of this number."""
        context = self._pod.spec.security_context
        group = context.fs_group if context is not None else None
        return group if group is not None and group < ids.own()[1] else None

    async def _give(self, place: Place) -> None:
        """Give a claim's directory to the Pod's group. Raises Unavailable."""
        context, group = self._pod.spec.security_context, self._group()
        if group is None or context is None or place.read_only or not place.is_claim:
            return
        once = context.fs_group_change_policy == "OnRootMismatch"
        try:
            await asyncio.to_thread(groups.give, Path(place.path), group, only_on_mismatch=once)
        except OSError as error:
            raise Unavailable(f"applyFSGroup failed for vol {place.path}: {error}") from error

    def _stamp(self) -> str:
        return f"{datetime.fromtimestamp(self._place.now(), UTC):%Y_%m_%d_%H_%M_%S}"

    # Sizes --------------------------------------------------------------------------------------------------------------------

    async def exceeded(self) -> str:
        """Wait until an empty folder holds more than its ``sizeLimit``; gives the words for that."""
        limits = {volume: volume.empty_dir.size_limit for volume in self._volumes if volume.empty_dir and volume.empty_dir.size_limit}
        wait_s = _MEASURE_S
        while limits:
            for volume, limit in limits.items():
                most = exact(limit) if isinstance(limit, str) else limit
                size = await asyncio.to_thread(_size, self._place.folder(self._pod.metadata.uid, volume))
                if size > most > 0:
                    return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{limit}". '
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_MEASURE_S)
        await asyncio.Event().wait()
        return ""

    # Mounts -------------------------------------------------------------------------------------------------------------------

    def mounts(self, container: Container, variables: Mapping[str, str]) -> Mounts:
        """What a container finds mounted. Raises CannotStart."""
        mounts = Mounts()
        known = {volume.name: volume for volume in self._volumes}
        roots = {volume.name for volume in self._pod.spec.volumes if shows_root(volume)}
        for mount in sorted(container.volume_mounts, key=lambda one: one.mount_path.count("/")):
            volume = known.get(mount.name)
            if mount.name in roots:
                mounts.files[mount.mount_path] = _root(mount)
            elif volume is not None:
                source = self._source(volume, mount, variables)
                writable = self._is_writable(volume) and not mount.read_only
                (mounts.folders if writable else mounts.files)[mount.mount_path] = source
                _make_mount_point(mounts, mount.mount_path, os.path.isdir(source))
        return mounts

    def _is_writable(self, volume: Volume) -> bool:
        elsewhere = self._elsewhere.get(volume.name)
        return volume.empty_dir is not None or (elsewhere is not None and not elsewhere.read_only)

    def _folder(self, volume: Volume) -> Path:
        if payload.is_written(volume) or volume.empty_dir is not None:
            return self._place.folder(self._pod.metadata.uid, volume)
        if volume.name not in self._elsewhere:
            raise CannotStart("CreateContainerConfigError", f'volume "{volume.name}" is not mounted yet')
        return Path(self._elsewhere[volume.name].path)

    def _source(self, volume: Volume, mount: VolumeMount, variables: Mapping[str, str]) -> str:
        folder = self._folder(volume)
        below = expand(mount.sub_path_expr, variables) if mount.sub_path_expr else mount.sub_path
        if not below:
            return str(folder)
        source = Path(os.path.realpath(folder / below))
        if not source.is_relative_to(os.path.realpath(folder)):
            raise CannotStart(
                "CreateContainerConfigError", f'failed to prepare subPath for volumeMount "{mount.name}": it leaves the volume'
            )
        if not source.exists():
            if not self._is_writable(volume):
                words = f'failed to prepare subPath for volumeMount "{mount.name}" of container: {below} is not in the volume'
                raise CannotStart("CreateContainerConfigError", words)
            source.mkdir(parents=True)
            source.chmod(stat.S_IMODE(folder.stat().st_mode))  # who may write to the volume may write here
        return str(source)


def _root(mount: VolumeMount) -> str:
    """The source of a mount of the machine's root. Raises CannotStart."""
    if mount.sub_path or mount.sub_path_expr:
        words = (
            f'failed to prepare subPath for volumeMount "{mount.name}": the machine\'s root is shown whole, or a folder of its own hostPath'
        )
        raise CannotStart("CreateContainerConfigError", words)
    return view.ROOT


def _make_mount_point(mounts: Mounts, path: str, folder: bool) -> None:
    """Where a mount lies below one that may be written to, its place is made there, as a container runtime does it."""
    parents = [parent for parent in mounts.folders if path != parent and path.startswith(parent.rstrip("/") + "/")]
    if parents:
        parent = max(parents, key=len)
        place = Path(mounts.folders[parent], path.removeprefix(parent.rstrip("/")).lstrip("/"))
        with contextlib.suppress(FileExistsError):
            if folder:
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total
