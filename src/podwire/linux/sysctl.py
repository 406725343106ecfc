"""Kernel settings of a network namespace.

A new namespace inherits most of them from wherever it was made, so every one that we rely on is written out: in ``all``, in
``default`` (what links that come later begin with) and for each link that is there. ``all`` alone is not enough: for some
the kernel takes the greater of the two, for some the sum, for some the link's own.

Keys are written as ``sysctl`` prints them, with slashes where a link's name has dots. A key that begins with "-" may be missing in
this kernel, or refused, as in a sysctl.d file; any other that is missing is an error that names it.

Sources: Documentation/networking/ip-sysctl.rst, nf_conntrack-sysctl.rst; sysctl.d(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from podwire.linux import namespaces, syscalls
from podwire.linux.errors import KernelRefused

_IPV4_LINK: Final = {
    "rp_filter": "0",  # a Pod's packets come by one link and may leave by another
    "accept_redirects": "0",
    "secure_redirects": "0",
    "send_redirects": "0",  # neighbours on one bridge talk through the node: nobody is to be sent past it
    "accept_source_route": "0",
    "accept_local": "0",
    "route_localnet": "0",
    "proxy_arp": "0",
    "arp_ignore": "0",
    "arp_announce": "0",
    "arp_filter": "0",
    "arp_accept": "0",
    "disable_xfrm": "0",
    "-forwarding": "",  # follows ip_forward
}
_IPV6_LINK: Final = {
    "-disable_ipv6": "0",
    "-accept_ra": "0",
    "-accept_redirects": "0",
    "-autoconf": "0",
    "-accept_dad": "0",  # addresses are allocated: nobody waits a second for them
    "-dad_transmits": "0",
    "-router_solicitations": "0",
    "-addr_gen_mode": "1",  # no addresses by themselves
    "-use_tempaddr": "0",
}
_NAMESPACE: Final = {
    "-net.bridge.bridge-nf-call-iptables": "0",  # packets pass the IP hooks once, when the node routes them
    "-net.bridge.bridge-nf-call-ip6tables": "0",
    "-net.bridge.bridge-nf-call-arptables": "0",
    "-net.netfilter.nf_conntrack_acct": "1",
    "-net.netfilter.nf_conntrack_timestamp": "1",
    "-net.netfilter.nf_conntrack_tcp_be_liberal": "1",  # one packet out of window must not end a translation
    "-net.ipv4.ip_nonlocal_bind": "0",
    "-net.ipv4.ip_early_demux": "1",
    "-net.ipv4.fib_multipath_hash_policy": "0",
    "-net.ipv4.icmp_echo_ignore_all": "0",
    "-net.ipv4.icmp_ratelimit": "1000",
    "-net.ipv4.ping_group_range": "0 0",
    "-net.ipv4.ip_unprivileged_port_start": "0",
    "-net.ipv4.ip_local_port_range": "32768 60999",
}


def hardened(*, forward: bool, links: tuple[str, ...] = ()) -> dict[str, str]:
    """What a namespace must not inherit. ``forward``: it is a router. ``links``: those that exist already, ``lo`` aside."""
    value = "1" if forward else "0"
    # First of all: writing ip_forward resets the links' settings to those of a router or a host.
    settings = {"net.ipv4.ip_forward": value, "-net.ipv6.conf.all.forwarding": value}
    settings |= _NAMESPACE
    for link in ("all", "default", "lo", *links):
        name = link.replace(".", "/")
        for key, default in _IPV4_LINK.items():
            mark = "-" * key.startswith("-")
            settings[f"{mark}net.ipv4.conf.{name}.{key.removeprefix('-')}"] = default or value
        for key, default in _IPV6_LINK.items():
            settings[f"-net.ipv6.conf.{name}.{key.removeprefix('-')}"] = default
    return settings


#: For a host that forwards nothing, and for a router.
HARDENED: Final[Mapping[str, str]] = hardened(forward=False)
HARDENED_ROUTER: Final[Mapping[str, str]] = hardened(forward=True)


def path(key: str) -> str:
    """Where a key is below /proc/sys: dots part, and a slash in the key is a dot in a name."""
    return key.removeprefix("-").translate(_SWAPPED)


_SWAPPED: Final = str.maketrans("./", "/.")


def write_all(settings: Mapping[str, str], namespace: int | None = None) -> None:
    """Write settings in order, in the network namespace of the descriptor or else of the calling thread.

    Raises:
        KernelRefused: naming the setting that is missing or refused; those before it are written.
        NamespaceGone: the descriptor is no network namespace.
    """
    if namespace is None:
        _write_all(settings)
    else:
        namespaces.inside(namespace, lambda: _write_all(settings))


def _write_all(settings: Mapping[str, str]) -> None:
    root = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for key, value in settings.items():
            try:
                fd = os.open(path(key), os.O_WRONLY | os.O_CLOEXEC, dir_fd=root)
                try:
                    os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except OSError as refused:
                if not key.startswith("-"):
                    raise KernelRefused(refused.errno or 0, f"sysctl -w {key}='{value}'") from None
    finally:
        os.close(root)


def settable(keys: Iterable[str]) -> frozenset[str]:
    """Which of these settings a namespace of one's own lets one write: each is written, as it was, in new ones that end at once.

    An older kernel lets an ordinary user's namespace write fewer. Raises KernelRefused: there can be no namespaces.
    """

    def action() -> frozenset[str]:
        return frozenset(filter(_is_settable, keys))

    return namespaces.in_new(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC, action)


def _is_settable(key: str) -> bool:
    try:
        fd = os.open(f"/proc/sys/{path(key)}", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, os.pread(fd, 4096, 0).strip(), 0)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def read(key: str, namespace: int | None = None) -> str | None:
    """One setting, or None where this kernel has none of the name."""

    def action() -> str | None:
        try:
            with open("/proc/sys/" + path(key)) as file:
                return file.read().strip()
        except OSError:
            return None

    return action() if namespace is None else namespaces.inside(namespace, action)
