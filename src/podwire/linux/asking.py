"""Questions that a thread of its own asks, while whoever wants to know receives the answers to those before.

What belongs here: one thread, and how far it may be ahead. What must not: what is asked, and the answers.

How it works: a netlink socket has the answers in its buffer when ``send`` returns. Of two questions the buffer is to hold the answers. One
that did not hold those to one question will not hold those to the next: then no more is asked.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Asking(Generic[T]):
    """``question`` writes what is sent: each asks for some of the things that are ``wanted``."""

    def __init__(self, send: Callable[[bytes], object], question: Callable[[Sequence[T]], bytes], wanted: Sequence[Sequence[T]]) -> None:
        self._send, self._question, self._wanted = send, question, wanted
        self._asked: queue.SimpleQueue[int | OSError] = queue.SimpleQueue()
        self._room = threading.Semaphore(2)
        self._over = False
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.answered(whole=False)
        self._thread.join()

    def asked(self) -> Iterator[int]:
        """Give of each question, once it is asked, for how many things. Raises OSError as ``send``."""
        while count := self._asked.get():
            if isinstance(count, OSError):
                raise count
            yield count

    def answered(self, *, whole: bool) -> None:
        """The answers to a question were received; not ``whole``: not all came, and nothing more is to be asked."""
        self._over = self._over or not whole
        self._room.release()

    def _run(self) -> None:
        try:
            for some in self._wanted:
                self._room.acquire()
                if self._over:
                    break
                self._send(self._question(some))
                self._asked.put(len(some))
        except OSError as failure:
            self._asked.put(failure)
        else:
            self._asked.put(0)
