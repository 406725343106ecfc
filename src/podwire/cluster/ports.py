"""Sockets of the machine's loopback address: made here by the command line and door, handed into the lab.

Those that listen are for the API and load balancers; those that are connected are to a registry of images that the Cluster names.

Source: socket(7), proc_pid_net(5).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from podwire.cluster.problem import Problem

LOOPBACK = "127.0.0.1"
_LISTEN, _UNCONNECTED = "0A", "07"


class Refused(Problem):
    """A port that cannot be had. The text names it, who has it where that can be seen, and what to do."""


def listening(port: int, protocol: str = "tcp") -> socket.socket:
    """Give a socket of 127.0.0.1 that listens on ``port`` (0: any). Raises Refused."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    made = socket.socket(socket.AF_INET, kind)
    try:
        if protocol == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((LOOPBACK, port))
        if protocol == "tcp":
            made.listen(512)
    except OSError as error:
        made.close()
        raise Refused(_reason(port, protocol, error)) from None
    return made


def listening_or_any(port: int, protocol: str = "tcp") -> socket.socket:
    """Give a socket that listens on ``port``, or on any port where that one is taken or (below 1024) not for this user."""
    try:
        return listening(port, protocol)
    except Refused:
        return listening(0, protocol)


def connecting(registry: str) -> socket.socket:
    """Give a socket that is connected, or about to be, to ``HOST:PORT`` of the loopback interface. Never waits. Raises OSError."""
    host, _, port = registry.rpartition(":")
    refused = OSError(errno.ECONNREFUSED, f"{registry}: {os.strerror(errno.ECONNREFUSED)}")
    for address in (LOOPBACK, "::1") if host == "localhost" else (host.strip("[]"),):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        number = made.connect_ex((address, int(port)))
        if number in {0, errno.EINPROGRESS}:
            made.setblocking(True)
            return made
        made.close()
        refused = OSError(number, f"{registry}: {os.strerror(number)}")
    raise refused


def _reason(port: int, protocol: str, error: OSError) -> str:
    place = f"port {port} of {LOOPBACK} ({protocol})"
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use{_by(port, protocol)}"
    if error.errno == errno.EACCES:
        return f"{place} is refused to this user: ports below 1024 are root's"
    return f"{place}: {error.strerror}"


def _by(port: int, protocol: str) -> str:
    """Say who has the port, as far as this user may see it."""
    inodes = set(_inodes(port, protocol))
    if not inodes:
        return ""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/fd/{descriptor}") in inodes:
                        return f" by process {entry} ({_name(entry)})"
    return ""


def _inodes(port: int, protocol: str) -> list[str]:
    found: list[str] = []
    state = _LISTEN if protocol == "tcp" else _UNCONNECTED
    for family in ("", "6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{protocol}{family}", encoding="ascii") as stream:
            next(stream)
            for line in stream:
                fields = line.split()
                if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(f"socket:[{fields[9]}]")
    return found


def _name(pid: str) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
        return stream.read().strip()
