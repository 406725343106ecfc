"""What a server that has too much to do says."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from podwire.apiserver import app
from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.api import Api
from podwire.store import Store


async def test_too_many_requests_are_asked_to_come_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "IN_FLIGHT", 1)
    api = Api(Store.open(tmp_path / "db"), Allocator(Ranges(), random.Random(0)))
    application = app.Application(api, "v1.37.0")
    scope = {"type": "http", "method": "GET", "path": "/readyz", "query_string": b"", "headers": []}
    inner: list[dict[str, Any]] = []
    outer: list[dict[str, Any]] = []

    async def send_inner(message: dict[str, Any]) -> None:
        inner.append(message)

    async def receive() -> dict[str, Any]:
        # The first request is being read: the second one comes meanwhile.
        if not inner:
            await application(scope, receive, send_inner)
        return {"type": "http.request", "body": b"{", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        outer.append(message)

    path = "/api/v1/namespaces/default/configmaps"
    scope["extensions"] = {app.EXTENSION: {"user": app.User("ann", ("system:masters",))}}
    first = {**scope, "method": "POST", "path": path}
    await application(first, receive, send)
    assert outer[0]["status"] == 400
    assert inner[0]["status"] == 429
    assert dict(inner[0]["headers"])[b"retry-after"] == b"1"
    told = json.loads(inner[1]["body"])
    assert (told["kind"], told["reason"], told["details"]["retryAfterSeconds"]) == ("Status", "TooManyRequests", 1)
    await application(scope, receive, send)
    assert outer[2]["status"] == 200
    await api.store.close()


async def test_who_does_not_send_his_body_is_not_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "BODY_S", 0.01)
    api = Api(Store.open(tmp_path / "db"), Allocator(Ranges(), random.Random(0)))
    application = app.Application(api, "v1.37.0")
    sent: list[dict[str, Any]] = []
    trickled: list[bytes] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.001)
        trickled.append(b" ")
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/namespaces/default/configmaps",
        "query_string": b"",
        "headers": [],
        "extensions": {app.EXTENSION: {"user": app.User("ann", ("system:masters",))}},
    }
    await application(scope, receive, send)
    assert sent[0]["status"] == 504
    assert dict(sent[0]["headers"])[b"connection"] == b"close"
    assert json.loads(sent[1]["body"])["reason"] == "Timeout"
    assert trickled
    await api.store.close()
