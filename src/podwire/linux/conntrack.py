"""The connection table of one network namespace: the blocking door to it.

One method reads it, filtered by the kernel; one makes it forget flows, many in a datagram. What the values mean is in
``podwire.wire.conntrack``; here are the socket, the acknowledgements and the refusals. It belongs to one thread at a time.

The table changes while it is read: a flow that ends meanwhile may or may not be shown, and one that is to be deleted may be gone already,
which is what was wanted. Source: net/netfilter/nf_conntrack_netlink.c of the Linux kernel.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from podwire.linux import namespaces
from podwire.linux.errors import KernelRefused
from podwire.wire import conntrack, netlink
from podwire.wire.conntrack import EVERYTHING, Filter, Flow

_RECEIVE_BYTES: Final = 65_536
_BATCH: Final = 100  # deletions in one datagram: as many answers fit into an ordinary receive buffer, should all of them fail


class Conntrack:
    """One socket in one network namespace: the descriptor's, or without one the calling thread's own. Close it when done.

    Raises:
        NamespaceGone: the descriptor is no network namespace.
    """

    def __init__(self, namespace: int | None = None) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        if namespace is None:
            self._socket = socket.socket(socket.AF_NETLINK, kind, netlink.NETLINK_NETFILTER)
        else:
            self._socket = namespaces.socket_inside(namespace, socket.AF_NETLINK, kind, netlink.NETLINK_NETFILTER)
        for option in (netlink.EXT_ACK, netlink.CAP_ACK):
            self._socket.setsockopt(netlink.SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. The flows go on."""
        self._socket.close()

    def flows(self, family: str, wanted: Filter = EVERYTHING) -> list[Flow]:
        """Read the flows of a family (``ip``, ``ip6``) to which the filter applies. Raises KernelRefused."""
        return [flow for flow in map(conntrack.flow, self._dump(family, wanted)) if _applies(flow, wanted)]

    def delete(self, flows: Sequence[Flow]) -> int:
        """Forget flows. Returns how many there still were: one that ended by itself is no error. Raises KernelRefused."""
        deleted = 0
        for start in range(0, len(flows), _BATCH):
            deleted += self._delete(flows[start : start + _BATCH])
        return deleted

    def count(self) -> int:
        """Give the number of flows of all families."""
        self._sequence += 1
        self._socket.send(conntrack.get_count(self._sequence))
        for answer in self._answers(self._sequence, "count the flows"):
            return conntrack.count(answer.payload)
        raise KernelRefused(errno.EPROTO, "count the flows", "the kernel did not answer")

    def _dump(self, family: str, wanted: Filter) -> Iterator[bytes]:
        self._sequence += 1
        self._socket.send(conntrack.get(self._sequence, family, wanted))
        for answer in self._answers(self._sequence, f"list the flows of {family}"):
            if answer.type in (netlink.DONE, netlink.ERROR):
                return
            yield answer.payload

    def _answers(self, sequence: int, what: str) -> Iterator[netlink.Message]:
        while True:
            for answer in netlink.messages(self._socket.recv(_RECEIVE_BYTES)):
                if answer.sequence != sequence:
                    continue
                if answer.type in (netlink.DONE, netlink.ERROR):
                    told = netlink.acknowledgement(answer)
                    if told.errno:
                        raise KernelRefused(told.errno, what, told.hint)
                yield answer

    def _delete(self, flows: Sequence[Flow]) -> int:
        first, last = self._sequence + 1, self._sequence + len(flows)
        self._sequence = last
        requests = [conntrack.delete(number, flow, acknowledge=number == last) for number, flow in enumerate(flows, first)]
        self._socket.send(b"".join(requests))
        gone, refused = 0, None
        while True:
            for answer in netlink.messages(self._socket.recv(_RECEIVE_BYTES)):
                if answer.type != netlink.ERROR or answer.sequence < first:
                    continue
                told = netlink.acknowledgement(answer)
                if told.errno == errno.ENOENT:
                    gone += 1
                elif told.errno and refused is None:
                    refused = KernelRefused(told.errno, f"forget the flow {flows[told.sequence - first]}", told.hint)
                if told.sequence == last:
                    if refused is not None:
                        raise refused
                    return len(flows) - gone


def _applies(flow: Flow, wanted: Filter) -> bool:
    """Look at what came: an older kernel does not know every filter."""
    to = flow.original
    return (
        (wanted.mark is None or flow.mark & wanted.mark[1] == wanted.mark[0])
        and wanted.protocol in (0, to.protocol)
        and wanted.destination in (b"", to.destination)
        and wanted.destination_port in (0, to.destination_port)
    )
