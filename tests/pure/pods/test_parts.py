"""What the well-known programs say first, byte for byte, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest

from podwire.pods.standins.agnhost import Agnhostly
from podwire.pods.standins.directions import Directions
from podwire.pods.standins.http1 import Http1
from podwire.pods.standins.messages import Character, Role
from podwire.pods.standins.outside import Outside, Resolver
from podwire.pods.standins.parts import Told, part_of
from podwire.pods.standins.redis import Redis, Store, Talk
from podwire.pods.standins.session import Answer, Part, Place, Request

ROLE = Role(
    uid="u1", name="web", namespace="shop", ip="10.4.0.5", node="n1", zone="z1", service_account="sa", cluster="lab", hostname="web"
)


class Nowhere(Outside):
    """A Pod without a way out."""

    def __init__(self) -> None:
        self._resolver = Resolver()


def part(kind: str, *words: str, tag: str = "", environment: Mapping[str, str] | None = None) -> Part:
    ended: list[int] = []
    return part_of(Character("c", kind, tag, 0, words, dict(environment or {})), Nowhere, ended.append)


def place(one: Part, port: int = 80) -> Place:
    return Place(ROLE, port, "c", ("10.4.1.7", 40000), one)


def get(one: Part, target: str = "/", **headers: str) -> Answer:
    answer = one.respond(place(one), Request("GET", target, "web:80", headers))
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize(
    ("kind", "begins", "server"),
    [
        ("nginx", b"<!DOCTYPE html>\n<html>\n<head>\n<title>Welcome to nginx!</title>", "nginx/"),
        ("httpd", b"<html><body><h1>It works!</h1></body></html>\n", "Apache/"),
        ("hello-app", b"Hello, world!\nVersion: 2.0.0\nHostname: web\n", ""),
        ("echoserver", b"\n\nHostname: web\n", ""),
        ("http-echo", b"hi there\n", ""),
        ("", b'{"pod":{"name":"web"', "podwire"),
    ],
)
def test_what_curl_sees(kind: str, begins: bytes, server: str) -> None:
    answer = get(part(kind, "-text=hi there", tag="2.0"))
    assert answer.status == 200
    assert answer.body.startswith(begins)
    assert answer.server.startswith(server)


def test_pages_that_are_not_there() -> None:
    assert get(part("nginx"), "/x").status == get(part("httpd"), "/x").status == get(part("httpbin"), "/x").status == 404


def test_whereami_says_where() -> None:
    tree = json.loads(get(part("whereami", environment={"METADATA": "blue"})).body)
    assert (tree["pod_name"], tree["zone"], tree["cluster_name"], tree["metadata"], tree["host_header"]) == (
        "web",
        "z1",
        "lab",
        "blue",
        "web:80",
    )
    assert get(part("whereami"), "/zone").body == b"z1"


def test_httpbin() -> None:
    assert get(part("httpbin"), "/status/418").status == 418
    tree = json.loads(get(part("httpbin"), "/get?a=b", host="web").body)
    assert (tree["args"], tree["origin"], tree["headers"]["Host"]) == ({"a": "b"}, "10.4.1.7", "web")


# agnhost -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/hostname", 200, "web"),
        ("/hostName", 200, "web"),
        ("/clientip", 200, "10.4.1.7:40000"),
        ("/echo?msg=a%20b", 200, "a b"),
        ("/echo?msg=x&code=503", 503, "x"),
        ("/echo?msg=x&code=1", 400, "argument 'code' must be a status from 200 to 599, got '1'"),
        ("/healthz", 200, ""),
        ("/serverport", 200, "80"),
        ("/header?key=X-A", 200, "1"),
        ("/dial?host=a&port=80", 400, "request parameter not set"),
        ("/dial?host=a&port=http&request=/", 400, "invalid port parameter 'http'"),
        ("/dial?host=a&port=80&request=/&protocol=icmp", 400, "unsupported protocol 'icmp': expected http, udp or sctp"),
        ("/nothing", 404, "404 page not found\n"),
    ],
)
def test_netexec(target: str, status: int, body: str) -> None:
    answer = get(part("agnhost", "netexec"), target, **{"x-a": "1"})
    assert (answer.status, answer.body.decode()) == (status, body)


def test_netexec_redirects_and_says_the_time() -> None:
    answer = get(part("agnhost", "netexec"), "/redirect?location=/echo%3Fmsg=x&code=307")
    assert (answer.status, answer.headers) == (307, (("Location", "/echo?msg=x"),))
    assert get(part("agnhost", "netexec")).body.startswith(b"NOW: 20")


@pytest.mark.parametrize(
    ("said", "heard"),
    [(b"hostname\n", b"web"), (b"hostName", b"web"), (b"echo a b", b"a b"), (b"clientip", b"10.4.1.7:40000"), (b"what", None), (b"", None)],
)
def test_netexec_over_udp(said: bytes, heard: bytes | None) -> None:
    one = part("agnhost", "netexec")
    assert one.datagram(place(one), said) == heard


def test_a_shell_of_its_own() -> None:
    async def run(line: str) -> tuple[int, object]:
        one = part("agnhost", "netexec")
        answer = one.respond(place(one), Request("GET", f"/shell?cmd={line}", "a", {}))
        assert not isinstance(answer, Answer)
        done = await answer
        return done.status, json.loads(done.body)

    assert asyncio.run(run("echo%20a%20'b%20c'")) == (200, {"output": "a b c\n"})
    assert asyncio.run(run("hostname")) == (200, {"output": "web\n"})
    assert asyncio.run(run("false")) == (417, {"output": "", "error": "exit status 1"})
    assert asyncio.run(run("rm%20-rf%20/"))[0] == 417


def test_a_container_is_asked_to_end() -> None:
    async def run() -> list[int]:
        ended: list[int] = []
        one = Agnhostly(Character("c", "agnhost", words=("netexec",)), Nowhere(), ended.append)
        answer = one.respond(place(one), Request("GET", "/exit?code=7", "a", {}))
        assert not isinstance(answer, Answer)
        assert (await answer).close
        await asyncio.sleep(0.01)
        return ended

    assert asyncio.run(run()) == [7]


def test_porter_and_serve_hostname() -> None:
    one = part("agnhost", "porter", environment={"SERVE_PORT_80": "eighty"})
    assert get(one).body == b"eighty"
    raw = part("agnhost", "serve-hostname", "--tcp", "--udp", "--http=false", "--port=80")
    session = raw.talk(place(raw))
    assert session is not None
    assert (session.receive(b""), session.closing) == (b"web", True)
    assert raw.datagram(place(raw), b"anything") == b"web"
    assert get(part("agnhost", "serve-hostname")).body == b"web"


def test_names_are_looked_for_as_the_pods_files_say() -> None:
    one = Resolver.of("search shop.svc.cluster.local svc.cluster.local\nnameserver 10.8.0.10\noptions ndots:5\n", "10.4.0.9\ta b # c\n")
    assert one.servers == ("10.8.0.10",)
    assert one.candidates("users") == ["users.shop.svc.cluster.local.", "users.svc.cluster.local.", "users."]
    assert one.candidates("users.") == ["users."]
    assert one.candidates("a.b.c.d.e.f")[0] == "a.b.c.d.e.f."
    assert one.names == (("a", "10.4.0.9"), ("b", "10.4.0.9"))


# As annotations say --------------------------------------------------------------------------------------------------------------


def test_manners_lie_over_any_part() -> None:
    one = Told(part("nginx"), Directions.of({"status": "/x 503", "headers": "Server: other\nX-A: 1", "body.80": "gone"}))
    answer = get(one, "/x?y")
    assert (answer.status, answer.body, answer.server, answer.headers) == (503, b"gone", "other", (("X-A", "1"),))


def test_a_late_answer_keeps_its_place_in_the_line() -> None:
    async def run() -> bytes:
        woken = asyncio.Event()
        one = Told(part("http-echo", "-text=x"), Directions.of({"delay": "/slow 10ms", "status": "/slow 201"}))
        session = Http1(place(one), woken.set)
        assert session.receive(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /fast HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        await woken.wait()
        return session.receive(b"")

    text = asyncio.run(run())
    assert text.startswith(b"HTTP/1.1 201 Created\r\n")
    assert text.count(b"HTTP/1.1 200 OK\r\n") == 1


# Redis ---------------------------------------------------------------------------------------------------------------------------


def ask(session: Talk, *words: str) -> bytes:
    return session.receive(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words))


def test_redis_as_a_client_sees_it() -> None:
    now = [0.0]
    session = Talk(Store(lambda: now[0]))
    assert ask(session, "PING") == b"+PONG\r\n"
    assert ask(session, "GET", "a") == b"$-1\r\n"
    assert ask(session, "SET", "a", "1", "EX", "10") == b"+OK\r\n"
    assert ask(session, "INCR", "a") == b":2\r\n"
    assert ask(session, "TTL", "a") == b":10\r\n"
    assert ask(session, "SET", "a", "3", "NX") == b"$-1\r\n"
    assert ask(session, "MGET", "a", "b") == b"*2\r\n$1\r\n2\r\n$-1\r\n"
    assert ask(session, "KEYS", "*") == b"*1\r\n$1\r\na\r\n"
    now[0] = 11.0
    assert ask(session, "EXISTS", "a") == b":0\r\n"
    assert ask(session, "SET", "n", "x") + ask(session, "INCR", "n") == b"+OK\r\n-ERR value is not an integer or out of range\r\n"
    assert b"redis_version:" in ask(session, "INFO")
    assert ask(session, "GET") == b"-ERR wrong number of arguments for 'get' command\r\n"
    assert ask(session, "BOO", "x") == b"-ERR unknown command 'BOO', with args beginning with: 'x'\r\n"
    assert session.receive(b"ping\r\n") == b"+PONG\r\n"  # as a person types it
    assert session.receive(b"*1\r\n$4\r\nPI") == b""
    assert session.receive(b"NG\r\n") == b"+PONG\r\n"
    assert (ask(session, "QUIT"), session.closing) == (b"+OK\r\n", True)


def test_redis_ends_a_connection_that_speaks_nonsense() -> None:
    session = Redis().talk(place(Part(), 6379))
    assert session.receive(b"*2\r\nxx\r\n").startswith(b"-ERR Protocol error")
    assert session.closing
