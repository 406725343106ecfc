"""Containers that are programs of the machine: what is started for a container of the image ``podwire.dev/machine``.

The program sees the machine's file system read-only, with its own /tmp, /run, /dev and /proc, its Pod's resolv.conf, hosts and
nsswitch.conf, and its volumes; it has no new privileges and is the first of its own processes, unless the Pod shares them. Where its output
goes is for ``standard_streams``.

Source: https://kubernetes.io/docs/reference/node/; https://kubernetes.io/docs/concepts/security/service-accounts/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from podwire.linux import ids
from podwire.linux.process import Program
from podwire.objects.core import Container, Pod, Service
from podwire.pods import admission, environment, ipc
from podwire.pods.admission import CannotStart
from podwire.pods.desired import NodeFacts, kernel_hostname
from podwire.pods.ipc import PodIpc
from podwire.pods.programs import processes_name
from podwire.pods.records import Records
from podwire.pods.runs import Record
from podwire.pods.volumes.pod_volumes import PodVolumes

NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"
_FILES = ("hostname", "hosts", "resolv.conf")


class Machine:
    """Makes programs of containers. ``services`` gives those of a namespace; ``hidden``: folders that no container sees.

    ``seen``: folders that every container sees (read-only, as everything), although they may lie below its own /tmp or /run.
    """

    def __init__(
        self,
        records: Records,
        facts: NodeFacts,
        services: Callable[[str], Iterable[Service]],
        ipc: PodIpc,
        *,
        hidden: Iterable[str] = (),
        seen: Iterable[str] = (),
    ) -> None:
        self._records, self._facts, self._services, self._ipc = records, facts, services, ipc
        self._hidden = tuple(folder for folder in hidden if folder)
        self._seen = {folder: folder for folder in seen if folder.startswith(("/tmp/", "/run/"))}  # noqa: S108  (a container has its own)

    async def program(
        self, pod: Pod, container: Container, record: Record, namespace: int | str | None, volumes: PodVolumes, *, fresh: bool = False
    ) -> Program:
        """The program of a container. ``fresh``: for a new run, whose termination message is empty. Raises CannotStart.

        Started it can be once there is an IPC namespace for the Pod (``ipc.ensure``).
        """
        user = admission.machine_user(pod, container, *ids.own())
        await volumes.known()
        variables = self.variables(pod, container, record, volumes)
        # Of its own the image has a shell, for whom it is spoken to; a shell that nobody speaks to would end at once.
        argv = environment.command(container, variables) or ["sh"] * container.stdin
        if not argv:
            raise CannotStart(
                "CreateContainerError", "no command specified: without stdin the image podwire.dev/machine has none of its own"
            )
        files, folders, hostname = self.shown(pod, container, volumes, variables, fresh=fresh)
        terminal = {"TERM": "xterm"} if container.tty else {}
        program = Program(
            argv=tuple(argv),
            env={"HOSTNAME": hostname, "HOME": "/" if user and user[0] else "/root", **terminal, **variables},
            cwd=container.working_dir or "/",
            user=user,
            namespace=namespace,
            ipc=ipc.name_of(pod),
            files=self._seen | {"/etc/nsswitch.conf": self._records.path(pod.metadata.uid, "nsswitch.conf")} | files,
            folders=folders,
            hidden=self._hidden,
            own_processes=not pod.spec.host_pid,
            hostname=hostname,
        )
        if pod.spec.share_process_namespace:
            program = replace(program, own_processes=False, join=processes_name(pod.metadata.uid), joins=("pid",))
        return program.contained()

    def shown(
        self, pod: Pod, container: Container, volumes: PodVolumes, variables: Mapping[str, str], *, fresh: bool
    ) -> tuple[dict[str, str], dict[str, str], str]:
        """What every container finds of its Pod, whatever its root is: files, folders that it may write to, and its host name."""
        uid = pod.metadata.uid
        mounts = volumes.mounts(container, variables)
        folders: dict[str, str] = {}
        if container.termination_message_path:
            if fresh:
                self._records.write_files(uid, {container.name: b""}, "termination", mode=0o666)
            folders[container.termination_message_path] = self._records.termination(uid, container.name)
        hostname = kernel_hostname(pod, self._facts)
        for name, text in (("nsswitch.conf", NSSWITCH), ("hostname", hostname + "\n")):
            self._records.share(uid, name, text)
        files = {f"/etc/{name}": self._records.path(uid, name) for name in _FILES}
        if ipc.SHARED_MEMORY not in mounts.files | mounts.folders:
            folders[ipc.SHARED_MEMORY] = self._ipc.shared_memory(pod)
        return files | mounts.files, folders | mounts.folders, hostname

    def _ips(self, pod: Pod, record: Record) -> Sequence[str]:
        return record.addresses or (self._facts.ips if pod.spec.host_network else ())

    def variables(self, pod: Pod, container: Container, record: Record, volumes: PodVolumes) -> dict[str, str]:
        """The container's variables. Raises CannotStart."""
        ips = self._ips(pod, record)
        fields = {
            "status.podIP": ips[0] if ips else "",
            "status.podIPs": ",".join(ips),
            "status.hostIP": self._facts.ip,
            "status.hostIPs": ",".join(self._facts.ips),
        }
        try:
            return environment.variables_of(pod, container, self._services(pod.namespace), volumes.sources(), fields.get)
        except environment.Unavailable as error:
            raise CannotStart("CreateContainerConfigError", str(error)) from error
