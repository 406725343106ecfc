"""Network namespaces made ahead of need: one waits while the Pod before it is wired.

To make a namespace takes a third of what an attachment takes, and none of it needs what the rest needs. So a thread makes the
next one as soon as one is taken, and a Pod finds its namespace there. The thread returns to where it was each time: one that stayed
would keep the namespace of a Pod alive.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from podwire.linux import namespaces, syscalls

T = TypeVar("T")


class PreparedNamespaces(Generic[T]):
    """``prepare`` is called inside each new namespace; what it returns is handed out with the namespace's descriptor."""

    def __init__(self, prepare: Callable[[], T]) -> None:
        self._prepare = prepare
        self._own = namespaces.own_network()
        self._thread = ThreadPoolExecutor(1, "namespaces")
        self._next: Future[tuple[int, T]] | None = None

    def take(self) -> tuple[int, T]:
        """A namespace's descriptor, which becomes the caller's, and what was prepared in it. Raises OSError, KernelRefused."""
        ahead, self._next = self._next, None
        taken = (ahead or self._thread.submit(self._make)).result()
        self._next = self._thread.submit(self._make)
        return taken

    def close(self, give_up: Callable[[T], None]) -> None:
        """End the thread; the namespace that waits is given up."""
        ahead, self._next = self._next, None
        if ahead is not None and ahead.exception() is None:
            namespace, prepared = ahead.result()
            give_up(prepared)
            os.close(namespace)
        self._thread.shutdown()
        os.close(self._own)

    def _make(self) -> tuple[int, T]:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            namespace = namespaces.own_network()
            try:
                return namespace, self._prepare()
            except BaseException:
                os.close(namespace)
                raise
        finally:
            syscalls.setns(self._own, syscalls.CLONE_NEWNET)
