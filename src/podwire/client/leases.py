"""Leader election: of several equal processes, one works.

How it works: whoever holds the Lease writes its time every few seconds; another may take it when it has not changed for its
whole duration, measured on one's own clock from when one saw it change, so that clocks need not agree. Each write is refused by
the API if somebody else wrote first. A holder that cannot write for longer than ``renew_limit_s``, which is shorter than the
duration, stops: then no two ever work at the same time.

Source: https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import asyncio
import random as random_module
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from podwire.client.api import Client, Tree
from podwire.client.errors import ApiError, Unreachable
from podwire.objects.apps import Lease
from podwire.objects.resources import LEASES


class LeadershipLost(Exception):
    """Somebody else leads now, or nobody can tell: the work was stopped."""


class Election:
    """Takes part in the election for one Lease as ``identity``. Times are in seconds, Kubernetes' own defaults."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration_s: float = 15.0,
        renew_limit_s: float = 10.0,
        retry_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._client, self._namespace, self._name, self._identity = client, namespace, name, identity
        self._duration_s, self._renew_limit_s, self._retry_s = duration_s, renew_limit_s, retry_s
        self._clock, self._now, self._random = clock, now, random
        self._seen = ""
        self._seen_at = 0.0

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait to be elected, then run ``work`` until it returns.

        Raises LeadershipLost, when the work has been cancelled, and what ``work`` raises.
        """
        while not await self._tried():
            await self._pause()
        working = asyncio.ensure_future(work())
        holding = asyncio.create_task(self._hold())
        try:
            await asyncio.wait({working, holding}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise LeadershipLost(f"lease {self._namespace}/{self._name} could not be renewed")
        finally:
            for task in (working, holding):
                task.cancel()
            await asyncio.gather(working, holding, return_exceptions=True)

    async def _pause(self) -> None:
        await asyncio.sleep(self._retry_s * (1.0 + 0.2 * self._random()))

    async def _hold(self) -> None:
        """Renew until it fails for too long."""
        renewed = self._clock()
        while self._clock() - renewed < self._renew_limit_s:
            await self._pause()
            if await self._tried():
                renewed = self._clock()

    async def _tried(self) -> bool:
        """Take or renew the Lease; say whether it is ours."""
        try:
            async with asyncio.timeout(self._renew_limit_s):
                return await self._take()
        except (ApiError, Unreachable, TimeoutError):
            return False

    async def _take(self) -> bool:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except ApiError as error:
            if not error.not_found:
                raise
            await self._client.create(LEASES, self._document(None), self._namespace)
            return True
        version = lease.metadata.resource_version
        if version != self._seen:
            self._seen, self._seen_at = version, self._clock()
        held = lease.spec.holder_identity not in ("", self._identity)
        if held and self._clock() - self._seen_at < max(self._duration_s, lease.spec.lease_duration_seconds):
            return False
        await self._client.update(LEASES, self._document(lease))
        return True

    def _document(self, lease: Lease | None) -> Tree:
        at = f"{self._now():%Y-%m-%dT%H:%M:%S.%fZ}"
        mine = lease is not None and lease.spec.holder_identity == self._identity
        spec: Tree = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration_s)),
            "renewTime": at,
            "acquireTime": lease.spec.acquire_time if mine and lease is not None else at,
            "leaseTransitions": 0 if lease is None else lease.spec.lease_transitions + (0 if mine else 1),
        }
        meta: Tree = {"name": self._name, "namespace": self._namespace}
        if lease is not None:
            meta["resourceVersion"] = lease.metadata.resource_version
        return {"metadata": meta, "spec": spec}
