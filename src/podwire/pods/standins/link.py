"""The agent's standing connection to the stand-ins' process: what is to be played is played again when that comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podwire.pods.standins.client import Standins, StandinsGone, StandinsRefused
from podwire.pods.standins.messages import Ended, Port, Role

_RETRY_S = 0.02
_LONGEST_RETRY_S = 1.0
LINGER_S, _LINGER_STEP_S = 1.0, 0.05
"""How long a Pod that ends waits for its clients to leave kept connections by themselves."""


@dataclass(frozen=True)
class _Part:
    role: Role
    ports: tuple[Port, ...]
    namespace: int


class StandinsLink:
    """``run`` keeps the connection; ``play`` and ``stop`` wait for it. ``ended`` is told of containers that end by themselves."""

    def __init__(self, path: str, log: logging.Logger) -> None:
        self.ended: Callable[[Ended], None] | None = None
        self._path = path
        self._log = log
        self._parts: dict[str, _Part] = {}
        self._connected: asyncio.Future[Standins] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        """The process of the stand-ins; 0: it is not there."""
        return self._connected.result().pid if self._connected.done() and not self._connected.cancelled() else 0

    async def run(self) -> None:
        """Connect, take up what plays, and again whenever the process has gone; until cancelled."""
        wait_s = _RETRY_S
        while True:
            try:
                standins = Standins.connect(self._path, self.ended)
            except StandinsGone:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_RETRY_S)
                continue
            wait_s = _RETRY_S
            try:
                await self._take_up(standins)
                self._connected.set_result(standins)
                await standins.gone.wait()
                self._log.warning("the stand-ins' process has gone; all is played again when it is back")
            except StandinsGone:
                continue
            finally:
                standins.close()
                if self._connected.done():
                    self._connected = asyncio.get_running_loop().create_future()

    async def _take_up(self, standins: Standins) -> None:
        playing = await standins.list()
        for uid in playing.keys() - self._parts.keys():
            await standins.stop(uid)
        for uid, part in list(self._parts.items()):
            if set(playing.get(uid, ())) != set(part.ports):
                try:
                    await standins.play(part.role, part.ports, part.namespace)
                except StandinsRefused as refused:
                    self._log.warning("the stand-in of %s/%s: %s", part.role.namespace, part.role.name, refused)

    def expect(self, role: Role, ports: Sequence[Port], namespace: int) -> None:
        """Say what is to be played before there is a connection, so that what plays already is not stopped."""
        self._parts[role.uid] = _Part(role, tuple(ports), namespace)

    async def play(self, role: Role, ports: Sequence[Port], namespace: int) -> dict[str, str]:
        """Listen on exactly these ports for that Pod, from now on. Gives the ports that could not be had, and why.

        The descriptor stays the caller's and must stay open until ``stop``. Raises StandinsRefused.
        """
        self.expect(role, ports, namespace)
        while True:
            standins = await asyncio.shield(self._connected)
            try:
                return await standins.play(role, ports, namespace)
            except StandinsGone:
                await asyncio.sleep(_RETRY_S)

    async def drain(self, uid: str) -> None:
        """As a server that is told to end: kept connections end with their next answer, and for a moment clients may ask for one."""
        deadline = asyncio.get_running_loop().time() + LINGER_S
        while uid in self._parts and self._connected.done():
            try:
                still_open = await self._connected.result().drain(uid)
            except StandinsGone:
                return
            if not still_open or asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_LINGER_STEP_S)

    async def stop(self, uid: str) -> None:
        """Close everything of that Pod. Without a connection there is nothing to close."""
        if self._parts.pop(uid, None) is None:
            return
        if self._connected.done():
            try:
                await self._connected.result().stop(uid)
            except StandinsGone:
                return
