"""No address is given twice, whoever is killed at whatever moment."""

from __future__ import annotations

import os
import signal
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

from podwire.pods.addresses import Addresses, RangeExhausted

RANGE = ip_network("10.4.0.0/24")


def child(action: object) -> int:
    process = os.fork()
    if process == 0:
        try:
            action()  # type: ignore[operator]
        finally:
            os._exit(0)
    return process


def test_allocators_killed_at_any_moment_never_give_an_address_twice(tmp_path: Path) -> None:
    reader, writer = os.pipe()

    def allocate() -> None:
        mine = Addresses(tmp_path, RANGE)
        while True:
            try:
                os.write(writer, f"{mine.allocate('pod')}\n".encode())
            except RangeExhausted:
                return

    running = [child(allocate) for _ in range(2)]
    for number in range(30):
        deadline = time.monotonic() + 0.001 * number
        while time.monotonic() < deadline:
            pass
        victim = running.pop(0)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        running.append(child(allocate))
    for process in running:
        os.waitpid(process, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        given = [ip_address(line) for line in pipe.read().split()]
    assert len(given) == len(set(given))
    owners = Addresses(tmp_path, RANGE).owners()
    assert set(given) <= set(owners)
    assert set(owners.values()) == {"pod"}  # no record is half-written
    assert len(owners) == 253
