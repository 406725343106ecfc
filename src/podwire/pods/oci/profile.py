"""What a container may do: capabilities, system calls, and what it sees of /proc and /sys. Pure.

The sets are containerd's defaults as Kubernetes uses them. Of system calls are refused those that Docker's documentation names as
refused by the default profile; a container whose ``seccompProfile`` is Unconfined, or which is privileged, may call all.

Sources: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/, https://docs.docker.com/engine/security/seccomp/,
include/uapi/linux/capability.h
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from typing import Any, Final

from podwire.objects.core import Container, ContainerSecurityContext, Pod
from podwire.pods.admission import CannotStart
from podwire.pods.desired import Player, player

Tree = dict[str, Any]

DEFAULT_CAPABILITIES: Final = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT",
    "MKNOD", "AUDIT_WRITE", "SETFCAP",
)  # fmt: skip
_NUMBERS: Final = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
    "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND",
    "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
"""By their numbers."""
ALL_CAPABILITIES: Final = (*DEFAULT_CAPABILITIES, *(name for name in _NUMBERS if name not in DEFAULT_CAPABILITIES))
_REFUSED_CALLS: Final = (
    "_sysctl", "acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module", "finit_module",
    "get_kernel_syms", "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount",
    "nfsservctl", "open_by_handle_at", "perf_event_open", "pivot_root", "query_module", "quotactl", "reboot", "request_key", "setns",
    "settimeofday", "swapoff", "swapon", "sysfs", "umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
)  # fmt: skip
_CALLS_OF: Final = {
    "SYS_ADMIN": {"bpf", "lookup_dcookie", "mount", "perf_event_open", "quotactl", "setns", "umount", "umount2", "unshare"},
    "SYS_BOOT": {"reboot"},
    "SYS_MODULE": {"delete_module", "finit_module", "init_module"},
    "SYS_PACCT": {"acct"},
    "SYS_PTRACE": {"kcmp"},
    "SYS_RAWIO": {"ioperm", "iopl"},
    "SYS_TIME": {"clock_adjtime", "clock_settime", "settimeofday"},
    "BPF": {"bpf"},
    "PERFMON": {"perf_event_open"},
    "DAC_READ_SEARCH": {"open_by_handle_at"},
}
"""Calls that come with a capability."""
MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
    "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
)  # fmt: skip
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def capabilities(context: ContainerSecurityContext, withheld: Collection[str] = ()) -> tuple[str, ...]:
    """The names of a container's capabilities, in the order of the kernel's table as far as they are the default ones."""
    return tuple(name for name in _asked_for(context) if name not in withheld)


def withheld(pod: Pod, container: Container) -> frozenset[str]:
    """What a container may not have, privileged or not, because of the processes that it sees.

    Programs of the machine have the machine's files for their root, read-only; who may enter their mount namespace and mount
    (SYS_ADMIN) could write to them. The node's first process and its like have all capabilities and no such bounds; they are open to
    who has as many, or may trace (SYS_PTRACE).
    """
    if pod.spec.host_pid:
        return frozenset({"SYS_ADMIN", "SYS_PTRACE"})
    seen = pod.spec.share_process_namespace or container.target_container_name
    machine = any(
        player(one) is Player.MACHINE for one in (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers)
    )
    return frozenset({"SYS_ADMIN"}) if seen and machine else frozenset()


def _asked_for(context: ContainerSecurityContext) -> tuple[str, ...]:
    if context.privileged:
        return ALL_CAPABILITIES
    wanted = list(DEFAULT_CAPABILITIES)
    if context.capabilities is not None:
        drop, add = set(_plain(context.capabilities.drop)), list(_plain(context.capabilities.add))
        wanted = [] if "ALL" in drop else [one for one in wanted if one not in drop]
        added = ALL_CAPABILITIES if "ALL" in add else [one for one in add if one in ALL_CAPABILITIES]
        wanted += [one for one in added if one not in wanted and one not in drop]
    return tuple(wanted)


def numbers(names: Iterable[str]) -> tuple[int, ...]:
    """Capabilities as the kernel numbers them: what a command that joins the container is given."""
    return tuple(sorted(map(_NUMBERS.index, names)))


def _plain(names: Iterable[str]) -> Iterable[str]:
    return (name.upper().removeprefix("CAP_") for name in names)


def is_confined(pod: Pod, container: Container) -> bool:
    """Whether a container's system calls are filtered. Raises CannotStart for a profile of the node's own: there are none."""
    contexts = [one for one in (container.security_context, pod.spec.security_context) if one is not None]
    chosen = next((one.seccomp_profile for one in contexts if one.seccomp_profile is not None), None)
    if chosen is not None and chosen.type == "Localhost":
        path = f"/var/lib/kubelet/seccomp/{chosen.localhost_profile}"
        words = f'failed to generate seccomp spec opts: cannot load seccomp profile "{path}": no such file or directory'
        raise CannotStart("CreateContainerError", words)
    return chosen is None or chosen.type != "Unconfined"


def seccomp(held: Iterable[str]) -> Tree:
    """The filter of system calls of a container with these capabilities, as the runtime reads it."""
    granted = {call for name in held for call in _CALLS_OF.get(name, ())}
    names = [call for call in _REFUSED_CALLS if call not in granted]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}],
    }
