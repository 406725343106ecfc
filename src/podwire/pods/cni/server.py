"""The node's side of ``podwire-cni``: answers calls on a unix socket with a plugin that is loaded and keeps its sockets.

Only its own user and root are heard. A few threads, each with a plugin of its own: a call may wait for another plugin, and the next one
must not wait for that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

from podwire.linux import unix
from podwire.pods.cni.plugin import Plugin

_THREADS = 4
_PIECE = 65536
_LIMIT = 4 << 20
_PATIENCE_S = 30.0


class Server:
    """Listens at ``path`` at once; ``serve`` answers until ``close``."""

    def __init__(self, path: str, log: logging.Logger) -> None:
        self._log = log
        self._plugins = threading.local()
        self._listening = unix.listen(path, socket.SOCK_STREAM)
        self._closed = threading.Event()

    def serve(self) -> None:
        """Answer calls until closed."""
        with ThreadPoolExecutor(_THREADS, "cni") as threads:
            while True:
                try:
                    connection, _ = self._listening.accept()
                except OSError:
                    if not self._closed.is_set():
                        raise
                    return
                threads.submit(self._answer, connection)

    def close(self) -> None:
        """No further calls; those under way are answered."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _answer(self, connection: socket.socket) -> None:
        namespace = None
        try:
            with connection:
                connection.settimeout(_PATIENCE_S)
                if _user(connection) not in {0, os.geteuid()}:
                    return
                data, namespace = _received(connection)
                size = int.from_bytes(data[:4], "big")
                words = dict(pair.decode(errors="surrogateescape").split("=", 1) for pair in data[4 : 4 + size].split(b"\0") if pair)
                status, output = self._plugin().answer(words, data[4 + size :], namespace)
                connection.settimeout(_PATIENCE_S)
                connection.sendall(bytes((status,)) + output)
                told = output.decode(errors="replace").strip() if status else "done"
                self._log.info(
                    "%s %s %s: %s", words.get("CNI_COMMAND"), words.get("CNI_CONTAINERID", ""), words.get("CNI_IFNAME", ""), told
                )
        except (OSError, ValueError):
            self._log.exception("a call was not answered")
        except Exception:
            self._log.exception("a call failed")
        finally:
            if namespace is not None:
                os.close(namespace)

    def _plugin(self) -> Plugin:
        found = getattr(self._plugins, "plugin", None)
        if found is None:
            found = self._plugins.plugin = Plugin()
        return found


def _received(connection: socket.socket) -> tuple[bytes, int | None]:
    """Everything up to the end, and the descriptor that came with it. Raises ValueError for what is too big."""
    namespace: int | None = None
    pieces: list[bytes] = []
    size = 0
    try:
        while True:
            piece, descriptors, _, _ = socket.recv_fds(connection, _PIECE, 4)
            for descriptor in descriptors:
                if namespace is not None:
                    os.close(namespace)
                namespace = descriptor
            if not piece:
                return b"".join(pieces), namespace
            pieces.append(piece)
            size += len(piece)
            if size > _LIMIT:
                raise ValueError(f"a call of more than {_LIMIT} bytes")
    except BaseException:
        if namespace is not None:
            os.close(namespace)
        raise


def _user(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    return int(struct.unpack("iII", credentials)[1])
