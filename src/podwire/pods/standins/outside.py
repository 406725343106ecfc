"""A Pod's way out: names resolved by its own resolv.conf and hosts, connections made in its own network namespace.

Here: the few calls that parts make of others (agnhost's ``/dial``). Not here: what for. The process's own resolver is never asked: it
would answer from the machine.

Sources: https://man7.org/linux/man-pages/man5/resolv.conf.5.html, https://man7.org/linux/man-pages/man5/hosts.5.html
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from podwire.linux import namespaces
from podwire.pods.standins.messages import Role
from podwire.wire import dns

_DNS_PORT, _DNS_TIMEOUT_S, _DNS_ATTEMPTS = 53, 5.0, 2
_LARGEST = 1 << 20
"""Bytes of an HTTP answer that are read."""


class Unresolved(OSError):
    """A name that has no address; the text says which."""


@dataclass(frozen=True)
class Resolver:
    """What the two files say."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    names: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, resolv_conf: str, hosts: str) -> Resolver:
        servers: list[str] = []
        search: tuple[str, ...] = ()
        ndots = 1
        for line in resolv_conf.splitlines():
            match line.split():
                case ["nameserver", server, *_]:
                    servers.append(server)
                case ["search", *domains]:
                    search = tuple(domains)
                case ["options", *options]:
                    found = [option.removeprefix("ndots:") for option in options if option.startswith("ndots:")]
                    ndots = int(found[-1]) if found and found[-1].isdecimal() else ndots
        names = []
        for line in hosts.splitlines():
            words = line.partition("#")[0].split()
            names += [(name.lower(), words[0]) for name in words[1:]]
        return cls(tuple(servers), search, ndots, tuple(names))

    def candidates(self, name: str) -> list[str]:
        """The full names to ask for, in this order."""
        if name.endswith("."):
            return [name]
        searched = [f"{name}.{domain}." for domain in self.search]
        return [f"{name}.", *searched] if name.count(".") >= self.ndots else [*searched, f"{name}."]


class Outside:
    """``namespace`` is a descriptor of its own. ``close`` gives it back."""

    def __init__(self, role: Role, namespace: int) -> None:
        self._namespace = os.dup(namespace)
        self._resolver = Resolver.of(role.resolv_conf, role.hosts)
        self._connections = asyncio.Semaphore(64)

    def close(self) -> None:
        os.close(self._namespace)

    def _socket(self, address: str, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = namespaces.socket_inside(self._namespace, family, kind)
        made.setblocking(False)
        return made

    async def resolve(self, host: str) -> str:
        """The first address of a name, or the address itself. Raises Unresolved."""
        try:
            return str(ip_address(host.strip("[]")))
        except ValueError:
            pass
        for name, address in self._resolver.names:
            if name == host.lower():
                return address
        for candidate in self._resolver.candidates(host):
            for kind in (dns.A, dns.AAAA):
                if address := await self._look_up(candidate, kind):
                    return address
        raise Unresolved(f"lookup {host}: no such host")

    async def _look_up(self, name: str, kind: int) -> str:
        try:
            question = dns.Question(dns.name(name), kind)
        except ValueError as error:
            raise Unresolved(f"lookup {name}: {error}") from error
        for server in self._resolver.servers * _DNS_ATTEMPTS:
            message = dns.Message(id=secrets.randbelow(1 << 16), flags=dns.RD, questions=(question,))
            try:
                answer = dns.decode(await self.ask(server, _DNS_PORT, message.encode(), _DNS_TIMEOUT_S))
            except (OSError, dns.Malformed):
                continue
            if answer.id != message.id:
                continue
            if answer.rcode not in {dns.NOERROR, dns.NXDOMAIN}:
                continue
            found = [record.data for record in answer.answers if record.type == kind]
            return str(ip_address(found[0])) if found else ""
        raise Unresolved(f"lookup {name.rstrip('.')}: no name server answered")

    async def ask(self, host: str, port: int, said: bytes, timeout_s: float) -> bytes:
        """Send a datagram and give the answer. Raises OSError, which TimeoutError is."""
        address = await self.resolve(host)
        loop = asyncio.get_running_loop()
        async with self._connections:
            with self._socket(address, socket.SOCK_DGRAM) as made:
                made.connect((address, port))  # no packet: it takes the route, and hears of refusals
                async with asyncio.timeout(timeout_s):
                    await loop.sock_sendall(made, said)
                    return await loop.sock_recv(made, 65536)

    async def connect(self, host: str, port: int, timeout_s: float | None) -> socket.socket:
        """Give a TCP connection, which is the caller's to close. Raises OSError, which TimeoutError and Unresolved are."""
        address = await self.resolve(host)
        made = self._socket(address, socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
        except BaseException:
            made.close()
            raise
        return made

    async def get(self, host: str, port: int, target: str, timeout_s: float) -> tuple[int, bytes]:
        """Ask by HTTP over a new connection; gives the status and the body. Raises OSError, which TimeoutError is."""
        async with self._connections:
            made = await self.connect(host, port, timeout_s)
            reader, writer = await asyncio.open_connection(sock=made)
            try:
                async with asyncio.timeout(timeout_s):
                    name = f"[{host}]" if ":" in host else host
                    words = f"GET {target} HTTP/1.0\r\nHost: {name}:{port}\r\nUser-Agent: Go-http-client/1.1\r\nConnection: close\r\n\r\n"
                    writer.write(words.encode("latin-1", "replace"))
                    text = await reader.read(_LARGEST)
                    while len(text) < _LARGEST and (more := await reader.read(_LARGEST - len(text))):
                        text += more
            finally:
                writer.close()
        head, _, body = text.partition(b"\r\n\r\n")
        words_of_status = head.split(b"\r\n")[0].split()
        if len(words_of_status) < 2 or not words_of_status[1].isdigit():
            raise ConnectionError("the answer is no HTTP")
        return int(words_of_status[1]), body
