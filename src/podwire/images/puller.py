"""The program that pulls one image for a node: ``python -m podwire.images.puller``. It is a process, so that the node has none of the work.

It reads an Order, one line of JSON, and writes an Answer. The order's pipe stays open for as long as the image is wanted: its end, that of
whoever ordered too, ends the pull. Credentials come in the order, and so are in memory alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import msgspec

from podwire.images import machine_registry, reference
from podwire.images.documents import Platform
from podwire.images.errors import ImageRefused
from podwire.images.pull import pull
from podwire.images.reference import Reference
from podwire.images.store import Store


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """``registries``: those of the machine's loopback, which are reached through the lab's ``control`` socket."""

    store: str
    architecture: str
    image: str
    credentials: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    control: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``size``: of the image, unpacked, in bytes. ``error``: why it was not pulled."""

    size: int = 0
    error: str = ""


def carry_out(order: Order, lives: int) -> Answer:
    """Pull the image. ``lives``: a descriptor that ends when nobody wants it any more; then this process ends."""
    try:
        wanted = reference.parse(order.image)
        if wanted.domain in order.registries:
            _go_where_it_is(wanted, order)
        running: list[subprocess.Popen[str]] = []
        threading.Thread(target=_end_with, args=(lives, running), daemon=True).start()
        store = Store(order.store, machine=Platform(order.architecture, "linux"))
        pull(store, order.image, credentials=[one.encode() for one in order.credentials], started=running.append)
        found = store.catalogue().find(wanted)
        return Answer(size=found.size if found is not None else 0)
    except ImageRefused as refused:
        return Answer(error=str(refused))


def _go_where_it_is(wanted: Reference, order: Order) -> None:
    try:
        machine_registry.move_in(order.registries, order.control)
        machine_registry.connect(wanted.domain, order.control).close()  # the words of one that is not there are better than a reset's
    except ImageRefused as refused:
        raise ImageRefused(f"pull {wanted}: {refused}") from None


def _end_with(lives: int, running: list[subprocess.Popen[str]]) -> None:
    while os.read(lives, 1):
        pass
    for process in running:
        process.kill()  # one that has ended and was waited for is left alone
    os.kill(os.getpid(), signal.SIGKILL)  # whatever it does: the store and its rooms are made for that


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(carry_out(order, sys.stdin.fileno())))


if __name__ == "__main__":
    main()
