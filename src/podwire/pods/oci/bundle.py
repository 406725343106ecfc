"""The configuration that an OCI runtime reads of one container. Pure.

The container is in its Pod's network and IPC namespaces because the runtime is; it has PID, mount and UTS namespaces of its own. There is
no user namespace below the cluster's, and there are no cgroups: an ordinary user may set none.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from podwire.objects.core import ContainerSecurityContext
from podwire.pods.oci import profile
from podwire.pods.oci.execution import Words
from podwire.pods.oci.users import Identity

Tree = dict[str, Any]

VERSION: Final = "1.0.2"
_TIGHT: Final = ["nosuid", "noexec", "nodev"]
_MOUNTS: Final[list[Tree]] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": _TIGHT},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _TIGHT},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_TIGHT, "ro"]},
]


def configuration(
    words: Words,
    user: Identity,
    *,
    files: Mapping[str, str],
    folders: Mapping[str, str],
    hostname: str,
    context: ContainerSecurityContext,
    processes: str = "",
    withheld: Collection[str] = (),
    confined: bool = True,
    terminal: bool = False,
) -> Tree:
    """The configuration. ``files`` and ``folders``: path in the container to what is shown there, read-only and writable.

    ``hostname`` "": that of the runtime. ``processes``: the path of a PID namespace that is not the container's own. ``withheld``:
    capabilities that it never has. ``confined``: system calls are filtered. ``terminal``: it has a terminal, which the runtime makes.
    """
    held = profile.capabilities(context, withheld)
    names = [f"CAP_{name}" for name in held]
    own = [{"type": kind} for kind in ("mount", *(["uts"] if hostname else []))]
    privileged = bool(context.privileged)
    linux: Tree = {"namespaces": [*own, {"type": "pid", **({"path": processes} if processes else {})}]}
    if not privileged:
        linux |= {"maskedPaths": list(profile.MASKED), "readonlyPaths": list(profile.READ_ONLY)}
    if confined and not privileged:
        linux["seccomp"] = profile.seccomp(held)
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": terminal,
            "user": {"uid": user.user, "gid": user.group, "additionalGids": list(user.groups), "umask": 0o022},
            "args": list(words.argv),
            "env": [f"{name}={value}" for name, value in words.env.items()],
            "cwd": words.cwd,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
            "noNewPrivileges": context.allow_privilege_escalation is False,
        },
        "root": {"path": "root", "readonly": bool(context.read_only_root_filesystem)},
        **({"hostname": hostname} if hostname else {}),
        "mounts": [*(_writable(one) if privileged else one for one in _MOUNTS), *_shown(files, folders)],
        "linux": linux,
    }


def _writable(mount: Tree) -> Tree:
    return {**mount, "options": [one for one in mount["options"] if one != "ro"]}


def _shown(files: Mapping[str, str], folders: Mapping[str, str]) -> list[Tree]:
    """What lies below another comes after it."""
    shown = [(path, source, ["ro"]) for path, source in files.items()] + [(path, source, ["rw"]) for path, source in folders.items()]
    shown.sort(key=lambda one: one[0].rstrip("/").count("/"))
    flags = ["rbind", "rprivate", "nosuid", "nodev"]
    return [{"destination": path, "type": "bind", "source": source, "options": [*flags, *mode]} for path, source, mode in shown]
