"""Events go after an hour without a change, so that a cluster that runs for long does not fill up with what happened.

Source: kube-apiserver's ``--event-ttl``, https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from podwire.apiserver.answers import decode
from podwire.apiserver.api import Api, remove
from podwire.apiserver.kind import Kind
from podwire.store import Change, Unwritable

EVENT_TTL_S = 3600.0
SWEEP_S = 60.0
_TOGETHER = 50

_LOG = logging.getLogger("podwire.apiserver")


class Expiry:
    """The objects of one kind in the order in which they were last written. After a restart all count as written at the start."""

    def __init__(self, api: Api, kind: Kind, ttl_s: float, now: Callable[[], float]) -> None:
        self._api = api
        self._kind = kind
        self._ttl_s = ttl_s
        self._now = now
        self._written: deque[tuple[float, str, int]] = deque(
            (now(), record.key, record.revision) for record in api.store.range(f"{kind.resource}/")
        )
        api.store.observe(kind.resource, self._changed)

    def _changed(self, change: Change) -> None:
        if change.record is not None:
            self._written.append((self._now(), change.key, change.revision))

    async def sweep(self) -> int:
        """Delete what is due; give how many that were. Raises Unwritable."""
        deleted = 0
        limit = self._now() - self._ttl_s
        while self._written and self._written[0][0] <= limit:
            transaction = self._api.store.transaction()
            while self._written and self._written[0][0] <= limit and len(transaction.changes) < _TOGETHER:
                _, key, revision = self._written.popleft()
                record = self._api.store.latest(key)
                if record is not None and record.revision == revision:
                    remove(transaction, self._kind, decode(record.value))
            if transaction.changes:
                deleted += len(transaction.changes)
                await self._api.store.commit(transaction)
        return deleted


async def keep(api: Api) -> None:
    """Let Events expire, for ever."""
    kind = api.registry.find("", "v1", "events")
    if kind is None:
        return
    expiry = Expiry(api, kind, EVENT_TTL_S, asyncio.get_running_loop().time)
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await expiry.sweep()
        except Unwritable as error:
            _LOG.error("Events could not be deleted: %s", error)
