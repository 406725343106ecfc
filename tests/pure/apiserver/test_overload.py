"""What a server that has too much to do says."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from podwire.apiserver import app
from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.api import Api
from podwire.apiserver.authentication import Tokens
from podwire.store import Store


async def test_too_many_requests_are_asked_to_come_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "IN_FLIGHT", 1)
    api = Api(Store.open(tmp_path / "db"), Allocator(Ranges(), random.Random(0)))
    application = app.Application(api, Tokens(api.store), "v1.37.0")
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
    first = {**scope, "method": "POST", "path": path, "extensions": {app.EXTENSION: {"user": app.User("ann", ("system:masters",))}}}
    await application(first, receive, send)
    assert outer[0]["status"] == 400
    assert inner[0]["status"] == 429
    assert dict(inner[0]["headers"])[b"retry-after"] == b"1"
    told = json.loads(inner[1]["body"])
    assert (told["kind"], told["reason"], told["details"]["retryAfterSeconds"]) == ("Status", "TooManyRequests", 1)
    await application(scope, receive, send)
    assert outer[2]["status"] == 200
    await api.store.close()
