"""What a node refuses of a Pod that was bound to it, and what of a container that it would have to run untruly. Pure.

Sources: https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/,
https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from podwire.objects.core import Container, Pod

SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
"""What a Pod may set: namespaced, and without effect on other Pods."""


@dataclass(frozen=True)
class Refusal:
    """Why a Pod is not run at all. ``reason`` is the word that its status shows."""

    reason: str
    message: str


class CannotStart(Exception):
    """A container that cannot be started now. ``reason`` is the word that its status shows."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


STAND_IN = "images.podwire.dev/stand-in"
"""The annotation that lets stand-ins play containers whose pull policy is Never and whose image is not there."""


def containers(pod: Pod) -> tuple[Container, ...]:
    """All containers of a Pod, of whatever kind."""
    return (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers)


def must_have_image(pod: Pod) -> set[str]:
    """The names of the containers that no stand-in may play: their pull policy is Never, and the Pod does not allow it."""
    if pod.metadata.annotations.get(STAND_IN) == "true":
        return set()
    return {one.name for one in containers(pod) if one.image_pull_policy == "Never"}


def sysctls(pod: Pod) -> dict[str, str]:
    """The kernel's settings that the Pod asks for, by dotted name."""
    context = pod.spec.security_context
    return {one.name.replace("/", "."): one.value for one in context.sysctls} if context is not None else {}


def ipc_sysctls(pod: Pod) -> dict[str, str]:
    """Those of them that belong to the Pod's IPC namespace."""
    return {name: value for name, value in sysctls(pod).items() if not name.startswith("net.")}


def refusal(pod: Pod, settable: Collection[str] = SAFE_SYSCTLS, programs: Collection[str] = ()) -> Refusal | None:
    """Why the node refuses the Pod; None: it does not. ``settable``: what this machine's kernel lets a Pod set of the safe ones.

    ``programs``: its containers that no stand-in plays.
    """
    if any(_wants_apparmor(pod, one) for one in containers(pod) if one.name in programs):
        return Refusal("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
    for name in sysctls(pod):
        if name not in SAFE_SYSCTLS or name not in settable:
            return Refusal("SysctlForbidden", f'forbidden sysctl: "{name}" not allowlisted')
        if pod.spec.host_network and name.startswith("net."):
            return Refusal("SysctlForbidden", f'forbidden sysctl: "{name}" not allowed with host net enabled')
        if pod.spec.host_ipc and not name.startswith("net."):
            return Refusal("SysctlForbidden", f'forbidden sysctl: "{name}" not allowed with host ipc enabled')
    return None


def _wants_apparmor(pod: Pod, container: Container) -> bool:
    """Whether a container asks for a profile of AppArmor, which no program here is put under."""
    old = pod.metadata.annotations.get(f"container.apparmor.security.beta.kubernetes.io/{container.name}", "")
    profiles = (one.app_armor_profile for one in (container.security_context, pod.spec.security_context) if one is not None)
    chosen = next((one.type for one in profiles if one is not None), old)
    return chosen not in {"", "Unconfined", "unconfined"}


def machine_user(pod: Pod, container: Container, users: int, groups: int) -> tuple[int, ...]:
    """Who a program of the machine is, where there are so many users and groups from 0 on: user, group, and its further groups.

    Raises CannotStart.
    """
    where = f'(pod: "{pod.name}_{pod.namespace}({pod.metadata.uid})", container: {container.name})'
    contexts = [context for context in (container.security_context, pod.spec.security_context) if context is not None]
    user = next((context.run_as_user for context in contexts if context.run_as_user is not None), None)
    group = next((context.run_as_group for context in contexts if context.run_as_group is not None), None)
    for field, value, count in (("runAsUser", user, users), ("runAsGroup", group, groups)):
        if value is not None and value >= count:
            there = "user 0 and group 0 of the cluster alone" if count == 1 else f"one of the cluster's first {count}"
            words = f"a program of the machine runs as {there}: {field} {value} cannot be had {where}"
            raise CannotStart("CreateContainerConfigError", words)
    if not user and next((context.run_as_non_root for context in contexts if context.run_as_non_root is not None), False):
        words = "container's runAsUser breaks non-root policy" if user == 0 else "container has runAsNonRoot and image will run as root"
        raise CannotStart("CreateContainerConfigError", f"{words} {where}")
    if groups == 1:
        return ()  # as its starter: there is nobody else
    context = pod.spec.security_context
    further = () if context is None else (*([] if context.fs_group is None else [context.fs_group]), *context.supplemental_groups)
    return user or 0, group or 0, *dict.fromkeys((group or 0, *(one for one in further if one < groups)))
