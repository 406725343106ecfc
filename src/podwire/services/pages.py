"""The pages of a service proxy: is it up to date, may load balancers send here, what does it measure.

What belongs here: the answers as pure functions, and a listener that gives them. What must not: deciding which pages there are
(beside.py).

Three kinds of page. ``/healthz`` and ``/livez`` (port 10256) are asked by load balancers and kubelets: 503 when changes have waited too
long to be programmed, ``/healthz`` also when the node is going away. A Service's health check port is asked by its load balancer under
``externalTrafficPolicy: Local``: 200 when a ready endpoint is on this node. ``/metrics`` (port 10249) is for Prometheus.

They are the node's pages: they listen in the node's network namespace, on its addresses.

Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-proxy/ (--healthz-bind-address, --metrics-bind-address)
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from podwire.linux import namespaces

_READ_S = 5.0
EVERY_ADDRESS = {4: "0.0.0.0", 6: "::"}  # noqa: S104  (of the node: that is what a load balancer asks)
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
_WORDS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
_TAINT = "ToBeDeletedByClusterAutoscaler"


class Answer(NamedTuple):
    status: int
    body: str
    type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


Answerer = Callable[[str], Answer]  # from the path


def nothing_here(pages: str) -> Answer:
    return Answer(404, f"there is {pages}\n")


def state(*, healthy: bool, updated: datetime, now: datetime, eligible: bool | None) -> Answer:
    """``/healthz`` and ``/livez``: ``eligible`` is None where the node's own fate does not matter."""
    body = f'{{"lastUpdated": "{_time(updated)}","currentTime": "{_time(now)}"'
    body += "}" if eligible is None else f', "nodeEligible": {str(eligible).lower()}}}'
    return Answer(200 if healthy and eligible is not False else 503, body, JSON, (("X-Content-Type-Options", "nosniff"),))


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f %z UTC")


def service_check(key: str, local_endpoints: int, *, healthy: bool) -> Answer:
    """A Service's health check."""
    namespace, _, name = key.partition("/")
    body = (
        f'{{\n\t"service": {{\n\t\t"namespace": "{namespace}",\n\t\t"name": "{name}"\n\t}},\n'
        f'\t"localEndpoints": {local_endpoints},\n\t"serviceProxyHealthy": {str(healthy).lower()}\n}}'
    )
    headers = (("X-Content-Type-Options", "nosniff"), ("X-Load-Balancing-Endpoint-Weight", str(local_endpoints)))
    return Answer(200 if healthy and local_endpoints else 503, body, JSON, headers)


def going_away(deletion: str | None, taints: tuple[str, ...]) -> bool:
    """Say whether load balancers should leave a node alone: it is being deleted, or the autoscaler is about to."""
    return deletion is not None or _TAINT in taints


def listening_at(address: str, port: int, namespace: int | None = None) -> list[socket.socket]:
    """Open what listens at an address. The unspecified one, of either family, is every address of both, as with kube-proxy.

    Raises OSError.
    """
    if not ipaddress.ip_address(address).is_unspecified:
        return [listening(address, port, namespace)]
    found = [listening(EVERY_ADDRESS[4], port, namespace)]
    try:
        return [*found, listening(EVERY_ADDRESS[6], port, namespace)]
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # a kernel without IPv6
            return found
        found[0].close()
        raise


def listening_on(addresses: Iterable[str], port: int, namespace: int | None = None) -> list[socket.socket]:
    """Open what listens at each of the addresses, or at none of them. Raises OSError."""
    with contextlib.ExitStack() as opened:
        found = [opened.enter_context(listening(address, port, namespace)) for address in addresses]
        opened.pop_all()
    return found


def listening(address: str, port: int, namespace: int | None = None) -> socket.socket:
    """Open a listening socket in a namespace. An IPv6 address is that alone. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    one = socket.socket(family, kind) if namespace is None else namespaces.socket_inside(namespace, family, kind)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        one.listen(128)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    return one


async def serve(sockets: list[socket.socket], answer: Answerer) -> list[asyncio.Server]:
    """Answer on listening sockets, which become the servers' own: GET and HEAD, one request a connection."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),  # also when the agent ends meanwhile
            contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError),
        ):
            async with asyncio.timeout(_READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, answer))
                await writer.drain()

    return [await asyncio.start_server(client, sock=one, limit=16384) for one in sockets]


def _response(head: bytes, answer: Answerer) -> bytes:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    method, path = (words[0], words[1].split("?")[0]) if len(words) == 3 else ("", "")
    found = answer(path) if method in ("GET", "HEAD") else Answer(405, "only GET and HEAD\n")
    body = found.body.encode()
    lines = [f"HTTP/1.1 {found.status} {_WORDS[found.status]}", f"Content-Type: {found.type}", f"Content-Length: {len(body)}"]
    lines += [*(f"{name}: {value}" for name, value in found.headers), "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + (b"" if method == "HEAD" else body)
