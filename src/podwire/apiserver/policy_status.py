"""The status of ValidatingAdmissionPolicies, kept up to date: what is wrong with their expressions, looked at once for each generation.

Here: when it is looked at, and the write. Not here: what is wrong (``admission/type_checking.py``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking
"""

from __future__ import annotations

import asyncio
import logging

from podwire.apiserver import keys
from podwire.apiserver.admission import type_checking
from podwire.apiserver.answers import decode
from podwire.apiserver.api import Api, put
from podwire.apiserver.kinds.admission import POLICY
from podwire.store import Change, Unwritable

AGAIN_S = 5.0
_LOG = logging.getLogger("podwire.apiserver")


class Checks:
    """The policies whose last generation was not looked at."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._due: set[str] = {record.key for record in api.store.range(keys.prefix(POLICY))}
        self._wake = asyncio.Event()
        self._wake.set()
        api.store.observe(POLICY.resource, self._changed)

    def _changed(self, change: Change) -> None:
        if change.record is not None:
            self._due.add(change.key)
            self._wake.set()

    async def run(self) -> None:
        """Look at policies as they come, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, set()
            for key in sorted(due):
                await asyncio.sleep(0)
                try:
                    await self._check(key)
                except Unwritable as error:
                    _LOG.error("%s: %s", key, error)
                    self._due.add(key)
                    await asyncio.sleep(AGAIN_S)
                    self._wake.set()

    async def _check(self, key: str) -> None:
        record = self._api.store.latest(key)
        if record is None:
            return
        tree = decode(record.value)
        generation, state = tree["metadata"].get("generation", 0), tree.setdefault("status", {})
        if state.get("observedGeneration") == generation:
            return
        registry = self._api.registry
        found = type_checking.warnings(tree, registry.find, registry.find_kind)
        state["observedGeneration"] = generation
        state["typeChecking"] = {"expressionWarnings": found} if found else {}
        transaction = self._api.store.transaction()
        put(transaction, POLICY, tree)
        await self._api.store.commit(transaction)
