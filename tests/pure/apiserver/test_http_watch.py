"""Watches over HTTPS: order, selection, bookmarks, the past, ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote

import pytest

from running_apiserver import ApiServer

Event = dict[str, Any]
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


@contextmanager
def watching(server: ApiServer, path: str, headers: dict[str, str] | None = None) -> Iterator[Callable[[], Event | None]]:
    """Open a watch; the function gives the next event, None at the end."""
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=20)
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    assert response.status == 200, response.read()

    def following() -> Event | None:
        line = response.readline()
        return json.loads(line) if line else None

    try:
        yield following
    finally:
        response.close()
        connection.close()


def told(event: Event | None) -> tuple[str, str]:
    assert event is not None
    return event["type"], event["object"]["metadata"]["name"]


@pytest.fixture
def where(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def now(call: Any, where: str) -> str:
    return str(call("GET", where).tree["metadata"]["resourceVersion"])


def label(call: Any, where: str, name: str, value: str | None) -> None:
    got = call("PATCH", f"{where}/{name}", {"metadata": {"labels": {"app": value}}}, content_type="application/merge-patch+json")
    assert got.status == 200


def test_changes_in_order(server: ApiServer, call: Any, where: str) -> None:
    with watching(server, f"{where}?watch=1&resourceVersion={now(call, where)}") as following:
        made = call("POST", where, {"metadata": {"name": "a"}}).tree
        label(call, where, "a", "x")
        call("DELETE", where + "/a")
        first, second, third = following(), following(), following()
        assert [told(first), told(second), told(third)] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
        assert first is not None
        assert first["object"] == made
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in (first, second, third) if event]
        assert versions == sorted(set(versions))
    # A watch from the past is given the same, and so is one of the whole cluster.
    for path in (where, "/api/v1/configmaps"):
        with watching(server, f"{path}?watch=true&resourceVersion={made['metadata']['resourceVersion']}") as following:
            assert [told(following()), told(following())] == [("MODIFIED", "a"), ("DELETED", "a")]


def test_selection_turns_changes_into_comings_and_goings(server: ApiServer, call: Any, where: str) -> None:
    with watching(server, f"{where}?watch=1&labelSelector={quote('app=x')}&resourceVersion={now(call, where)}") as following:
        call("POST", where, {"metadata": {"name": "a"}})
        label(call, where, "a", "x")
        call("PATCH", where + "/a", {"data": {"k": "1"}}, content_type="application/merge-patch+json")
        label(call, where, "a", "y")
        call("DELETE", where + "/a")
        call("POST", where, {"metadata": {"name": "b", "labels": {"app": "x"}}})
        events = [following() for _ in range(4)]
        assert [told(event) for event in events] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b")]
        left = events[2]
        assert left is not None
        # What left is shown as it was, at the revision of its leaving.
        assert left["object"]["metadata"]["labels"] == {"app": "x"}
        assert int(left["object"]["metadata"]["resourceVersion"]) > int(events[1]["object"]["metadata"]["resourceVersion"])  # type: ignore[index]


def test_one_object_by_name(server: ApiServer, call: Any, where: str) -> None:
    start = now(call, where)
    for path in (f"{where}?watch=1&fieldSelector=metadata.name%3Db&resourceVersion={start}", f"{where}/b?watch=1&resourceVersion={start}"):
        with watching(server, path) as following:
            for name in ("a", "b"):
                call("POST", where, {"metadata": {"name": name}})
            assert told(following()) == ("ADDED", "b")
            call("DELETE", where + "/a")
            call("DELETE", where + "/b")
            assert told(following()) == ("DELETED", "b")
        start = now(call, where)


@pytest.mark.parametrize("version", ["", "&resourceVersion=0"])
def test_without_a_version_it_begins_with_what_there_is(server: ApiServer, call: Any, where: str, version: str) -> None:
    for name in ("a", "b"):
        call("POST", where, {"metadata": {"name": name}})
    with watching(server, f"{where}?watch=1{version}") as following:
        assert [told(following()), told(following())] == [("ADDED", "a"), ("ADDED", "b")]
        call("DELETE", where + "/a")
        assert told(following()) == ("DELETED", "a")


def test_initial_events_and_their_bookmark(server: ApiServer, call: Any, where: str) -> None:
    call("POST", where, {"metadata": {"name": "a"}})
    words = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    with watching(server, f"{where}?{words}") as following:
        assert told(following()) == ("ADDED", "a")
        bookmark = following()
        assert bookmark is not None
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(bookmark["object"]["metadata"]["resourceVersion"]) > 0
    for words, why in (
        ("sendInitialEvents=true", "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ("resourceVersionMatch=Exact", "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"),
        ("sendInitialEvents=true&resourceVersionMatch=Exact", 'Unsupported value: "Exact": supported values: "NotOlderThan"'),
    ):
        refused = call("GET", f"{where}?watch=1&{words}")
        message = f'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: {why}'
        assert (refused.status, refused.tree["message"]) == (422, message)


def test_as_a_table(server: ApiServer, call: Any, where: str) -> None:
    call("POST", where, {"metadata": {"name": "a"}})
    with watching(server, f"{where}?watch=1", TABLE) as following:
        first = following()
        assert first is not None
        assert (first["object"]["kind"], first["object"]["rows"][0]["cells"][0]) == ("Table", "a")
        assert first["object"]["columnDefinitions"]
        label(call, where, "a", "x")
        second = following()
        assert second is not None
        assert (second["type"], second["object"]["columnDefinitions"]) == ("MODIFIED", None)


def test_a_watch_ends_when_its_time_is_over(server: ApiServer, where: str) -> None:
    with watching(server, f"{where}?watch=1&timeoutSeconds=1") as following:
        assert following() is None


def test_from_a_compacted_revision(server: ApiServer, where: str) -> None:
    server.stop()
    server.run()
    with watching(server, f"{where}?watch=1&resourceVersion=1") as following:
        event = following()
        assert event is not None
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert event["object"]["message"].startswith("too old resource version: 1 (")
        assert following() is None


def test_from_the_future(call: Any, where: str) -> None:
    got = call("GET", f"{where}?watch=1&resourceVersion=99999999")
    assert (got.status, got.tree["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


def test_a_client_that_does_not_read_is_dropped(server: ApiServer, call: Any, where: str) -> None:
    """It neither holds up the others nor fills the server's memory."""
    start = now(call, where)
    slow = server.context().wrap_socket(socket.create_connection(("127.0.0.1", server.port)), server_hostname="127.0.0.1")
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(f"GET {where}?watch=1&resourceVersion={start} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    with watching(server, f"{where}?watch=1&resourceVersion={start}") as following:
        call("POST", where, {"metadata": {"name": "a"}})
        assert told(following()) == ("ADDED", "a")
        count = 30

        def write() -> None:
            for i in range(count):
                call("PATCH", where + "/a", {"data": {"k": f"{i}" + "x" * 500_000}}, content_type="application/merge-patch+json")

        writer = threading.Thread(target=write)
        writer.start()
        for i in range(count):
            event = following()
            assert event is not None
            assert event["object"]["data"]["k"].startswith(f"{i}x")
        writer.join()
    slow.close()


def test_many_watchers_see_the_same(server: ApiServer, call: Any, where: str) -> None:
    start = now(call, where)
    with ExitStack() as stack:
        watchers = [stack.enter_context(watching(server, f"{where}?watch=1&resourceVersion={start}")) for _ in range(30)]
        call("POST", where, {"metadata": {"name": "a"}})
        for i in range(20):
            call("PATCH", where + "/a", {"data": {"k": str(i)}}, content_type="application/merge-patch+json")
        call("DELETE", where + "/a")
        seen = [[following() for _ in range(22)] for following in watchers]
        assert [event["type"] for event in seen[0] if event] == ["ADDED", *["MODIFIED"] * 20, "DELETED"]
        assert all(one == seen[0] for one in seen)


def test_sigterm_ends_watches_and_the_process(server: ApiServer, call: Any, where: str) -> None:
    call("POST", where, {"metadata": {"name": "kept"}})
    with watching(server, f"{where}?watch=1&resourceVersion={now(call, where)}") as following:
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGTERM)
        assert following() is None
        # uvicorn raises the signal again when it has finished, so that whoever started it sees why it ended.
        assert server.process.wait(10) in (0, -signal.SIGTERM)
    server.run()
    with watching(server, f"{where}?watch=1") as following:
        assert told(following()) == ("ADDED", "kept")


def test_what_was_acknowledged_outlives_kill_9(server: ApiServer, where: str) -> None:
    """Clients write until the server is killed under them; all that they were told is done is there afterwards."""
    done: set[str] = set()
    revisions: list[int] = []
    begun = threading.Event()

    def write(number: int) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=20)
        try:
            for i in range(10_000):
                name = f"w{number}-{i}"
                connection.request("POST", where, json.dumps({"metadata": {"name": name}}), {"content-type": "application/json"})
                response = connection.getresponse()
                body = json.loads(response.read())
                assert response.status == 201
                done.add(name)
                revisions.append(int(body["metadata"]["resourceVersion"]))
                if len(done) > 200:
                    begun.set()
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            connection.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    assert begun.wait(20)
    server.kill()
    for writer in writers:
        writer.join()
    server.run()
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=20)
    connection.request("GET", where)
    tree = json.loads(connection.getresponse().read())
    connection.close()
    assert done <= {one["metadata"]["name"] for one in tree["items"]}
    assert int(tree["metadata"]["resourceVersion"]) >= max(revisions)
