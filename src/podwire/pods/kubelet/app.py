"""A kubelet's paths, as an ASGI application.

    /containerLogs/NAMESPACE/POD/CONTAINER   /exec, /attach/NAMESPACE/POD[/UID]/CONTAINER   /portForward/NAMESPACE/POD[/UID]
    /run/NAMESPACE/POD[/UID]/CONTAINER       /pods  /runningpods/  /healthz  /stats/summary  /stats/usage  /configz
    /metrics  /metrics/cadvisor  /metrics/resource

Who may is asked first. What goes wrong is answered in plain text, as by a kubelet; the API server makes a Status of it.

Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/ (the paths and their subresources)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec

from podwire.client.errors import ApiError, Unreachable
from podwire.daemon.http_server import EXTENSION
from podwire.linux.errors import KernelRefused
from podwire.linux.inotify import FolderWatches
from podwire.pods.admission import CannotStart
from podwire.pods.host import Host
from podwire.pods.kubelet import attachment, channels, containers, forwarding, output, pages, resources
from podwire.pods.kubelet.access import Access
from podwire.pods.kubelet.channels import Wanted
from podwire.pods.kubelet.containers import Workers
from podwire.pods.kubelet.execution import Executions
from podwire.pods.kubelet.upgrade import Refused
from podwire.pods.kubelet.usage import NODE, Measured, Meter, OwnNamespace

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Words = dict[str, list[str]]

_LOG = logging.getLogger("podwire.kubelet")
_TEXT, _JSON = b"text/plain; charset=utf-8", b"application/json"


class Kubelet:
    """``workers`` gives those of the node's Pods."""

    def __init__(self, host: Host, workers: Workers, access: Access) -> None:
        self._host, self._workers, self._access = host, workers, access
        self._executions = Executions(host)
        self.watches = FolderWatches()
        self._began = time.time()
        self._processes = OwnNamespace()
        self._meter = Meter(self._processes.read)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = False

        async def sending(message: dict[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            headers = dict(scope["headers"])
            certificate = scope["extensions"][EXTENSION]["certificate"]
            authorization = headers.get(b"authorization", b"").decode("latin-1")
            await self._access.check(scope["method"], scope["path"], certificate, authorization)
            await self._respond(scope, receive, sending)
        except Refused as refused:
            await _send(send, refused.code, f"{refused}\n".encode(), headers=refused.headers)
        except (CannotStart, KernelRefused, ApiError, Unreachable) as error:
            await _send(send, 500, f"{error}\n".encode())
        except ConnectionError:
            return  # the client is gone
        except Exception as error:
            _LOG.exception("%s %s", scope["method"], scope["path"])
            if not started:
                await _send(send, 500, f"{type(error).__name__} while the request was handled\n".encode())

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        words: Words = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        match scope["path"].strip("/").split("/"):
            case ["exec", namespace, pod, *uid, container] if len(uid) < 2:
                await self._exec(scope, words, containers.find(self._workers, namespace, pod, container, *uid))
            case ["attach", namespace, pod, *uid, container] if len(uid) < 2:
                place = containers.find(self._workers, namespace, pod, container, *uid)
                wanted = _wanted(words)
                place.running()
                if wanted.stdin and (command := self._executions.own_command(place)):
                    await self._executions.run_own(place, command, wanted, channels.accept(scope, wanted))
                    return
                await attachment.attach(self._host, self.watches, place, wanted, await channels.accept(scope, wanted))
            case ["run", namespace, pod, *uid, container] if len(uid) < 2 and scope["method"] == "POST":
                await self._run(words, containers.find(self._workers, namespace, pod, container, *uid), send)
            case ["portForward", namespace, pod, *uid] if len(uid) < 2:
                worker = containers.find_pod(self._workers, namespace, pod, *uid)
                ports = words.get("ports", []) + words.get("port", [])
                await forwarding.forward(worker, scope, ports)
            case ["containerLogs", namespace, pod, container]:
                await self._logs(words, containers.find(self._workers, namespace, pod, container), receive, send)
            case rest if scope["method"] in ("GET", "HEAD"):
                await self._page(rest, send)
            case _:
                raise Refused(404, "404 page not found")

    async def _page(self, parts: list[str], send: Send) -> None:
        node = self._host.facts.name
        match parts:
            case ["healthz"] | ["healthz", "ping" | "log" | "syncloop"]:
                await _send(send, 200, b"ok")
            case ["pods"]:
                tree = await self._host.client.request("GET", "/api/v1/pods", query={"fieldSelector": f"spec.nodeName={node}"})
                await _send(send, 200, tree, _JSON)
            case ["runningpods"]:
                await _send(send, 200, msgspec.json.encode(self._running()), _JSON)
            case ["stats", "summary"]:
                measured = await self._measured()
                await _send(send, 200, msgspec.json.encode(pages.summary(node, self._workers(), self._began, measured)), _JSON)
            case ["stats", "usage"]:
                measured = await self._measured()
                if NODE not in measured.usage:
                    raise Refused(503, "what is used is not known here")
                await _send(send, 200, msgspec.json.encode(resources.usage(measured)), _JSON)
            case ["metrics"]:
                await _send(send, 200, pages.metrics(node, list(self._workers()), self._began).encode(), _TEXT)
            case ["metrics", "cadvisor"]:
                await _send(send, 200, pages.interface_metrics(self._workers()).encode(), _TEXT)
            case ["metrics", "resource"]:
                await _send(send, 200, resources.metrics(await self._measured(), self._workers()).encode(), _TEXT)
            case ["metrics", "probes"]:
                await _send(send, 200, b"", _TEXT)
            case ["configz"]:
                await _send(
                    send,
                    200,
                    msgspec.json.encode({"kubeletconfig": {"port": 10250, "clusterDNS": list(self._host.facts.cluster_dns)}}),
                    _JSON,
                )
            case _:
                raise Refused(404, "404 page not found")

    async def _measured(self) -> Measured:
        """Measure; where the node's processes are not to be seen, nothing is told of them."""
        try:
            return await resources.measure(self._host, self._meter, list(self._workers()))
        except OSError as error:
            _LOG.warning("what is used is not known: %s", error)
            return Measured(0.0)

    def _running(self) -> dict[str, Any]:
        items = []
        for worker in self._workers():
            if worker.namespace is not None:
                pod = worker.pod
                metadata = {"name": pod.name, "namespace": pod.namespace, "uid": worker.record.uid}
                items.append(
                    {"metadata": metadata, "spec": {"containers": [{"name": one.name, "image": one.image} for one in pod.spec.containers]}}
                )
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}

    async def _exec(self, scope: Scope, words: Words, place: containers.Place) -> None:
        command, wanted = words.get("command", []), _wanted(words)
        if not command or not command[0]:
            raise Refused(400, "you must specify at least 1 command for the container")
        place.running()
        await self._executions.run(place, command, wanted, await channels.accept(scope, wanted))

    async def _run(self, words: Words, place: containers.Place, send: Send) -> None:
        """The oldest way: a command, and its output as the answer."""
        command = words.get("cmd", [""])[0].split()
        if not command:
            raise Refused(400, "you must specify at least 1 command for the container")
        program = await self._executions.program(place, command, tty=False)
        name = place.run.program or f"pod/{place.uid}/{place.container.name}/0"
        status, said = await self._host.programs.output(name, program, program.argv)
        await _send(send, 200 if status == 0 else 500, said, _TEXT)

    async def _logs(self, words: Words, place: containers.Place, receive: Receive, send: Send) -> None:
        query = {name: values[-1] for name, values in words.items()}
        what = output.selection(query, time.time_ns())
        number = output.number_of(place, previous=output.flag(query, "previous"))
        following = output.flag(query, "follow") and not output.flag(query, "previous")
        pieces = output.pieces(self._host, self.watches, place, number, what, following=following)
        await _stream(receive, send, pieces)


def _wanted(words: Words) -> Wanted:
    query = {name: values[-1] for name, values in words.items()}
    wanted = Wanted(*(output.flag(query, name) for name in ("input", "output", "error", "tty")))
    if not (wanted.stdin or wanted.stdout or wanted.stderr):
        raise Refused(400, "you must specify at least 1 of stdin, stdout, stderr")
    if wanted.tty and wanted.stderr:
        return Wanted(wanted.stdin, wanted.stdout, stderr=False, tty=True)
    return wanted


async def _send(send: Send, code: int, body: bytes, content_type: bytes = _TEXT, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    own = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": code, "headers": own})
    await send({"type": "http.response.body", "body": body})


async def _stream(receive: Receive, send: Send, pieces: AsyncIterator[bytes]) -> None:
    """Send an answer in pieces, until its end or until the client goes."""

    async def sending() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def going() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    work, gone = asyncio.create_task(sending()), asyncio.create_task(going())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
