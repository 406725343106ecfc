"""Requests that mislead, bodies that exhaust, addresses that lead back: the API's doors tried as an attacker would."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from podwire.apiserver import requests, selectors, validation
from running_apiserver import ApiServer

DEADLINE_S = 20.0


# Addresses that lead back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("127.8.8.8", "may not be in the loopback range"),
        ("169.254.169.254", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
        ("224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("::1", "may not be in the loopback range"),
        ("ff02::1", "may not be in the link-local multicast range"),
        ("::ffff:127.0.0.1", "may not be in the loopback range"),
    ],
)
def test_no_proxy_is_led_to_itself(call: Any, namespace: str, address: str, why: str) -> None:
    """Endpoints that anybody may write are where the API's proxy and every node's connect to."""
    where, meta = f"/api/v1/namespaces/{namespace}/endpoints", {"metadata": {"name": "own"}}
    got = call("POST", where, meta | {"subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 80}]}]})
    assert (got.status, why in got.tree["message"]) == (422, True), got
    family = "IPv6" if ":" in address else "IPv4"
    body = {"addressType": family, "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}]}
    got = call("POST", f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", meta | body)
    assert (got.status, why in got.tree["message"] or "must be an IPv6 address" in got.tree["message"]) == (422, True), got


# Requests that mislead -------------------------------------------------------------------------------------------------------


def raw(server: ApiServer, data: bytes, wait_s: float = DEADLINE_S) -> bytes:
    """Send bytes over TLS as an administrator; all that comes back until the server closes, or an answer is whole."""
    with (
        socket.create_connection(("127.0.0.1", server.port), wait_s) as plain,
        server.context().wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(data)
        got = b""
        while True:
            piece = connection.recv(65536)
            if not piece:
                return got
            got += piece


SMUGGLED = b"GET /api/v1/secrets HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"content-length: 2\r\ncontent-length: 45\r\n\r\n{}" + SMUGGLED,
        POST + b"content-length: 2, 45\r\n\r\n{}" + SMUGGLED,
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: identity, chunked, x\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"content-length: +2\r\n\r\n{}" + SMUGGLED,
        POST + b"content-length: -1\r\n\r\n{}" + SMUGGLED,
        POST + b"content-length: 0x2\r\n\r\n{}" + SMUGGLED,
        POST + b"content-length : 2\r\n\r\n{}" + SMUGGLED,
        POST + b"x-folded: a\r\n content-length: 45\r\ncontent-length: 2\r\n\r\n{}" + SMUGGLED,
        POST + b"transfer-encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
        b"GET /api\x00 HTTP/1.1\r\nhost: a\r\n\r\n" + SMUGGLED,
        b"GET /healthz HTTP/1.1\r\nhost: a\r\nx\x00y: z\r\n\r\n" + SMUGGLED,
        b"GET /healthz HTTP/1.1\nhost: a\n\n" + SMUGGLED,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT localhost:22 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ],
)
def test_smuggling(server: ApiServer, request_bytes: bytes) -> None:
    """What two readers could read as two things is refused, and the connection ends with it."""
    got = raw(server, request_bytes)
    assert b"SecretList" not in got
    assert b"HTTP/1.1 200" not in got
    assert b"HTTP/1.1 201" not in got


# Bodies that exhaust ---------------------------------------------------------------------------------------------------------


LEVELS = range(1, 12)
BOMBS = {
    "aliases": ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in LEVELS)],
    "merge keys": ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in LEVELS)],
    "itself": ["a: &a [*a]"],
    "brackets": ["a: " + "[" * 1_000_000],
    "dashes": ["- " * 1_000_000],
    "keys": ["? " * 1_000_000],
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_of_yaml(call: Any, namespace: str, bomb: str) -> None:
    """Few bytes that would be gigabytes, or more levels than a stack holds: refused, and the server is there."""
    body = "\n".join(["apiVersion: v1", "kind: ConfigMap", "metadata: {name: bomb}", *BOMBS[bomb]]).encode()
    for method, path, media in (
        ("POST", "", "application/yaml"),
        ("PATCH", "/bomb?fieldManager=m", "application/apply-patch+yaml"),
    ):
        got = call(method, f"/api/v1/namespaces/{namespace}/configmaps{path}", body, content_type=media)
        assert (got.status, got.tree["reason"]) == (400, "BadRequest"), got
    assert call("GET", "/healthz", identity=None).status == 200


def test_aliases_within_reason_are_read(call: Any, namespace: str) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: &all {x: y}\n  annotations: *all\n"
    got = call("POST", f"/api/v1/namespaces/{namespace}/configmaps", body, content_type="application/yaml")
    assert got.tree["metadata"]["annotations"] == {"x": "y"}


def test_much_yaml_keeps_nobody_waiting(call: Any, server: ApiServer, namespace: str) -> None:
    """While a long document is read, others are answered: before it is."""
    lines = "".join(f"  k{number}: value\n" for number in range(30_000))
    body = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: much}}\ndata:\n{lines}".encode()
    head = POST.replace(b"namespaces/default", f"namespaces/{namespace}".encode()).replace(b"application/json", b"application/yaml")
    with (
        socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as plain,
        server.context().wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        connection.setblocking(False)
        answered = 0
        while True:
            assert call("GET", "/healthz", identity=None).status == 200
            try:
                got = connection.recv(65536)
                break
            except ssl.SSLWantReadError:
                answered += 1
    assert got.startswith(b"HTTP/1.1 201")
    assert answered > 0


def test_packed_bodies_are_not_taken(call: Any, namespace: str) -> None:
    packed = gzip.compress(b" " * 50_000_000 + json.dumps({"metadata": {"name": "a"}}).encode())
    got = call("POST", f"/api/v1/namespaces/{namespace}/configmaps", packed, headers={"content-encoding": "gzip"})
    assert got.status in (400, 415)


def resident_mib(server: ApiServer) -> float:
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def test_a_body_without_an_end(server: ApiServer) -> None:
    """Chunks go on and on: refused when there are too many, and what comes after that is not kept."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    before = resident_mib(server)
    with (
        socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as plain,
        server.context().wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(1600):  # 100 MiB
                connection.sendall(chunk)
        assert resident_mib(server) - before < 50
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_many_bodies_of_one_user(server: ApiServer) -> None:
    """Few of them are heard to their end at a time; who waits is heard later, and others are not kept waiting."""
    size, count = 2_900_000, 150
    head = POST + b"content-length: %d\r\n\r\n" % (size + 2)
    before = resident_mib(server)
    context = server.context()
    with contextlib.ExitStack() as connections:
        made: list[ssl.SSLSocket] = []
        for _ in range(count):
            plain = connections.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))
            one = connections.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            one.sendall(head)
            one.setblocking(False)
            made.append(one)
        left = dict.fromkeys(made, size)
        idle = 0
        while idle < 50:  # send all that is taken; then the server has had its time
            sent = 0
            for one in [one for one, size_left in left.items() if size_left]:
                with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    taken = one.send(b" " * min(left[one], 65536))
                    left[one] -= taken
                    sent += taken
            idle = 0 if sent else idle + 1
            assert raw(server, b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert sum(left.values()) < size * count / 2
        assert resident_mib(server) - before < 250  # of 435 MB


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("labelSelector=" + ",".join(["!a"] * 100_000), 400),
        ("labelSelector=" + ",".join(["a"] * 900), 200),
        ("labelSelector=a+in+(" + ",".join(f"v{number}" for number in range(20_000)) + ")", 200),
        ("fieldSelector=" + ",".join(["metadata.name!%3Da"] * 20_000), 400),
        ("labelSelector=" + "(" * 300_000, 400),
        ("labelSelector=a," + "+" * 300_000, 400),
    ],
    ids=["many terms", "some terms", "many values", "many fields", "parentheses", "blanks"],
)
def test_selectors_that_cost_more_than_they_are_worth(call: Any, query: str, status: int) -> None:
    """Each requirement is put to each object, so there are not too many; and none is read more than once."""
    assert call("GET", f"/api/v1/pods?{query}").status == status


def test_long_words_are_not_remembered() -> None:
    """Of what is remembered there may be a thousand: a megabyte each would be a gigabyte."""
    for remembering, read, long in (
        (selectors._label_test, selectors.label_test, "a in (" + "b," * 2000 + "b)"),
        (selectors._field_terms, selectors.field_terms, "metadata.name=" + "b" * 4000),
        (requests._accepted, requests.accepted, b"application/json" + b" " * 4000),
        (validation._qualified, validation.qualified_name, "a" * 4000),
    ):
        before = remembering.cache_info().currsize  # type: ignore[attr-defined]
        read(long)  # type: ignore[operator]
        assert remembering.cache_info().currsize == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("digits", ["1" * 5000, "1" * 2_000_000, "0." + "1" * 2_000_000, "1e" + "9" * 1000])
def test_numbers_without_an_end(call: Any, namespace: str, digits: str) -> None:
    """An amount of a million digits is none: it would take minutes to read."""
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": digits}}}
    got = call("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "a"}, "spec": {"containers": [container]}})
    assert (got.status, "quantities must match the regular expression" in got.tree["message"]) == (400, True)
