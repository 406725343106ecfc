"""Links, addresses, routes and neighbours of one network namespace: the blocking door to the kernel's routing netlink.

Requests are pipelined: as many as fit are sent in one datagram. The kernel carries them out in turn before the sending returns; it
is asked to acknowledge the last of them alone, for it answers one that it refuses in any case. A request that names a link made by an
earlier one waits for it, asks for its index and remembers it; who needs that for nothing else says ``show`` of the link, in the
flight in which it is made.

Not for an event loop's thread when much is asked: a caller with a loop runs it in a worker thread, one at a time.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, NoReturn, Self

from podwire.linux import namespaces
from podwire.linux.errors import KernelRefused
from podwire.wire import netlink
from podwire.wire.rtnetlink import Address, Link, LinkState, Neighbour, Request, Route, Rule, TokenBucket
from podwire.wire.rtnetlink import address as address_messages
from podwire.wire.rtnetlink import link as link_messages
from podwire.wire.rtnetlink import queue as queue_messages
from podwire.wire.rtnetlink import route as route_messages

# One flight: small enough for an ordinary user's send buffer and for its acknowledgements in the receive buffer.
_FLIGHT_MESSAGES: Final = 128
_FLIGHT_BYTES: Final = 32_768
_RECEIVE_BYTES: Final = 65_536
_GET_INDEX: Final = 0x8933  # SIOCGIFINDEX
_REQUEST_BYTES: Final = 40  # struct ifreq
_LINK_GROUP: Final = 1  # RTMGRP_LINK
_CACHE_LIMIT: Final = 8_192
_MISSING: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO})
_DUMP_ATTEMPTS: Final = 10


class Network:
    """One routing socket in one network namespace: the descriptor's, or without one the calling thread's own.

    It belongs to one thread at a time. Close it, or use it as a context manager.

    Raises:
        NamespaceGone: the descriptor is no network namespace.
    """

    def __init__(self, namespace: int | None = None) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        if namespace is None:
            self._socket = socket.socket(socket.AF_NETLINK, kind, netlink.NETLINK_ROUTE)
        else:
            self._socket = namespaces.socket_inside(namespace, socket.AF_NETLINK, kind, netlink.NETLINK_ROUTE)
        for option in (netlink.EXT_ACK, netlink.CAP_ACK, netlink.GET_STRICT_CHK):
            self._socket.setsockopt(netlink.SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._indexes: dict[str, int] = {}
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._asked: dict[int, Request] = {}  # by sequence number: what the flight's messages belong to
        self._shown: list[LinkState] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. Nothing in the namespace changes."""
        self._socket.close()

    def apply(self, requests: Sequence[Request]) -> list[LinkState]:
        """Carry out the requests in order; gives how the links are that are asked about among them (``show``).

        Raises:
            KernelRefused: the first request that was refused, with the kernel's hint; errno is the kernel's. Those before it
                were carried out; those after it may have been (they were on their way): notes on the error name further
                ones that were refused. A link that does not exist is ENODEV.
        """
        self._shown = []
        for request in requests:
            try:
                for part in request.parts(self.index):
                    self._queue(part.type, part.flags, part.payload, request)
            except LookupError as missing:
                if not request.missing_ok:
                    self._flush()
                    raise KernelRefused(errno.ENODEV, str(request), str(missing)) from None
        self._flush()
        return self._shown

    def learn(self, name: str, index: int) -> None:
        """Remember the index of a link that the other end of its pair has told (``LinkState.peer``); 0 tells nothing."""
        if index:
            self._remember(name, index)

    def _remember(self, name: str, index: int) -> None:
        if len(self._indexes) >= _CACHE_LIMIT:
            self._indexes.clear()
        self._indexes[name] = index

    def index(self, name: str) -> int:
        """The index of a link.

        Raises:
            LookupError: there is no link of this name.
        """
        known = self._indexes.get(name)
        if known is not None:
            return known
        self._flush()
        number, _ = link_messages.identity(self._link(name))
        self._remember(name, number)
        return number

    def wait_running(self, name: str, limit_s: float = 1.0) -> None:
        """Wait until a link that was set up carries packets.

        A link that gets its carrier learns of it from a kernel thread, up to some milliseconds later; until then it drops what
        it is to send, and a bridge does not forward to it. To be asked about the link makes Linux 6.8 do that work at once;
        an older one is asked again until it is done.

        Raises:
            LookupError: there is no link of this name.
            KernelRefused: ENETDOWN, it did not come up within ``limit_s``.
        """
        deadline = time.monotonic() + limit_s
        while not link_messages.is_running(found := self._link(name)):
            if time.monotonic() > deadline:
                raise KernelRefused(errno.ENETDOWN, f"ip link set dev {name} up", "the link has no carrier")
            time.sleep(0.001)
        self._remember(name, link_messages.identity(found)[0])

    def has(self, name: str) -> bool:
        """Whether there is a link of this name: a tenth of the time of ``find``. Source: netdevice(7)."""
        try:
            fcntl.ioctl(self._socket, _GET_INDEX, name.encode().ljust(_REQUEST_BYTES, b"\0"))
        except OSError as refused:
            if refused.errno == errno.ENODEV:
                return False
            raise
        return True

    def find(self, name: str) -> Link | None:
        """One link by name, or None; its master is named by its number alone (``if7``) unless that was asked about before."""
        try:
            payload = self._link(name)
        except LookupError:
            return None
        return Link.decode(payload, {number: known for known, number in self._indexes.items()})

    def _link(self, name: str) -> bytes:
        """The kernel's description of one link. Raises LookupError."""
        try:
            return self._ask(link_messages.GETLINK, link_messages.query(name), f"ip link show dev {name}")[0]
        except KernelRefused as refused:
            if refused.errno == errno.ENODEV:
                raise LookupError(f"there is no link {name}") from None
            raise

    # --------------------------------------------------------------------------------------------------------- dumps

    def links(self) -> dict[str, Link]:
        """All links by name."""
        payloads = self._dump(link_messages.GETLINK, link_messages.dump(), "ip link show")
        names = dict(map(link_messages.identity, payloads))
        self._indexes = {name: number for number, name in names.items()}
        return {link.name: link for link in (Link.decode(payload, names) for payload in payloads)}

    def addresses(self) -> list[Address]:
        """All addresses of both families."""
        payloads = self._dump(address_messages.GETADDR, address_messages.address_dump(), "ip address show")
        names = self._names()
        return [Address.decode(payload, names) for payload in payloads]

    def routes(self, table: int | None = None) -> list[Route]:
        """The routes of both families, of one table or of all."""
        payloads = self._dump(route_messages.GETROUTE, route_messages.route_dump(table), "ip route show table all", absent_is_empty=True)
        names = self._names()
        found = (Route.decode(payload, names) for payload in payloads)
        return [route for route in found if route is not None and table in {None, route.table}]

    def neighbours(self) -> list[Neighbour]:
        """All neighbour entries of both families."""
        payloads = self._dump(address_messages.GETNEIGH, address_messages.neighbour_dump(), "ip neighbour show")
        names = self._names()
        return [found for found in (Neighbour.decode(payload, names) for payload in payloads) if found is not None]

    def queues(self) -> list[TokenBucket]:
        """The token buckets of all links."""
        payloads = self._dump(queue_messages.GETQDISC, queue_messages.dump(), "tc qdisc show")
        names = self._names()
        return [found for found in (TokenBucket.decode(payload, names) for payload in payloads) if found is not None]

    def rules(self) -> list[Rule]:
        """The rules that choose a table by a mark, of both families."""
        payloads = self._dump(route_messages.GETRULE, route_messages.rule_dump(), "ip rule show")
        return [rule for rule in map(Rule.decode, payloads) if rule is not None]

    def _names(self) -> dict[int, str]:
        payloads = self._dump(link_messages.GETLINK, link_messages.dump(), "ip link show")
        return dict(map(link_messages.identity, payloads))

    # ------------------------------------------------------------------------------------------------------ the wire

    def _queue(self, kind: int, flags: int, payload: bytes, request: Request) -> None:
        if len(self._pending) >= _FLIGHT_MESSAGES or self._pending_bytes + len(payload) > _FLIGHT_BYTES:
            self._flush()
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        data = netlink.message(kind, netlink.REQUEST | flags, self._sequence, payload)
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._asked[self._sequence] = request
        if kind == link_messages.DELLINK:
            self._indexes.pop(getattr(request.value, "name", ""), None)

    def _flush(self) -> None:
        """Send what is queued and wait for the answer to the last of it; by then each other one that was refused has its own."""
        if not self._pending:
            return
        pending, asked, last = self._pending, self._asked, self._sequence
        self._pending, self._pending_bytes, self._asked = [], 0, {}
        pending[-1] = netlink.flagged(pending[-1], netlink.ACK)
        self._socket.send(b"".join(pending))
        refused: list[KernelRefused] = []
        while last in asked:
            data = self._receive()
            if netlink.carried_out(data, last):
                break
            for answer in netlink.messages(data):
                if answer.sequence not in asked:
                    continue  # a late answer to a flight that was given up
                if answer.type == netlink.ERROR:
                    request = asked.pop(answer.sequence)
                    told = netlink.acknowledgement(answer)
                    if told.errno and not (request.missing_ok and told.errno in _MISSING):
                        refused.append(KernelRefused(told.errno, str(request), told.hint))
                elif answer.type == link_messages.NEWLINK and isinstance(link := asked[answer.sequence].value, Link):
                    self._show(LinkState(link.name, answer.payload))
        if refused:
            self._raise(refused)

    def _show(self, state: LinkState) -> None:
        self._remember(state.name, state.index)
        self._shown.append(state)

    def _raise(self, refused: list[KernelRefused]) -> NoReturn:
        if any(one.errno in _MISSING for one in refused):
            self._indexes.clear()  # a link may have been deleted, or made again, by somebody else
        first = refused[0]
        for other in refused[1:]:
            first.add_note(f"also refused: {other}")
        raise first

    def _receive(self) -> bytes:
        return self._socket.recv(_RECEIVE_BYTES)

    def _ask(self, kind: int, payload: bytes, what: str, flags: int = 0) -> list[bytes]:
        """Send one question; the payloads of its answers."""
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        sequence = self._sequence
        self._socket.send(netlink.message(kind, netlink.REQUEST | flags, sequence, payload))
        found: list[bytes] = []
        interrupted = False
        for answer in self._answers(sequence):
            interrupted |= bool(answer.flags & netlink.DUMP_INTR)
            if answer.type in {netlink.ERROR, netlink.DONE}:
                told = netlink.acknowledgement(answer)
                if told.errno:
                    raise KernelRefused(told.errno, what, told.hint)
                break
            found.append(answer.payload)
            if not answer.flags & netlink.MULTI:
                break
        if interrupted:
            raise KernelRefused(errno.EINTR, what, "the tables changed while they were read")
        return found

    def _answers(self, sequence: int) -> Iterator[netlink.Message]:
        while True:
            for answer in netlink.messages(self._receive()):
                if answer.sequence == sequence:
                    yield answer

    def _dump(self, kind: int, payload: bytes, what: str, *, absent_is_empty: bool = False) -> list[bytes]:
        for attempt in range(_DUMP_ATTEMPTS):
            try:
                return self._ask(kind, payload, what, netlink.DUMP)
            except KernelRefused as refused:
                if absent_is_empty and refused.errno == errno.ENOENT:
                    return []
                if refused.errno != errno.EINTR or attempt == _DUMP_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")


class LinkChanges:
    """A socket that becomes readable when a link of the namespace comes, goes or changes. Close it when done.

    What changed is not told: whoever is woken looks. Source: rtnetlink(7), RTNLGRP_LINK.
    """

    def __init__(self, namespace: int | None = None) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        if namespace is None:
            self._socket = socket.socket(socket.AF_NETLINK, kind, netlink.NETLINK_ROUTE)
        else:
            self._socket = namespaces.socket_inside(namespace, socket.AF_NETLINK, kind, netlink.NETLINK_ROUTE)
        self._socket.bind((0, _LINK_GROUP))

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Take what has been told. More than the socket could hold is one more reason to look, and no error."""
        while True:
            try:
                self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        self._socket.close()
