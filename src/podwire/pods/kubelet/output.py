"""What a container has logged: which run is meant, what of it, and the kubelet's words where there is nothing.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path

from podwire.linux.inotify import FolderWatches
from podwire.pods.host import Host
from podwire.pods.kubelet.containers import Place
from podwire.pods.kubelet.upgrade import Refused
from podwire.pods.logs.file import path_of
from podwire.pods.logs.reader import Selection, follow, read
from podwire.pods.runs import State
from podwire.pods.standard_streams import run_of

_TRUE = ("true", "1", "True", "t", "T", "TRUE", "")
_STREAMS = {"": "", "All": "", "Stdout": "stdout", "Stderr": "stderr"}


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean of the query; the bare word is true."""
    return name in query and query[name] in _TRUE


def selection(query: Mapping[str, str], now_ns: int) -> Selection:
    """What of the log is wanted. Raises Refused (400)."""
    try:
        numbers = {name: int(query[name]) for name in ("tailLines", "limitBytes", "sinceSeconds") if query.get(name)}
        since = None
        if "sinceSeconds" in numbers:
            since = now_ns - numbers["sinceSeconds"] * 1_000_000_000
        elif query.get("sinceTime"):
            since = int(datetime.fromisoformat(query["sinceTime"]).timestamp()) * 1_000_000_000
        stream = _STREAMS[query.get("stream", "")]
    except (ValueError, KeyError) as error:
        raise Refused(400, f"invalid log options: {error}") from error
    return Selection(numbers.get("tailLines"), since, numbers.get("limitBytes"), flag(query, "timestamps"), stream)


def number_of(place: Place, *, previous: bool) -> int:
    """Which run's log is meant. Raises Refused (400)."""
    run, pod, name = place.run, place.pod.name, place.container.name
    ran_before = run.last is not None or (run.state is State.TERMINATED and run.restarts > 0)
    if previous:
        if run.state is State.WAITING and run.last is not None:
            return run.restarts  # the run that ended last
        if not ran_before or run.restarts == 0:
            raise Refused(400, f'previous terminated container "{name}" in pod "{pod}" not found')
        return run.restarts - 1
    if run.state is State.WAITING and run.last is None:
        raise Refused(400, f'container "{name}" in pod "{pod}" is waiting to start: {run.reason or "ContainerCreating"}')
    return run.restarts


async def pieces(
    host: Host, watches: FolderWatches, place: Place, number: int, what: Selection, *, following: bool
) -> AsyncIterator[bytes]:
    """The log of a run, piece by piece; following, as long as it runs."""
    path = path_of(Path(host.records.path("")), place.uid, place.container.name, number)
    if not following:
        try:
            async for piece in read(path, what):
                yield piece
        except FileNotFoundError:
            return
        return
    ended = asyncio.Event()

    async def wait() -> None:
        run = place.run
        await place.over(number)
        if run.program:
            await host.streams.logs.drained(run_of(run.program))
        ended.set()

    waiting = asyncio.create_task(wait())
    try:
        async for piece in follow(path, what, watches, ended):
            yield piece
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
