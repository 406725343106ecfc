"""Datagrams that a thread of its own sends, while whoever makes them goes on.

What belongs here: a few datagrams that wait, and one thread. What must not: what they say, and who answers.

How it works: what a netlink socket is sent the kernel carries out before ``send`` returns, without the interpreter. So of two threads one
makes datagrams and the other waits for the kernel; it needs the interpreter once for each, and no word is said between the two otherwise.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_MOST: Final = 8  # datagrams that wait: as they are big, few


class Sending:
    """``failure`` is what came instead of one that was sent; after it none is sent any more."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_MOST)
        self._thread = threading.Thread(target=self._run, name="sending", daemon=True)
        self._sent, self._known = 0, 0
        self.failure: OSError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.finish()

    def put(self, datagram: bytes) -> None:
        """Have a datagram sent; waits as long as many do."""
        self._room.acquire()
        self._waiting.put(datagram)

    def news(self) -> int:
        """Say how many datagrams were sent since this was asked last."""
        sent = self._sent
        news, self._known = sent - self._known, sent
        return news

    def finish(self) -> None:
        """Wait until all are sent."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (datagram := self._waiting.get()) is not None:
            if self.failure is None:
                try:
                    self._send(datagram)
                except OSError as failure:
                    self.failure = failure
                else:
                    self._sent += 1
            self._room.release()
