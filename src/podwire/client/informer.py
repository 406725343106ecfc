"""A table that follows a resource of the API server.

How it works: list, page by page; put the whole list into the table in one step; then watch from the list's resource version and
put what comes. The stream ends for many reasons, none of which is news: the watch is opened again from the last version seen,
which bookmarks keep fresh. When the server no longer has that version (410), everything is listed again; the table keeps its
rows meanwhile, and then changes in one step to what the list says, and subscribers hear the difference only.

An object that does not decode is logged once and passed over: the table keeps the last version of it that did, and the watch goes on.

What must not be here: what anybody does with a change. A subscriber's callback that raises ends the informer, and with it the
process: that is a bug to see.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from podwire.client.api import PAGE, Client
from podwire.client.errors import ApiError, Unreachable, from_status
from podwire.client.lines import Lines
from podwire.lib.table import Table
from podwire.objects import codec
from podwire.objects.meta import Object, ObjectMeta
from podwire.objects.resources import Resource

T = TypeVar("T", bound=Object)
Change = Callable[[T | None, T | None], None]

FIRST_RETRY_S, LONGEST_RETRY_S = 0.05, 10.0
WATCH_S = 300  # to twice as long: client-go's figure; the random part keeps watches from ending together
SLICE_S = 0.01  # how long a burst may hold the event loop


class Informer(Generic[T]):
    """Follows a resource in ``table`` while ``run`` runs. ``synced`` is set when the first list is in the table and subscribers know it.

    A key is ``namespace/name`` or ``name``. namespace, labels, fields: what to follow, as the API's selectors. random gives
    a number from 0 to 1.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        indexes: Mapping[str, Callable[[T], Iterable[Hashable]]] | None = None,
        random: Callable[[], float] = random_module.random,
        log: logging.Logger | None = None,
    ) -> None:
        self.table: Table[T] = Table(lambda value: value.key, **dict(indexes or {}))
        self.synced = asyncio.Event()
        self.resource = resource
        self._client, self._random = client, random
        self._where = {"namespace": namespace, "labels": labels, "fields": fields}
        self._log = log or logging.getLogger("podwire.client")
        self._subscribers: list[Change[T]] = []
        self._version = ""
        self._refused: dict[str, str] = {}
        self._failures = 0
        self._said = ""
        self._slice_began = 0.0

    def subscribe(self, callback: Change[T]) -> None:
        """Call ``callback(old, new)`` after each change, on the loop: old is None for a new object, new is None for one that is gone.

        What the table holds already is told at once, as new.
        """
        self._subscribers.append(callback)
        for value in self.table.snapshot():
            callback(None, value)

    async def run(self) -> None:
        """Follow the resource until cancelled. Whatever the server does, this goes on; only a subscriber's error ends it."""
        while True:
            try:
                if not self._version:
                    await self._relist()
                await self._watch()
                continue
            except ApiError as error:
                if error.gone and self._version:
                    self._log.info("%s: %s; listing again", self._name, error.message)
                    self._version = ""
                    continue
                failure: Exception = error
            except (Unreachable, codec.Undecodable) as error:
                failure = error
            await self._back_off(failure)

    @property
    def _name(self) -> str:
        return self.resource.plural + (
            f" ({self._where['fields'] or self._where['labels']})" if self._where["fields"] or self._where["labels"] else ""
        )

    async def _back_off(self, failure: Exception) -> None:
        if str(failure) != self._said:
            self._said = str(failure)
            self._log.warning("%s: %s; trying again", self._name, failure)
        wait_s: float = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures, 20))
        self._failures += 1
        await asyncio.sleep(wait_s * (0.5 + 0.5 * self._random()))

    def _works(self) -> None:
        if self._said:
            self._log.info("%s: following again", self._name)
        self._failures, self._said = 0, ""

    async def _breathe(self) -> None:
        """Let others run if the loop has been held for a slice."""
        now = time.monotonic()
        if now - self._slice_began > SLICE_S:
            await asyncio.sleep(0)
            self._slice_began = time.monotonic()

    # List ----------------------------------------------------------------------------------------------------------------

    async def _relist(self) -> None:
        before = self.table.snapshot()
        replacement = self.table.replacement()
        token, limit = "", PAGE
        while True:
            try:
                page = await self._client.list_page(self.resource, **self._where, limit=limit, continue_=token)
            except ApiError as error:
                if not (error.gone and token):
                    raise
                # The list was too slow for its own revision: begin again, all in one answer.
                token, limit, replacement = "", 0, self.table.replacement()
                continue
            self._slice_began = time.monotonic()
            for value in page.items:
                replacement.add(value)
                self._refused.pop(value.key, None)
                await self._breathe()
            for meta, reason in page.refused:
                former = before.get(self._refuse(meta, reason))
                if former is not None:
                    replacement.add(former)
            token = page.continue_
            if not token:
                break
        changed = replacement.commit()
        self._works()
        after = self.table.snapshot()
        for key in changed:
            self._tell(before.get(key), after.get(key))
            await self._breathe()
        self._version = page.resource_version
        self.synced.set()

    def _refuse(self, meta: ObjectMeta, error: codec.Undecodable) -> str:
        key = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
        if self._refused.get(key) != str(error):
            self._refused[key] = str(error)
            self._log.error("%s %s is passed over: %s", self.resource.kind, key or "(without a name)", error)
        return key

    # Watch -----------------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        timeout_s = WATCH_S + int(WATCH_S * self._random())
        lines = Lines()
        began, heard = time.monotonic(), False
        async with self._client.watch(self.resource, version=self._version, timeout_s=timeout_s, **self._where) as chunks:
            async for chunk in chunks:
                self._slice_began = time.monotonic()
                for line in lines.feed(chunk):
                    self._take(line)
                    await self._breathe()
                if not heard:
                    heard = True
                    self._works()
        if not heard and time.monotonic() - began < 1.0:
            raise Unreachable(f"{self._client.server}: the watch was closed at once")
        self._works()

    def _take(self, line: bytes) -> None:
        event = codec.decode_watch_event(line)
        if event.type == "BOOKMARK":
            self._version = codec.decode_metadata(event.object).resource_version or self._version
            return
        if event.type == "ERROR":
            raise from_status(event.object)
        try:
            value = codec.decode(self.resource.type, event.object)
        except codec.Undecodable as error:
            self._pass_over(event, error)
            return
        key = value.key
        self._refused.pop(key, None)
        if event.type == "DELETED":
            old = self.table.delete(key)
            if old is not None:
                self._tell(value if old == value else old, None)
        elif event.type in ("ADDED", "MODIFIED"):
            old = self.table.put(value)
            if old != value:
                self._tell(old, value)
        self._version = value.metadata.resource_version or self._version

    def _pass_over(self, event: codec.WatchEvent, error: codec.Undecodable) -> None:
        meta = codec.decode_metadata(event.object)
        key = self._refuse(meta, error)
        if event.type == "DELETED":
            self._refused.pop(key, None)
            old = self.table.delete(key)
            if old is not None:
                self._tell(old, None)
        self._version = meta.resource_version or self._version

    def _tell(self, old: T | None, new: T | None) -> None:
        for callback in self._subscribers:
            callback(old, new)
