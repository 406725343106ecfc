"""Containers of images: prepares what an OCI runtime runs, and takes it away when it has ended.

A container's root is an overlay: the image's layers below, which all containers share, and above them a folder of its own on the node's
disk, new for each run. The overlay is mounted where the runtime starts, in a mount namespace of its own, so nothing is mounted on the
node. What the runtime reads and keeps lies on the cluster's tmpfs.

    DISK/UID/CONTAINER.image/{upper,work}      what the container writes
    MEMORY/UID/CONTAINER/N/{config.json,root,state,pid,log}
    MEMORY/places                                places of mounts (/proc, /etc/hosts ...), below all layers, one for all

Source: https://github.com/opencontainers/runc/blob/main/man/runc-run.8.md
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from podwire.images.errors import ImageRefused
from podwire.images.reference import parse
from podwire.images.store import Image, Store
from podwire.linux import ids
from podwire.linux.errors import KernelRefused, ProgramNotStarted
from podwire.linux.init_client import AsyncInitClient
from podwire.linux.process import DEFAULT_PATH, Program
from podwire.objects.core import Container, ContainerSecurityContext, Pod, Secret
from podwire.objects.signals import named
from podwire.pods import admission
from podwire.pods.admission import CannotStart
from podwire.pods.desired import Player, player
from podwire.pods.ipc import name_of
from podwire.pods.machine import Machine
from podwire.pods.oci import bundle, execution, profile, users
from podwire.pods.oci.pulls import Pulls
from podwire.pods.records import Records
from podwire.pods.runs import Record
from podwire.pods.volumes.pod_volumes import PodVolumes

RUNTIME: Final = "runc"
MISSING: Final = "runc is not installed (Debian: apt-get install runc)"
_FOLDERS: Final = ("dev", "etc", "proc", "sys", "var/run/secrets/kubernetes.io/serviceaccount")
_FILES: Final = ("etc/hostname", "etc/hosts", "etc/resolv.conf")
_PROGRAMS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ImagePlayer:
    """``memory``: a folder that is gone when the node ends. ``refused``: why this node can run no image, once that is known.

    ``pull``: which images may be pulled, and how that is done.
    """

    def __init__(self, store: Store, machine: Machine, records: Records, memory: Path, client: AsyncInitClient, pull: Pulls) -> None:
        self.pull = pull
        self._store, self._machine, self._records, self._memory, self._client = store, machine, records, memory, client
        self._runtime = shutil.which(RUNTIME, path=_PROGRAMS)
        self.refused = "" if self._runtime else MISSING

    def choose(self, pod: Pod) -> dict[str, str]:
        """Which of a Pod's containers are run from their image: those whose image is in the store; gives its id."""
        if self.refused:
            return {}
        found = {one.name: self.find(one.image) for one in admission.containers(pod)}
        return {name: image.id for name, image in found.items() if image is not None}

    def cannot(self, refused: ProgramNotStarted) -> bool:
        """Whether a start failed for a reason that all containers of images have on this machine; then no further one is tried."""
        if refused.step == "execute" or (refused.step != "mount the image" and "operation not permitted" not in str(refused)):
            return False
        self.refused = str(refused)
        return True

    def only(self, pod: Pod) -> set[str]:
        """The names of the containers that no stand-in may play: they are to have their image, from here or from a registry."""
        names = admission.must_have_image(pod)
        if not self.refused:
            names |= {one.name for one in admission.containers(pod) if self.pulls(one)}
        return names

    def pulls(self, container: Container) -> bool:
        """Whether a container's image may be pulled."""
        return container.image_pull_policy != "Never" and player(container) is not Player.MACHINE and self.pull.allows(container.image)

    def opens(self, name: str, secrets: Sequence[Secret]) -> bool:
        """Whether an image that is there may be used by a Pod with these pull secrets: it was pulled with one of them, or by anybody."""
        try:
            return self._store.catalogue().opens(str(parse(name)), self.pull.documents(name, secrets))
        except ImageRefused:
            return True

    def is_closed(self, name: str) -> bool:
        """Whether an image of a registry of this cluster was pulled with credentials, and so is not everybody's."""
        return self.pull.allows(name) and not self.opens(name, ())

    def stop_signal(self, image: str) -> str:
        """The signal that the image with this id wants its containers to be asked to end by; "" if it names none that there is."""
        try:
            found = self._store.catalogue().images.get(image)
        except ImageRefused:
            found = None
        return named(found.execution.stop_signal) if found is not None else ""

    def find(self, name: str) -> Image | None:
        """The image of this name that is in the store."""
        try:
            return self._store.catalogue().find(parse(name))
        except ImageRefused:
            return None

    async def program(
        self,
        pod: Pod,
        container: Container,
        record: Record,
        namespace: int | str | None,
        volumes: PodVolumes,
        number: int,
        processes: int = 0,
    ) -> Program:
        """What runs a container from its image, the run of this number. Raises CannotStart.

        ``processes``: in whose PID namespace, if it is not to be its own; 1 is the node's first process.
        """
        image = self._store.catalogue().images.get(record.images[container.name])
        if image is None:
            raise CannotStart("CreateContainerError", f"image {container.image} is no longer there")
        await volumes.known()
        there = ids.own()
        wanted = users.identity(pod, container, image.execution, lambda path: self._read(image, path))
        user = users.possible(wanted, *there, container.name)
        await self._hold(record.uid, container.name, image)
        variables = self._machine.variables(pod, container, record, volumes)
        files, folders, hostname = self._machine.shown(pod, container, volumes, variables, fresh=True)
        usual = {"PATH": DEFAULT_PATH, "HOME": user.home, "HOSTNAME": hostname} | ({"TERM": "xterm"} if container.tty else {})
        words = execution.merged(container, image.execution, variables, usual)
        context = container.security_context or ContainerSecurityContext()
        tree = bundle.configuration(
            words,
            user,
            files=files,
            folders=folders,
            hostname="" if pod.spec.host_pid else hostname,
            context=context,
            processes=f"/proc/{processes}/ns/pid" if processes else "",
            withheld=profile.withheld(pod, container),
            confined=profile.is_confined(pod, container),
            terminal=container.tty,
        )
        made = self._make(record.uid, container.name, number, orjson.dumps(tree))
        upper = self._disk(record.uid, container.name)
        runtime = [
            self._runtime or RUNTIME,
            "--root",
            f"{made}/state",
            "--log",
            f"{made}/log",
            "--log-format",
            "json",
            "--rootless",
            "true",
        ]
        return Program(
            argv=words.argv,
            env=words.env,
            cwd=words.cwd,
            capabilities=profile.numbers(profile.capabilities(context, profile.withheld(pod, container))),
            user=user.numbers if there != (1, 1) else (),
            namespace=namespace,
            ipc=name_of(pod),
            hostname=hostname if pod.spec.host_pid else "",  # and what has it ends with the container
            overlay={
                "target": f"{made}/root",
                "base": self._store.folder + "/layers",
                "lower": ":".join((*map(os.path.basename, self._store.stack(image)), self._places())),
                "upper": f"{upper}/upper",
                "work": f"{upper}/work",
            },
            runtime=runtime,
            bundle=made,
        )

    async def ended(self, uid: str, container: str) -> None:
        """Take away what a container has left, its logs excepted."""
        shutil.rmtree(self._memory / uid / container, ignore_errors=True)
        shutil.rmtree(self._disk(uid, container), ignore_errors=True)
        with contextlib.suppress(KernelRefused):
            await self._client.release(_held_name(uid, container))

    async def remove(self, record: Record) -> None:
        """Take away what a Pod has left."""
        for container in record.images:
            await self.ended(record.uid, container)
        shutil.rmtree(self._memory / record.uid, ignore_errors=True)

    def _disk(self, uid: str, container: str) -> str:
        return self._records.path(uid, f"{container}.image")

    def _places(self) -> str:
        """The lowest layer of all containers: places to mount on that an image need not have, so that none has to make them for itself."""
        places = self._memory / "places"
        if not (self._memory / "places-made").exists():
            for folder in _FOLDERS:
                (places / folder).mkdir(parents=True, exist_ok=True)
            for file in _FILES:
                (places / file).touch()
            for place in (places, *places.rglob("*")):  # for all users of containers
                place.chmod(0o755 if place.is_dir() else 0o644)
            (self._memory / "places-made").touch()
        return str(places)

    def _make(self, uid: str, container: str, number: int, configuration: bytes) -> str:
        """New folders for a run; gives the one that the runtime reads."""
        made = str(self._memory / uid / container)
        for left in (made, self._disk(uid, container)):
            shutil.rmtree(left, ignore_errors=True)
        upper = self._disk(uid, container)
        for folder in (f"{made}/{number}/root", f"{upper}/work"):
            os.makedirs(folder, mode=0o700)
        os.mkdir(f"{upper}/upper", 0o755)
        os.chmod(f"{upper}/upper", 0o755)  # noqa: S103  (the root of a container, below a folder that is its user's alone)
        with open(f"{made}/{number}/config.json", "wb") as file:
            file.write(configuration)
        return f"{made}/{number}"

    async def _hold(self, uid: str, container: str, image: Image) -> None:
        """Let the node's first process hold the image: it outlives this agent."""
        used = self._store.use(image.id)
        if used is None:
            raise CannotStart("CreateContainerError", f"image {image.id} is no longer there")
        try:
            await self._client.hold(_held_name(uid, container), used)
        finally:
            os.close(used)

    def _read(self, image: Image, path: str) -> str:
        """A file of the image, from the topmost layer that has it. One of another kind, or too large, is none."""
        for diff_id in reversed(image.layers):
            place = Path(self._store.layer(diff_id), path)
            if os.path.islink(place.parent) or not os.path.lexists(place):
                continue
            if place.is_file() and not place.is_symlink() and place.stat().st_size < 1 << 20:
                return place.read_text(errors="replace")
            return ""
        return ""


def _held_name(uid: str, container: str) -> str:
    return f"image/{uid}/{container}"
