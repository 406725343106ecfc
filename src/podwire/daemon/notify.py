"""Tell a supervisor how we are: datagrams to the socket that NOTIFY_SOCKET names.

Lines of NAME=value: READY=1 once, STATUS=one line of text, STOPPING=1. A supervisor that is not there or does not read is no error of ours.

Source: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import contextlib
import os
import socket

_PATIENCE_S = 2.0


class Notifier:
    """Sends to ``address`` (a path, or ``@name`` in the abstract namespace); nothing if it is empty."""

    def __init__(self, address: str | None = None) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._socket: socket.socket | None = None

    def send(self, **lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(f"{name}={' '.join(value.split())}" for name, value in lines.items())
        with contextlib.suppress(OSError):
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                # The queue holds ten datagrams (net.unix.max_dgram_qlen): one that finds it full waits a moment rather than being lost.
                self._socket.settimeout(_PATIENCE_S)
            address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            self._socket.sendto(text.encode(), address)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
