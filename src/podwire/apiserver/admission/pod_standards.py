"""The Pod Security Standards: what a Pod must not have at each level, and since which version of Kubernetes. Pure.

A check looks at a Pod's metadata and spec and gives what is wrong, in upstream's words; None when nothing is. A level is a list of checks,
which a newer version may have replaced: who names a version in a label is judged as that version judged.

Here: the checks and the levels. Not here: which namespace is held to which (``pod_security.py``).

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

Tree = Mapping[str, Any]

PRIVILEGED, BASELINE, RESTRICTED = "privileged", "baseline", "restricted"
NEWEST = 37
"""The minor version whose checks are the latest."""


class Wrong(NamedTuple):
    """What is wrong with a Pod, in short and in detail."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})"


Check = Callable[[Tree, Tree], Wrong | None]  # of metadata and spec


# Words -------------------------------------------------------------------------------------------------------------------------


def _quoted(names: Collection[str]) -> str:
    return '"' + '", "'.join(names) + '"'


def _plural(word: str, found: Collection[str]) -> str:
    return word if len(found) == 1 else f"{word}s"


def _containers_named(names: Collection[str]) -> str:
    return f"{_plural('container', names)} {_quoted(names)}"


def _setters(pod: bool, containers: Collection[str]) -> str:
    """Name who says something: ``pod and containers "a", "b"``; empty when nobody does."""
    return " and ".join(["pod"] * pod + ([_containers_named(containers)] if containers else []))


def _printed(key: str, value: str) -> str:
    return f"{key}={orjson.dumps(value).decode()}"


# Parts of a Pod ------------------------------------------------------------------------------------------------------------------


def _containers(spec: Tree) -> Iterator[Tree]:
    for part in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(part) or ()


def _context(owner: Tree) -> Tree:
    """Give the security context of a Pod or of a container."""
    found: Tree = owner.get("securityContext") or {}
    return found


def _contexts(spec: Tree) -> Iterator[tuple[str, Tree]]:
    """Give the names and the security contexts of all containers."""
    for container in _containers(spec):
        yield container["name"], _context(container)


def _type_of(context: Tree, profile: str) -> str | None:
    """Give the type of a profile, None where there is no such profile."""
    found = context.get(profile)
    return None if found is None else found.get("type", "")


def _is_in_user_namespace(spec: Tree) -> bool:
    return spec.get("hostUsers") is False


def _on_linux(check: Check) -> Check:
    """Let Pods for Windows be: they cannot set what the check asks for."""

    def checked(metadata: Tree, spec: Tree) -> Wrong | None:
        return None if (spec.get("os") or {}).get("name") == "windows" else check(metadata, spec)

    return checked


def _without_user_namespace(check: Check) -> Check:
    """Let Pods in a user namespace of their own be: root there is nobody outside."""

    def checked(metadata: Tree, spec: Tree) -> Wrong | None:
        return None if _is_in_user_namespace(spec) else check(metadata, spec)

    return checked


# Baseline ------------------------------------------------------------------------------------------------------------------------

_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_APP_ARMOR_TYPES = ("RuntimeDefault", "Localhost")
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_SECCOMP_TYPES = ("RuntimeDefault", "Localhost")
_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
_SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
)
_SYSCTLS_27 = (*_SYSCTLS, "net.ipv4.ip_local_reserved_ports")
_SYSCTLS_29 = (
    *_SYSCTLS_27,
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
)
_SYSCTLS_32 = (*_SYSCTLS_29, "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")
_SYSCTLS_37 = (*_SYSCTLS_32, "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat")


def _app_armor(metadata: Tree, spec: Tree) -> Wrong | None:
    own = _type_of(_context(spec), "appArmorProfile")
    is_pod = own is not None and own not in _APP_ARMOR_TYPES
    found = {name: kind for name, kind in _types(spec, "appArmorProfile") if kind not in _APP_ARMOR_TYPES}
    values = sorted({*found.values(), *([own] if is_pod and own is not None else [])})
    annotations = sorted(
        _printed(key, value)
        for key, value in (metadata.get("annotations") or {}).items()
        if key.startswith(_APP_ARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    )
    setters = [word for word in (_setters(is_pod, found), annotations and _plural("annotation", annotations)) if word]
    if not setters:
        return None
    values += annotations
    detail = f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(values)}"
    return Wrong(_plural("forbidden AppArmor profile", values), detail)


