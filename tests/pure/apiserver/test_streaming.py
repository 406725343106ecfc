"""Subresources that somebody else answers: names and containers, what is passed on, and that nothing is before the other side agrees."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from podwire.apiserver import requests, status
from podwire.apiserver.api import Api
from podwire.apiserver.streaming.exchanges import Refused, forwarded, join
from podwire.apiserver.streaming.kubelet import refusal
from podwire.apiserver.streaming.pods import container_of
from podwire.apiserver.streaming.proxy import split
from podwire.apiserver.streaming.upstream import Endpoint, Upstream
from podwire.daemon.duplex import Duplex
from podwire.pods.standins import tls

LIMIT_S = 20
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_a_proxied_path_ends_where_the_other_ones_begins() -> None:
    target = requests.target("/api/v1/namespaces/default/pods/http:web:80/proxy/a//b/")
    assert target == requests.Target("", "v1", "pods", "default", "http:web:80", "proxy")
    assert requests.target("/api/v1/nodes/n/proxy/stats/summary") == requests.Target("", "v1", "nodes", "", "n", "proxy")
    assert requests.target("/api/v1/namespaces/default/pods/web/exec/more") is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [("web", ("", "web", "")), ("web:80", ("", "web", "80")), ("https:web:", ("https", "web", "")), (":web:p", ("", "web", "p"))],
)
def test_a_name_has_a_scheme_and_a_port(name: str, parts: tuple[str, str, str]) -> None:
    assert split(name) == parts


def test_what_is_no_name_is_refused() -> None:
    for name in ("a:b:c:d", "ftp:web:80"):
        with pytest.raises(status.Failure, match="invalid request"):
            split(name)


def test_a_container_is_chosen_in_the_apis_words() -> None:
    one = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}}
    two = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}}
    assert container_of(one, "") == "a"
    assert container_of(two, "i") == "i"
    with pytest.raises(status.Failure) as refused:
        container_of(two, "")
    words = "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"
    assert refused.value.message == words
    with pytest.raises(status.Failure, match="container x is not valid for pod web"):
        container_of(one, "x")


def test_a_kubelets_refusal_is_a_status() -> None:
    assert (refusal(400, b"waits\n").code, refusal(400, b"waits\n").message) == (400, "waits")
    assert refusal(500, b"broken").message == 'an error on the server ("broken") has prevented the request from succeeding'


def test_nothing_of_who_asks_is_passed_on() -> None:
    sent = [
        (b"authorization", b"Bearer x"),
        (b"host", b"api"),
        (b"impersonate-user", b"root"),
        (b"connection", b"Upgrade"),
        (b"accept", b"*"),
    ]
    sent += [(b"x-remote-user", b"root"), (b"x-remote-extra-a", b"b"), (b"upgrade", b"websocket")]
    assert forwarded(sent) == [(b"accept", b"*")]
    assert forwarded(sent, upgrade=True) == [(b"connection", b"Upgrade"), (b"accept", b"*"), (b"upgrade", b"websocket")]


@asynccontextmanager
async def a_server(talk: Talk) -> AsyncIterator[int]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_nothing_is_passed_on_to_who_does_not_agree() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno and more that is not read")
        heard.set_result(head + await reader.read())
        writer.close()
        await writer.wait_closed()

    def never() -> Duplex:
        raise AssertionError("the client's connection was taken over")

    async with asyncio.timeout(LIMIT_S), a_server(refuse) as port:
        with pytest.raises(Refused) as refused:
            await join(Upstream(), Endpoint("127.0.0.1", port), "POST", "/exec", [(b"connection", b"Upgrade")], never)
        assert (refused.value.code, refused.value.body) == (400, b"no")
        sent = b"POST /exec HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nconnection: Upgrade\r\ncontent-length: 0\r\n\r\n" % port
        assert await heard == sent


async def test_after_the_agreement_two_connections_are_one() -> None:
    async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\nfirst ")
        writer.write(await reader.readexactly(5))
        writer.close()
        await writer.wait_closed()

    streams: set[object] = set()
    api = cast("Api", type("OnlyStreams", (), {"streams": streams}))
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    async with asyncio.timeout(LIMIT_S), a_server(agree) as port:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            def take_over() -> Duplex:
                duplex = Duplex()
                duplex.taken_over(cast("asyncio.Transport", writer.transport), early)
                return duplex

            early = await reader.readexactly(5)  # came before the agreement, and waits for it
            joined = await join(Upstream(), Endpoint("127.0.0.1", port), "GET", "/", [], take_over)
            await joined.run(api, nothing, nothing)  # type: ignore[arg-type]
            over.set()

        async def nothing(*_: object) -> None:
            return

        async with a_server(serve) as front:
            _, client = await loop.create_connection(Duplex, "127.0.0.1", front)
            client.write(b"early")
            said = b""
            while piece := await client.read():
                said += piece
            assert said == b"HTTP/1.1 101 Switching Protocols\r\n\r\nfirst early"
            client.close()
            await over.wait()
    assert not streams


async def test_the_connection_for_the_next_upgrade_is_there_before_it_is_asked_for() -> None:
    connected: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    asked: list[asyncio.StreamWriter] = []

    async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.put_nowait(writer)
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            asked.append(writer)
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            await reader.read()
        writer.close()

    server = await asyncio.start_server(agree, "127.0.0.1", 0, ssl=tls.context())
    async with asyncio.timeout(LIMIT_S), server:
        upstream = Upstream()
        upstream.kubelet_tls = upstream.any_tls
        endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], upstream.kubelet_tls)
        await join(upstream, endpoint, "GET", "/", [], Duplex)
        first, second = await connected.get(), await connected.get()
        assert asked == [first]
        await join(upstream, endpoint, "GET", "/", [], Duplex)
        assert asked == [first, second]
        (await connected.get()).close()  # the third goes away unasked: another one is made
        await join(upstream, endpoint, "GET", "/", [], Duplex)
        assert asked[2] is await connected.get()
        await upstream.close()
        for writer in asked:
            writer.close()


def test_kubelets_are_reached_with_a_certificate_alone() -> None:
    assert Upstream().kubelet_tls is None
    assert Upstream().any_tls.verify_mode is ssl.CERT_NONE
