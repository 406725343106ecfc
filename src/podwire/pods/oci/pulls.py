"""Pulling images for a node: which ones may be, and a process for each that does it.

A registry on the loopback address is the machine's, where the lab says how to reach it (``control``); every other is asked over the node's
own network. A few pulls are under way at once, as on GKE's nodes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from podwire.images import credentials
from podwire.images.errors import ImageRefused
from podwire.images.puller import Answer, Order
from podwire.images.reference import on_loopback, parse
from podwire.objects.core import Secret

_AT_ONCE: Final = 3


class Pulls:
    """``store``: the folder of images. ``registries``: whose images may be pulled: HOST, HOST:PORT, or one with the beginning of a path."""

    def __init__(self, store: str, architecture: str, registries: Sequence[str] = (), control: str = "") -> None:
        self._store, self._architecture, self._registries, self._control = store, architecture, registries, control
        hosts = dict.fromkeys(one.partition("/")[0] for one in registries)
        self._machine = tuple(host for host in hosts if on_loopback(host)) if control else ()
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def allows(self, image: str) -> bool:
        """Whether an image may be pulled."""
        if not self._registries:
            return False
        try:
            repository = parse(image).repository
        except ImageRefused:
            return False
        return any(f"{repository}/".startswith(f"{registry}/") for registry in self._registries)

    @staticmethod
    def documents(image: str, secrets: Sequence[Secret]) -> list[bytes]:
        """What of these Secrets is for an image, in the order to try it."""
        return credentials.documents((credentials.auths(one.type, one.data) for one in secrets), parse(image))

    async def __call__(self, image: str, secrets: Sequence[Secret]) -> tuple[int, float]:
        """Pull an image, when it is its turn; gives its size, unpacked, in bytes, and the seconds it took then. Raises ImageRefused."""
        given = self.documents(image, secrets)
        order = Order(self._store, self._architecture, image, tuple(one.decode() for one in given), self._machine, self._control)
        loop = asyncio.get_running_loop()
        async with self._turn:
            began = loop.time()
            size = await _ordered(order)
            return size, loop.time() - began


async def _ordered(order: Order) -> int:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "podwire.images.puller", stdin=pipe, stdout=pipe, stderr=pipe, cwd="/"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        said, errors = await asyncio.gather(process.stdout.read(), process.stderr.read())
        status = await process.wait()
    finally:
        process.stdin.close()  # it ends then, with what it has started
        await asyncio.shield(process.wait())
    if status or not said:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        raise ImageRefused(f"pull {order.image}: the program that pulls ended with {status}{''.join(f': {line}' for line in last)}")
    answer = msgspec.json.decode(said, type=Answer)
    if answer.error:
        raise ImageRefused(answer.error)
    return answer.size
