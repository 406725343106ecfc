"""Packets as the interfaces of a network namespace see them.

A packet socket of type SOCK_DGRAM: the kernel takes the link layer off and tells interface, direction and Ethernet type beside
the packet, so one program of classic BPF filters on every kind of interface. Nobody's privileges need to be dropped for it.

Source: packet(7), socket(7) SO_ATTACH_FILTER.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import Self

from podwire.wire.filter import Instruction, assemble
from podwire.wire.pcap import SNAPSHOT, Packet

_ALL = 0x0003
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS, _SCM_TIMESTAMPNS = 26, 35, 35
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER_BYTES = 8 << 20
_TIME = struct.Struct("@qq")


class Capture:
    """An open capture in the calling thread's network namespace, on one interface or on all.

    Raises OSError: EPERM without CAP_NET_RAW there, ENODEV for an interface that does not exist.
    """

    def __init__(self, interface: str = "", program: Sequence[Instruction] = ()) -> None:
        # Without an interface to bind to, the protocol must be said at once.
        protocol = 0 if interface else socket.htons(_ALL)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, protocol)
        try:
            if program:
                self._attach(program)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            if interface:
                self._socket.bind((interface, _ALL))
            else:
                self._drop_unfiltered()
        except BaseException:
            self._socket.close()
            raise

    def _drop_unfiltered(self) -> None:
        """What came between the socket and its filter is no part of the capture."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1, socket.MSG_DONTWAIT)

    def _attach(self, program: Sequence[Instruction]) -> None:
        code = ctypes.create_string_buffer(assemble(program))
        head = struct.pack("@HP", len(program), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def fileno(self) -> int:
        """Give the socket's descriptor, to wait on."""
        return self._socket.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def receive(self) -> Packet:
        """Wait for the next packet."""
        payload, ancillary, _, address = self._socket.recvmsg(SNAPSHOT, 64)
        time_ns = 0
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SCM_TIMESTAMPNS):
                seconds, nanoseconds = _TIME.unpack(content[: _TIME.size])
                time_ns = seconds * 1_000_000_000 + nanoseconds
        _, protocol, direction, hardware, source = address
        return Packet(time_ns, socket.if_nametoindex(address[0]), protocol, direction, payload, len(payload), hardware, source)

    def lost(self) -> int:
        """Give how many packets were dropped for want of room since the last time this was asked."""
        _, dropped = struct.unpack("@II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(dropped)
