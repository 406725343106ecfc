"""Watch: an answer that goes on, one line for each change.

A change is encoded once, whoever watches, and the same bytes go to all of them. A change that takes an object out of what a watcher
selected is shown to it as a deletion, one that brings it in as an addition. Bookmarks tell a watcher how far it has come when nothing
happens. A watch ends when its time is over, when its client has gone or does not read, and when the server stops; the client begins
another where this one ended. Objects of a kind with several versions are converted as they come (``conversion.py``); as long as a webhook
is waited for, changes wait in the queue of the watch, which is bounded; when it fails, the watch ends with an error.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

import orjson

from podwire.apiserver import conversion, keys, reading, shapes, status, tables
from podwire.apiserver.answers import SLICE, Stream, Tree, decode, encode
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.requests import Form, Request
from podwire.apiserver.selectors import Selection
from podwire.apiserver.validation import Path, forbidden, unsupported
from podwire.store import Change, Compacted, Record, Watch

_LASTS_S = (1800, 3600)  # how long a watch lasts when its client does not say: between these, so that not all end at once
_DECODED = 50
T = TypeVar("T")
_INITIAL_END = "k8s.io/initial-events-end"


def happened(change: Change, chosen: Selection) -> str:
    """Say what a change is to one who selects: ADDED, MODIFIED, DELETED, or nothing (``""``)."""
    was = change.previous is not None and (not chosen or chosen(change.previous))
    is_now = change.record is not None and (not chosen or chosen(change.record))
    if is_now:
        return "MODIFIED" if was else "ADDED"
    return "DELETED" if was else ""


def shown(change: Change, event: str) -> bytes:
    """Give the object that a change is told with. One that is gone, or gone from a selection, carries the revision of the change."""
    if event != "DELETED" and change.record is not None:
        return change.record.value
    if change.record is None and change.last is not None:
        return change.last.value
    if change.previous is None:
        raise RuntimeError(f"deletion of {change.key} without an object")
    tree = decode(change.previous.value)
    tree["metadata"]["resourceVersion"] = str(change.revision)
    return encode(tree)


class _Frames:
    """The lines of one watch, in the form its client wants."""

    def __init__(self, api: Api, kind: Kind, form: Form, included: str) -> None:
        self._api = api
        self._kind = kind
        self._form = form
        self._included = included
        self._columns_sent = False

    def of_change(self, change: Change, event: str) -> bytes:
        if self._form is Form.TABLE:
            return self.line(event, shown(change, event))
        key = (event, self._form)
        frame = change.frames.get(key)
        if not isinstance(frame, bytes):
            frame = change.frames[key] = self.line(event, shown(change, event))
        return frame

    def line(self, event: str, value: bytes) -> bytes:
        if self._form is Form.METADATA:
            value = orjson.dumps(tables.partial(decode(value)))
        elif self._form is Form.TABLE:
            value = orjson.dumps(self._table(decode(value)))
        return b'{"type":"%b","object":%b}\n' % (event.encode(), value)

    def _table(self, tree: Tree) -> Tree:
        """A Table of one row; the columns go with the first one only."""
        metadata = {"resourceVersion": tree["metadata"]["resourceVersion"]}
        table = tables.table(self._kind, [tree], self._api.clock(), include=self._included, metadata=metadata)
        if self._columns_sent:
            table["columnDefinitions"] = None
        self._columns_sent = True
        return table

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        metadata: Tree = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {_INITIAL_END: "true"}
        tree: Tree = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": metadata}
        if self._form is Form.METADATA:
            tree |= {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        elif self._form is Form.TABLE:
            row = {"cells": [], "object": tree}
            tree = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": None, "rows": [row]}
        return b'{"type":"BOOKMARK","object":%b}\n' % orjson.dumps(tree)


class _Session:
    """One watch while it lasts: what wakes it, and why it ends."""

    def __init__(self, api: Api, kind: Kind, watch: Watch, chosen: Selection, frames: _Frames, *, bookmarks: bool) -> None:
        self._api = api
        self._kind = kind
        self._watch = watch
        self._chosen = chosen
        self._frames = frames
        self._bookmarks = bookmarks
        self._bookmark_due = False
        self._ended = False
        self._waiting: asyncio.Task[Any] | None = None

    def stop(self) -> None:
        self._ended = True
        self._watch.wake.set()
        if self._waiting is not None:
            self._waiting.cancel()

    def _remind(self) -> None:
        self._bookmark_due = True
        self._watch.wake.set()

    async def pieces(self, first: list[Record], revision: int, *, initial_end: bool, lasts_s: float) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.call_later(lasts_s, self.stop)
        remind = loop.call_later(self._api.bookmark_s, self._remind) if self._bookmarks else None
        try:
            yield b""
            async for piece in self._initial(first):
                yield piece
            if self._ended:
                return
            if initial_end:
                yield self._frames.bookmark(revision, initial_end=True)
            while not self._ended:
                async for piece in self._taken(self._watch.take()):
                    yield piece
                if self._watch.overflowed:
                    return
                if self._bookmark_due and not self._watch.wake.is_set():
                    self._bookmark_due = False
                    remind = loop.call_later(self._api.bookmark_s, self._remind)
                    yield self._frames.bookmark(self._api.store.revision)
                await self._watch.wake.wait()
        except status.Failure as failure:
            yield _error(failure)
        finally:
            end.cancel()
            if remind is not None:
                remind.cancel()

    async def _initial(self, records: list[Record]) -> AsyncIterator[bytes]:
        step = _DECODED if self._kind.versions is None else conversion.TOGETHER
        for start in range(0, len(records), step):
            some = records[start : start + step]
            if self._kind.versions is not None:
                some = await self._unless_ended(conversion.shown(self._kind, some)) or []
            for at in range(0, len(some), _DECODED):
                lines = [
                    self._frames.line("ADDED", record.value)
                    for record in some[at : at + _DECODED]
                    if not self._chosen or self._chosen(record)
                ]
                if lines:
                    yield b"".join(lines)
                await asyncio.sleep(0)
            if self._ended:
                return

    async def _taken(self, changes: list[Change]) -> AsyncIterator[bytes]:
        """Give the lines of changes; those of a kind with several versions as this watch sees them. Raises Failure."""
        if self._kind.versions is None:
            for piece in self._changes(changes):
                yield piece
            return
        for start in range(0, len(changes), conversion.TOGETHER):
            some = changes[start : start + conversion.TOGETHER]
            seen = await self._unless_ended(conversion.changed(self._kind, some, whole=bool(self._chosen)))
            for piece in self._changes(seen or []):
                yield piece
            if self._ended or self._watch.overflowed:
                return

    async def _unless_ended(self, wanted: Coroutine[Any, Any, T]) -> T | None:
        """Wait for something, but not beyond the end of the watch."""
        if self._ended:
            wanted.close()
            return None
        task = asyncio.create_task(wanted)
        self._waiting = task
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._waiting = None
        return None if task.cancelled() else task.result()

    def _changes(self, changes: list[Change]) -> Iterable[bytes]:
        lines: list[bytes] = []
        size = 0
        for change in changes:
            event = happened(change, self._chosen)
            if not event:
                continue
            lines.append(self._frames.of_change(change, event))
            size += len(lines[-1])
            if size >= SLICE:
                yield b"".join(lines)
                lines.clear()
                size = 0
        if lines:
            yield b"".join(lines)


def watch(api: Api, request: Request, kind: Kind) -> Stream:
    """Answer with a watch. Raises Failure (400, 422, 504)."""
    chosen = reading.select(request, kind)
    asked = reading.revision(request)
    initial = request.flag("sendInitialEvents")
    _check_initial(request)
    if asked > api.store.revision:
        raise status.too_new(asked, api.store.revision)
    prefix = keys.prefix(kind, request.target.namespace)
    whole = initial or (not asked and request.query.get("sendInitialEvents") is None)
    revision = api.store.revision
    form, bookmarks = request.form, request.flag("allowWatchBookmarks")
    frames = _Frames(api, kind, form, shapes.include(request))
    try:
        followed = api.store.watch(
            prefix,
            after=revision if whole or not asked else asked,
            queue=api.watch_queue,
            accepts=(lambda change: bool(happened(change, chosen))) if chosen and kind.versions is None else None,
        )
    except Compacted as error:
        return Stream(200, _too_old(error))
    session = _Session(api, kind, followed, chosen, frames, bookmarks=bookmarks)
    lasts_s = request.number("timeoutSeconds") or random.uniform(*_LASTS_S)
    records = api.store.range(prefix) if whole else []
    stream = Stream(200, session.pieces(records, revision, initial_end=initial and bookmarks, lasts_s=lasts_s), session.stop)
    stream.about = kind
    stream.release = partial(api.store.unwatch, followed)
    followed.on_overflow = partial(_abort, stream)
    return stream


def _abort(stream: Stream) -> None:
    stream.abort()


def _check_initial(request: Request) -> None:
    path, match = Path("resourceVersionMatch"), request.query.get("resourceVersionMatch", "")
    if "sendInitialEvents" not in request.query:
        if match:
            error = forbidden(path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
            raise status.invalid_options("ListOptions", error)
    elif not match:
        error = forbidden(path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        raise status.invalid_options("ListOptions", error)
    elif match != "NotOlderThan":
        raise status.invalid_options("ListOptions", unsupported(path, match, ("NotOlderThan",)))


async def _too_old(error: Compacted) -> AsyncIterator[bytes]:
    yield _error(status.expired(str(error)))


def _error(failure: status.Failure) -> bytes:
    return b'{"type":"ERROR","object":%b}\n' % orjson.dumps(failure.tree())
