"""A small API server for tests: keeps objects of any kind, answers list and watch as a real one does, and misbehaves when told.

It speaks the API's rules, not ours: revisions are one counter for all objects, a list has pages with a token that names the
revision, a watch streams from a revision or answers 410 as an ERROR event, bookmarks come when asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from podwire.client.api import Client
from podwire.client.kubeconfig import Configuration


class ApiServer:
    def __init__(self) -> None:
        self.revision = 10
        self.oldest = 0  # revisions up to this one are compacted
        self.objects: dict[str, dict[str, Any]] = {}  # by path
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []  # revision, event type, path, object
        self.requests: list[str] = []
        self.bodies: list[Any] = []
        self.watchers: set[asyncio.Queue[bytes | None]] = set()
        self.refuse: Callable[[web.Request], web.Response | None] = lambda _request: None
        self.on_page: Callable[[], None] = lambda: None

    def put(self, path: str, **fields: Any) -> dict[str, Any]:
        """Write an object, as ``put("/api/v1/namespaces/default/pods/a", spec={...})``."""
        kind = "MODIFIED" if path in self.objects else "ADDED"
        parts = path.split("/")
        meta = {"name": parts[-1]} | ({"namespace": parts[-3]} if "namespaces" in parts[:-2] else {})
        self.revision += 1
        meta |= fields.pop("metadata", {}) | {"resourceVersion": str(self.revision), "uid": f"uid-of-{parts[-1]}"}
        self.objects[path] = {"metadata": meta} | fields
        self._tell(kind, path, self.objects[path])
        return self.objects[path]

    def remove(self, path: str) -> None:
        gone = self.objects.pop(path)
        self.revision += 1
        self._tell("DELETED", path, gone | {"metadata": gone["metadata"] | {"resourceVersion": str(self.revision)}})

    def _tell(self, kind: str, path: str, tree: dict[str, Any]) -> None:
        self.history.append((self.revision, kind, path, tree))
        for queue in self.watchers:
            queue.put_nowait(event(kind, tree))

    def forget_history(self) -> None:
        """Compact: a watch from an older revision than now is answered with 410."""
        self.oldest = self.revision
        self.history.clear()

    def bookmark(self) -> None:
        for queue in self.watchers:
            queue.put_nowait(event("BOOKMARK", {"metadata": {"resourceVersion": str(self.revision)}}))

    def send_raw(self, line: bytes) -> None:
        for queue in self.watchers:
            queue.put_nowait(line)

    def close_watches(self) -> None:
        for queue in self.watchers:
            queue.put_nowait(None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        body = await request.read()
        self.bodies.append(json.loads(body) if body else None)
        refused = self.refuse(request)
        if refused is not None:
            return refused
        if request.method != "GET":
            return self._write(request, self.bodies[-1])
        if request.query.get("watch"):
            return await self._watch(request)
        if request.path in self.objects:
            return web.json_response(self.objects[request.path])
        resource = request.path.rsplit("/", 1)[-1]
        if not resource.endswith("s"):
            return status(404, "NotFound", f'"{resource}" not found')
        return self._list(request)

    def _write(self, request: web.Request, body: Any) -> web.Response:
        path = request.path
        if request.method == "POST":
            path = f"{path}/{body['metadata'].get('name', 'generated')}"
            if path in self.objects:
                return status(409, "AlreadyExists", f"{path} already exists")
            return web.json_response(self.put(path, **body), status=201)
        if path not in self.objects:
            return status(404, "NotFound", f"{path} not found")
        if request.method == "DELETE":
            self.remove(path)
            return web.json_response({"kind": "Status", "status": "Success"})
        merged = self.objects[path] | body if request.method == "PATCH" else body
        merged["metadata"] = self.objects[path]["metadata"] | body.get("metadata", {})
        return web.json_response(self.put(path, **merged))

    def _selected(self, path: str) -> list[str]:
        head, plural = path.rsplit("/", 1)
        return sorted(key for key in self.objects if key.startswith(head) and key.split("/")[-2] == plural)

    def _list(self, request: web.Request) -> web.Response:
        token = request.query.get("continue", "")
        revision, start = (int(part) for part in token.split(":")) if token else (self.revision, 0)
        if token and revision <= self.oldest:
            return status(410, "Expired", "The provided continue parameter is too old")
        keys = self._selected(request.path)
        limit = int(request.query.get("limit", "0")) or len(keys) or 1
        items = [self.objects[key] for key in keys[start : start + limit]]
        meta = {"resourceVersion": str(revision)}
        if start + limit < len(keys):
            meta["continue"] = f"{revision}:{start + limit}"
        answer = web.json_response({"metadata": meta, "items": items or None})
        self.on_page()
        return answer

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        since = int(request.query["resourceVersion"])
        if since < self.oldest:
            await answer.write(event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}))
            return answer
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        prefix = request.path.rsplit("/", 1)[0]
        for revision, kind, path, tree in self.history:
            if revision > since and path.startswith(prefix) and path.split("/")[-2] == request.path.rsplit("/", 1)[-1]:
                queue.put_nowait(event(kind, tree))
        self.watchers.add(queue)
        try:
            while (line := await queue.get()) is not None:
                await answer.write(line)
        finally:
            self.watchers.discard(queue)
        return answer


def event(kind: str, tree: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": tree}).encode() + b"\n"


def status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}, status=code)


@asynccontextmanager
async def running(server: ApiServer, port: int = 0) -> AsyncIterator[int]:
    """Serve on loopback; gives the port."""
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    try:
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    finally:
        server.close_watches()
        await runner.cleanup()


@asynccontextmanager
async def client_of(server: ApiServer) -> AsyncIterator[Client]:
    async with running(server) as port, Client(Configuration(f"http://127.0.0.1:{port}")) as client:
        yield client


async def until(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    """Wait until the condition holds; fails after the limit."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - a condition of many things
            await asyncio.sleep(0.002)