def _types(spec: Tree, profile: str) -> Iterator[tuple[str, str]]:
    """Give the containers that have a profile of their own, with its type."""
    for name, context in _contexts(spec):
        kind = _type_of(context, profile)
        if kind is not None:
            yield name, kind


def _capabilities(_metadata: Tree, spec: Tree) -> Wrong | None:
    found = {name: more for name, context in _contexts(spec) if (more := _added(context, _CAPABILITIES))}
    return Wrong("non-default capabilities", _must_not_add(found)) if found else None


def _added(context: Tree, allowed: Collection[str]) -> list[str]:
    """Give the capabilities that a container asks for beyond those that it may have."""
    return [one for one in (context.get("capabilities") or {}).get("add") or () if one not in allowed]


def _must_not_add(found: Mapping[str, Sequence[str]]) -> str:
    more = sorted({one for added in found.values() for one in added})
    return f"{_containers_named(found)} must not include {_quoted(more)} in securityContext.capabilities.add"


def _host_namespaces(_metadata: Tree, spec: Tree) -> Wrong | None:
    found = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return Wrong("host namespaces", ", ".join(found)) if found else None


def _host_paths(_metadata: Tree, spec: Tree) -> Wrong | None:
    found = [volume["name"] for volume in spec.get("volumes") or () if volume.get("hostPath") is not None]
    return Wrong("hostPath volumes", f"{_plural('volume', found)} {_quoted(found)}") if found else None


