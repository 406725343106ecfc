"""The pool of node ports: one number for the whole cluster, whatever the protocol.

Pure: the random choice is a parameter. Not here: which Service wants which port.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#type-nodeport
"""

from __future__ import annotations

from podwire.ipam.addresses import FULL, Unavailable
from podwire.ipam.pool import Below, Pool, static_part

TAKEN = "provided port is already allocated"


class PortPool:
    """The ports from ``first`` to ``last``, the lower ones (a thirty-second, 16 to 128) given last."""

    def __init__(self, first: int = 30000, last: int = 32767) -> None:
        self.first, self.last = first, last
        size = last - first + 1
        self._pool = Pool(size, static_part(size, step=32, least=16, most=128))

    @property
    def free(self) -> int:
        return self._pool.free

    def take(self, port: int) -> None:
        """Take one port. Raises Unavailable when it is outside of the range or taken."""
        if not self.first <= port <= self.last:
            raise Unavailable(f"provided port is not in the valid range. The range of valid ports is {self.first}-{self.last}")
        if not self._pool.take(port - self.first):
            raise Unavailable(TAKEN)

    def give(self, below: Below) -> int:
        """Take some free port. Raises Unavailable when there is none."""
        number = self._pool.give(below)
        if number is None:
            raise Unavailable(FULL)
        return self.first + number

    def release(self, port: int) -> None:
        """Give a port back. One that nobody has is no error."""
        self._pool.release(port - self.first)
