"""Companions that somebody deleted come back: the IPAddress of a Service is there as long as the Service has the address.

Writes keep companions in step by themselves (``api.follow``), in one transaction. Here: what goes past that: a companion that is deleted by
hand, objects from before companions were kept.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#ip-address-objects
"""

from __future__ import annotations

import asyncio
import logging

from podwire.apiserver import keys
from podwire.apiserver.answers import decode
from podwire.apiserver.api import Api, follow
from podwire.apiserver.kind import Kind
from podwire.store import Change, Unwritable

AGAIN_S = 5.0
_TOGETHER = 50

_LOG = logging.getLogger("podwire.apiserver")


class Companions:
    """The objects of one kind whose companions may be missing: at first all of them, then those that lost one."""

    def __init__(self, api: Api, kind: Kind, companion: Kind) -> None:
        self._api = api
        self._kind = kind
        self._suspects = {record.key for record in api.store.range(keys.prefix(kind))}
        api.store.observe(companion.resource, self._changed)

    def _changed(self, change: Change) -> None:
        if change.record is None and change.previous is not None:
            parent = decode(change.previous.value).get("spec", {}).get("parentRef", {})
            if parent.get("resource") == self._kind.plural:
                self._suspects.add(keys.key(self._kind, parent.get("namespace", ""), parent.get("name", "")))

    async def repair(self) -> int:
        """Make what is missing; give how many that were. Raises Unwritable."""
        made = 0
        while self._suspects:
            transaction = self._api.store.transaction()
            for _ in range(min(_TOGETHER, len(self._suspects))):
                record = self._api.store.latest(self._suspects.pop())
                if record is not None:
                    follow(transaction, self._kind, None, decode(record.value))
            if transaction.changes:
                made += len(transaction.changes)
                await self._api.store.commit(transaction)
            else:
                await asyncio.sleep(0)
        return made


async def keep(api: Api) -> None:
    """Bring the IPAddresses of Services back, for ever."""
    service, address = api.registry.find("", "v1", "services"), api.registry.find("networking.k8s.io", "v1", "ipaddresses")
    if service is None or address is None:
        return
    companions = Companions(api, service, address)
    while True:
        try:
            await companions.repair()
        except Unwritable as error:
            _LOG.error("the IPAddresses of Services could not be made: %s", error)
        await asyncio.sleep(AGAIN_S)
