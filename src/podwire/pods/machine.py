"""Containers that are programs of the machine: what is started for a container of the image ``podwire.dev/machine``.

The program sees the machine's file system read-only, with its own /tmp, /run, /dev and /proc, its Pod's resolv.conf, hosts and
nsswitch.conf, and its ServiceAccount's token; it has no new privileges and is the first of its own processes. Its output is
appended to a file of the Pod.

Source: https://kubernetes.io/docs/reference/node/; https://kubernetes.io/docs/concepts/security/service-accounts/
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable, Mapping

from podwire.client.api import Client
from podwire.client.errors import ApiError, Unreachable
from podwire.linux.process import Program
from podwire.objects.core import ConfigMap, Container, Pod, Secret, Service
from podwire.objects.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from podwire.pods import environment
from podwire.pods.desired import NodeFacts, kernel_hostname
from podwire.pods.records import Records
from podwire.pods.runs import Record

TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  (a path)
TOKEN_TYPE = "kubernetes.io/service-account-token"  # noqa: S105
TOKEN_OWNER = "kubernetes.io/service-account.uid"  # noqa: S105
_TOKEN_FILES = {"token", "ca.crt", "namespace"}
_TOKEN_WAITS_S = (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""An account that was just made gets its token a moment later: ask again for some seconds before saying that there is none."""
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"
_FILES = {"resolv.conf", "hosts", "hostname", "nsswitch.conf"}


class CannotStart(Exception):
    """A container that cannot be started now. ``reason`` is the word that its status shows."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Machine:
    """Makes programs of containers. ``services`` gives those of a namespace; ``hidden``: folders that no container sees.

    ``seen``: folders that every container sees (read-only, as everything), although they may lie below its own /tmp or /run.
    """

    def __init__(
        self,
        client: Client,
        records: Records,
        facts: NodeFacts,
        services: Callable[[str], Iterable[Service]],
        *,
        hidden: Iterable[str] = (),
        seen: Iterable[str] = (),
    ) -> None:
        self._client, self._records, self._facts, self._services = client, records, facts, services
        self._hidden = tuple(folder for folder in hidden if folder)
        self._seen = {folder: folder for folder in seen if folder.startswith(("/tmp/", "/run/"))}  # noqa: S108  (a container has its own)

    async def program(self, pod: Pod, container: Container, record: Record, namespace: int | str | None) -> Program:
        """The program of a container. Raises CannotStart."""
        variables = await self._variables(pod, container, record)
        argv = environment.command(container, variables)
        if not argv:
            raise CannotStart("CreateContainerError", "no command specified: the image podwire.dev/machine has none of its own")
        uid = pod.metadata.uid
        files = self._seen | {f"/etc/{name}": self._records.path(uid, name) for name in sorted(_FILES)}
        token = await self._token(pod)
        if token is not None:
            files[TOKEN_FOLDER] = self._records.write_files(uid, token, "serviceaccount")
        log = self._records.path(uid, f"{container.name}.log")
        hostname = kernel_hostname(pod, self._facts)
        program = Program(
            argv=tuple(argv),
            env={"HOSTNAME": hostname, "HOME": "/root", **variables},
            cwd=container.working_dir or "/",
            namespace=namespace,
            stdout=log,
            stderr=log,
            files=files,
            hidden=self._hidden,
            own_processes=True,
            hostname=hostname,
        )
        return program.contained()

    async def _variables(self, pod: Pod, container: Container, record: Record) -> dict[str, str]:
        ips = record.addresses or ((self._facts.ip,) if pod.spec.host_network else ())
        fields = {
            "status.podIP": ips[0] if ips else "",
            "status.podIPs": ",".join(ips),
            "status.hostIP": self._facts.ip,
            "status.hostIPs": self._facts.ip,
        }
        try:
            sources = await self._sources(pod, container)
            return environment.variables_of(pod, container, self._services(pod.namespace), sources, fields.get)
        except environment.Unavailable as error:
            raise CannotStart("CreateContainerConfigError", str(error)) from error
        except (ApiError, Unreachable) as error:
            raise CannotStart("CreateContainerConfigError", f"failed to read what its environment is taken from: {error}") from error

    async def _sources(self, pod: Pod, container: Container) -> environment.Sources:
        config_maps: dict[str, ConfigMap] = {}
        secrets: dict[str, Secret] = {}
        maps, kept = environment.references(container)
        for name in maps:
            try:
                config_maps[name] = await self._client.get(CONFIG_MAPS, name, pod.namespace)
            except ApiError as error:
                if not error.not_found:
                    raise
        for name in kept:
            try:
                secrets[name] = await self._client.get(SECRETS, name, pod.namespace)
            except ApiError as error:
                if not error.not_found:
                    raise
        return environment.Sources(config_maps, secrets)

    async def _token(self, pod: Pod) -> Mapping[str, bytes] | None:
        """The files that prove the Pod's ServiceAccount; None where it is not to have them."""
        if pod.spec.automount_service_account_token is False:
            return None
        name = pod.spec.service_account_name or "default"
        account = f"serviceaccount {pod.namespace}/{name}"
        missing = ""
        for wait_s in _TOKEN_WAITS_S:
            await asyncio.sleep(wait_s)
            try:
                found = await self._client.get(SERVICE_ACCOUNTS, name, pod.namespace)
                if pod.spec.automount_service_account_token is None and found.automount_service_account_token is False:
                    return None
                secret = await self._client.get(SECRETS, f"{name[:247]}-token", pod.namespace)
            except ApiError as error:
                if not error.not_found:
                    raise CannotStart("CreateContainerConfigError", f"failed to get the token of {account}: {error}") from error
                missing = error.message
            except Unreachable as error:
                missing = str(error)
            else:
                if secret.type == TOKEN_TYPE and secret.metadata.annotations.get(TOKEN_OWNER) == found.metadata.uid:
                    return {key: base64.b64decode(value) for key, value in secret.data.items() if key in _TOKEN_FILES}
                missing = f"secret {pod.namespace}/{secret.name} is not its token"
        raise CannotStart("CreateContainerConfigError", f"failed to get the token of {account}: {missing}")
