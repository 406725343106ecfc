"""``agnhost connect`` as the program that exec starts: its words and exit status for each thing that a network can do."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

from podwire.linux.network import Network
from podwire.wire.rtnetlink import Link, change

# SO_ATTACH_FILTER with one instruction, `ret 0`: the kernel drops every packet for that socket.
ATTACH_FILTER = 26


def loopback() -> None:
    with Network() as network:
        network.apply([change(Link("lo", up=True))])


def agnhost(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "podwire.pods.standins.agnhost_command", *words], capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


def drop_all(listening: socket.socket) -> None:
    import ctypes
    import struct

    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    listening.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(code)))


def test_connects_over_tcp() -> None:
    loopback()
    with socket.create_server(("127.0.0.1", 8080)):
        assert agnhost("connect", "127.0.0.1:8080", "--timeout=10s") == (0, "", "")
        assert agnhost("connect", "localhost:8080", "--timeout=10s", "--protocol=tcp") == (0, "", "")
    assert agnhost("connect", "127.0.0.1:8080", "--timeout=10s") == (1, "", "REFUSED\n")


def test_udp_connects_when_it_is_answered() -> None:
    loopback()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 8081))
        heard: list[bytes] = []

        def serve() -> None:
            said, where = server.recvfrom(100)
            heard.append(said)
            server.sendto(b"web", where)

        thread = threading.Thread(target=serve)
        thread.start()
        assert agnhost("connect", "127.0.0.1:8081", "--timeout=10s", "--protocol=udp") == (0, "", "")
        thread.join()
        assert heard[0].strip() == b"hostname"
        assert agnhost("connect", "127.0.0.1:8081", "--timeout=100ms", "--protocol=udp") == (1, "", "TIMEOUT\n")  # nobody answers
    assert agnhost("connect", "127.0.0.1:8081", "--timeout=10s", "--protocol=udp") == (1, "", "REFUSED\n")


def test_a_connection_that_is_dropped_times_out() -> None:
    loopback()
    with socket.create_server(("127.0.0.1", 8080)) as server:
        drop_all(server)
        assert agnhost("connect", "127.0.0.1:8080", "--timeout=200ms") == (1, "", "TIMEOUT\n")


def test_other_ways_to_fail() -> None:
    status, out, err = agnhost("connect", "203.0.113.1:80", "--timeout=10s")  # no route
    assert (status, out) == (1, "")
    assert err.startswith("OTHER: ")
    status, _, err = agnhost("connect", "no.such.name.invalid:80", "--timeout=1s")
    assert status == 1
    assert err.startswith("DNS: ")
    for words in (["127.0.0.1"], ["::1:80", "--timeout=1s"], ["127.0.0.1:80", "--protocol=icmp"], ["127.0.0.1:80", "--timeout=soon"]):
        status, _, err = agnhost("connect", *words)
        assert status == 1
        assert err.startswith("UNKNOWN: ")


def test_what_it_finds_in_the_pod() -> None:
    assert "localhost" in agnhost("etc-hosts")[1]
    assert agnhost("help")[0] == 0
    assert agnhost("entrypoint-tester", "a", "b")[1].rstrip().endswith("'a', 'b']")