def _host_ports(_metadata: Tree, spec: Tree) -> Wrong | None:
    found = {
        container["name"]: ports
        for container in _containers(spec)
        if (ports := {str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")})
    }
    if not found:
        return None
    every = sorted(set().union(*found.values()))
    return Wrong("hostPort", f"{_containers_named(found)} {_uses(found)} {_plural('hostPort', every)} {', '.join(every)}")


def _uses(who: Collection[str]) -> str:
    return "uses" if len(who) == 1 else "use"


def _hosts(_metadata: Tree, spec: Tree) -> Wrong | None:
    """A probe or a hook that names a host makes the kubelet speak to whom it says."""
    found: dict[str, set[str]] = {}
    for container in _containers(spec):
        actions = [container.get(probe) for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
        actions += [(container.get("lifecycle") or {}).get(hook) for hook in ("postStart", "preStop")]
        named = {(action.get(way) or {}).get("host", "") for action in actions if action for way in ("httpGet", "tcpSocket")} - {""}
        if named:
            found[container["name"]] = named
    if not found:
        return None
    every = sorted(set().union(*found.values()))
    word = "probe or lifecycle host"
    return Wrong(word, f"{_containers_named(sorted(found))} {_uses(found)} {_plural(word, every)} {_quoted(every)}")


def _privileged(_metadata: Tree, spec: Tree) -> Wrong | None:
    found = [name for name, context in _contexts(spec) if context.get("privileged")]
    return Wrong("privileged", f"{_containers_named(found)} must not set securityContext.privileged=true") if found else None


def _proc_mount(_metadata: Tree, spec: Tree) -> Wrong | None:
    found = {name: mount for name, context in _contexts(spec) if (mount := context.get("procMount")) not in (None, "Default")}
    if not found:
        return None
    kinds = _quoted(sorted(set(found.values())))
    return Wrong("procMount", f"{_containers_named(found)} must not set securityContext.procMount to {kinds}")


def _selinux(allowed: Collection[str]) -> Check:
    def checked(_metadata: Tree, spec: Tree) -> Wrong | None:
        own = _selinux_faults(_context(spec), allowed)
        found = {name: faults for name, context in _contexts(spec) if (faults := _selinux_faults(context, allowed))}
        if not own and not found:
            return None
        every = own.union(*found.values())
        kinds = sorted(value for field, value in every if field == "type")
        data = [f"{_plural('type', kinds)} {_quoted(kinds)}"] if kinds else []
        data += [f"{field} may not be set" for field in ("user", "role") if any(field == one for one, _ in every)]
        return Wrong("seLinuxOptions", f"{_setters(bool(own), found)} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}")

    return checked


def _selinux_faults(context: Tree, allowed: Collection[str]) -> set[tuple[str, str]]:
    """Give the fields of SELinux options that must not be as they are, with what they say."""
    options = context.get("seLinuxOptions") or {}
    said = {(field, options.get(field) or "") for field in ("type", "user", "role")}
    return {(field, value) for field, value in said if value and (field != "type" or value not in allowed)}


def _seccomp_annotations(metadata: Tree, spec: Tree) -> Wrong | None:
    """How it was said before there were fields."""
    annotations = metadata.get("annotations") or {}
    keys = {_SECCOMP_POD, *(_SECCOMP_CONTAINER + container["name"] for container in _containers(spec))}
    found = sorted(
        _printed(key, annotations[key])
        for key in keys & annotations.keys()
        if annotations[key] not in ("runtime/default", "docker/default") and not annotations[key].startswith("localhost/")
    )
    return Wrong("seccompProfile", f"forbidden {_plural('annotation', found)} {', '.join(found)}") if found else None


def _seccomp(_metadata: Tree, spec: Tree) -> Wrong | None:
    own = _type_of(_context(spec), "seccompProfile")
    is_pod = own is not None and own not in _SECCOMP_TYPES
    found = {name: kind for name, kind in _types(spec, "seccompProfile") if kind not in _SECCOMP_TYPES}
    if not is_pod and not found:
        return None
    values = sorted({*found.values(), *([own] if is_pod and own is not None else [])})
    return Wrong("seccompProfile", f"{_setters(is_pod, found)} must not set securityContext.seccompProfile.type to {_quoted(values)}")


def _sysctls(allowed: Collection[str]) -> Check:
    def checked(_metadata: Tree, spec: Tree) -> Wrong | None:
        found = [one["name"] for one in _context(spec).get("sysctls") or () if one["name"] not in allowed]
        return Wrong("forbidden sysctls", ", ".join(found)) if found else None

    return checked


def _host_process(_metadata: Tree, spec: Tree) -> Wrong | None:
    is_pod = _is_host_process(_context(spec))
    found = [name for name, context in _contexts(spec) if _is_host_process(context)]
    if not is_pod and not found:
        return None
    return Wrong("hostProcess", f"{_setters(is_pod, found)} must not set securityContext.windowsOptions.hostProcess=true")


def _is_host_process(context: Tree) -> bool:
    return bool((context.get("windowsOptions") or {}).get("hostProcess"))


# Restricted ----------------------------------------------------------------------------------------------------------------------

_VOLUMES = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret")
_OTHER_VOLUMES = (
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
)


def _escalation(_metadata: Tree, spec: Tree) -> Wrong | None:
    found = [name for name, context in _contexts(spec) if context.get("allowPrivilegeEscalation") is not False]
    if not found:
        return None
    detail = f"{_containers_named(found)} must set securityContext.allowPrivilegeEscalation=false"
    return Wrong("allowPrivilegeEscalation != false", detail)


def _dropped_capabilities(_metadata: Tree, spec: Tree) -> Wrong | None:
    keep = [name for name, context in _contexts(spec) if "ALL" not in ((context.get("capabilities") or {}).get("drop") or ())]
    add = {name: more for name, context in _contexts(spec) if (more := _added(context, ("NET_BIND_SERVICE",)))}
    details = [f'{_containers_named(keep)} must set securityContext.capabilities.drop=["ALL"]'] if keep else []
    details += [_must_not_add(add)] if add else []
    return Wrong("unrestricted capabilities", "; ".join(details)) if details else None


def _volumes(_metadata: Tree, spec: Tree) -> Wrong | None:
    found = {
        volume["name"]: next((kind for kind in _OTHER_VOLUMES if volume.get(kind) is not None), "unknown")
        for volume in spec.get("volumes") or ()
        if all(volume.get(kind) is None for kind in _VOLUMES)
    }
    if not found:
        return None
    kinds = sorted(set(found.values()))
    who = f"{_plural('volume', found)} {_quoted(found)}"
    return Wrong("restricted volume types", f"{who} {_uses(found)} {_plural('restricted volume type', kinds)} {_quoted(kinds)}")


def _non_root(_metadata: Tree, spec: Tree) -> Wrong | None:
    reason = "runAsNonRoot != true"
    own = _context(spec).get("runAsNonRoot")
    said = {name: context.get("runAsNonRoot") for name, context in _contexts(spec)}
    against = [name for name, value in said.items() if value is False]
    if own is False or against:
        return Wrong(reason, f"{_setters(own is False, against)} must not set securityContext.runAsNonRoot=false")
    silent = [] if own else [name for name, value in said.items() if value is None]
    return Wrong(reason, f"pod or {_containers_named(silent)} must set securityContext.runAsNonRoot=true") if silent else None


def _user(_metadata: Tree, spec: Tree) -> Wrong | None:
    is_pod = _context(spec).get("runAsUser") == 0
    found = [name for name, context in _contexts(spec) if context.get("runAsUser") == 0]
    return Wrong("runAsUser=0", f"{_setters(is_pod, found)} must not set runAsUser=0") if is_pod or found else None


def _some_seccomp(metadata: Tree, spec: Tree) -> Wrong | None:
    wrong = _seccomp(metadata, spec)
    if wrong is not None or _type_of(_context(spec), "seccompProfile") is not None:
        return wrong
    silent = [name for name, context in _contexts(spec) if _type_of(context, "seccompProfile") is None]
    if not silent:
        return None
    detail = f'pod or {_containers_named(silent)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Wrong("seccompProfile", detail)


# Levels --------------------------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A check under its name, in the forms that it has had since minor versions. A restricted one may stand for a baseline one."""

    name: str
    since: tuple[tuple[int, Check], ...]
    replaces: str = ""

    def at(self, minor: int) -> Check | None:
        """Give the form that is in force in a version, None before the first."""
        return next((check for least, check in reversed(self.since) if least <= minor), None)


# In the order in which what is wrong is told.
_BASELINE = (
    Row("appArmorProfile", ((0, _app_armor),)),
    Row("capabilities_baseline", ((0, _capabilities),)),
    Row("hostNamespaces", ((0, _host_namespaces),)),
    Row("hostPathVolumes", ((0, _host_paths),)),
    Row("hostPorts", ((0, _host_ports),)),
    Row("hostProbesAndHostLifecycle", ((34, _hosts),)),
    Row("privileged", ((0, _privileged),)),
    Row("procMount", ((0, _proc_mount), (35, _without_user_namespace(_proc_mount)))),
    Row("seLinuxOptions", ((0, _selinux(_SELINUX_TYPES)), (31, _selinux(_SELINUX_TYPES | {"container_engine_t"})))),
    Row("seccompProfile_baseline", ((0, _seccomp_annotations), (19, _seccomp))),
    Row(
        "sysctls",
        (
            (0, _sysctls(_SYSCTLS)),
            (27, _sysctls(_SYSCTLS_27)),
            (29, _sysctls(_SYSCTLS_29)),
            (32, _sysctls(_SYSCTLS_32)),
            (NEWEST, _sysctls(_SYSCTLS_37)),
        ),
    ),
    Row("windowsHostProcess", ((0, _host_process),)),
)
_RESTRICTED = (
    Row("allowPrivilegeEscalation", ((8, _escalation), (25, _on_linux(_escalation)))),
    Row(
        "capabilities_restricted",
        ((22, _dropped_capabilities), (25, _on_linux(_dropped_capabilities))),
        replaces="capabilities_baseline",
    ),
    Row("procMount_restricted", ((35, _proc_mount),), replaces="procMount"),
    Row("restrictedVolumes", ((0, _volumes),), replaces="hostPathVolumes"),
    Row("runAsNonRoot", ((0, _non_root), (35, _without_user_namespace(_non_root)))),
    Row("runAsUser", ((23, _user), (35, _without_user_namespace(_user)))),
    Row("seccompProfile_restricted", ((19, _some_seccomp), (25, _on_linux(_some_seccomp))), replaces="seccompProfile_baseline"),
)


@functools.cache
def _checks(level: str, minor: int) -> tuple[Check, ...]:
    if level == PRIVILEGED:
        return ()
    above = [row for row in _RESTRICTED if level == RESTRICTED and row.at(minor) is not None]
    replaced = {row.replaces for row in above}
    rows = [row for row in (*_BASELINE, *above) if row.name not in replaced]
    return tuple(check for row in rows if (check := row.at(minor)) is not None)


def faults(level: str, minor: int, metadata: Tree, spec: Tree) -> list[Wrong]:
    """Give what a level, as it is in a minor version, has against a Pod."""
    found = (check(metadata, spec) for check in _checks(level, min(minor, NEWEST)))
    return [wrong for wrong in found if wrong is not None]
