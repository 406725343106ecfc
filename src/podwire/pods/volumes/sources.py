"""The ConfigMaps and Secrets that the Pods of a node refer to, each followed by its name for as long as a Pod does.

A node may not list all Secrets: it watches single named ones, and only those of its Pods. Two Pods that refer to the same object share
the watch. Every watch is a connection, so these have a client of their own, without the limit that others' requests wait at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from podwire.client.api import Client
from podwire.client.informer import Informer
from podwire.objects.core import ConfigMap, Secret
from podwire.objects.meta import Object
from podwire.objects.resources import CONFIG_MAPS, SECRETS, Resource

T = TypeVar("T", bound=Object)
Key = tuple[str, str, str]
_PATIENCE_S = 10.0


@dataclass
class _Followed:
    informer: Informer[Any]
    task: asyncio.Task[None]
    wake: set[Callable[[], None]] = field(default_factory=set)


class Sources:
    """All that is followed on this node, counted by who wants it."""

    def __init__(self, client: Client, log: logging.Logger) -> None:
        self._client, self._log = client, log
        self._followed: dict[Key, _Followed] = {}

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [followed.task for followed in self._followed.values()]
        self._followed.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    def follow(self, resource: Resource[T], namespace: str, name: str, wake: Callable[[], None]) -> None:
        """Follow an object from now on; ``wake`` is called whenever it has changed."""
        key = (resource.plural, namespace, name)
        if key not in self._followed:
            informer = Informer(self._client, resource, namespace=namespace, fields=f"metadata.name={name}", log=self._log)
            task = asyncio.create_task(informer.run(), name=f"informer {resource.plural} {namespace}/{name}")
            self._followed[key] = _Followed(informer, task)
            informer.subscribe(lambda _old, _new: self._changed(key))
        self._followed[key].wake.add(wake)

    def leave(self, resource: Resource[T], namespace: str, name: str, wake: Callable[[], None]) -> None:
        """The caller no longer needs the object."""
        key = (resource.plural, namespace, name)
        followed = self._followed.get(key)
        if followed is not None:
            followed.wake.discard(wake)
            if not followed.wake:
                followed.task.cancel()
                del self._followed[key]

    def _changed(self, key: Key) -> None:
        for wake in list(self._followed[key].wake) if key in self._followed else ():
            wake()

    def get(self, resource: Resource[T], namespace: str, name: str) -> T | None:
        """The object as it is now; None: it does not exist."""
        followed = self._followed[resource.plural, namespace, name]
        return cast("T | None", followed.informer.table.get(f"{namespace}/{name}"))

    async def known(self, resource: Resource[T], namespace: str, name: str) -> bool:
        """Wait until it is known whether the object exists; False: it does not become known."""
        synced = self._followed[resource.plural, namespace, name].informer.synced
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await synced.wait()
        return synced.is_set()


class Interest:
    """What one Pod refers to. ``changed`` is set whenever one of these objects has."""

    def __init__(self, sources: Sources, namespace: str) -> None:
        self.changed = asyncio.Event()
        self._sources, self._namespace = sources, namespace
        self._wanted: set[tuple[str, str]] = set()

    def want(self, config_maps: Iterable[str], secrets: Iterable[str]) -> None:
        """Follow exactly these."""
        wanted = {("configmaps", name) for name in config_maps} | {("secrets", name) for name in secrets}
        for plural, name in wanted - self._wanted:
            self._sources.follow(_RESOURCES[plural], self._namespace, name, self.changed.set)
        for plural, name in self._wanted - wanted:
            self._sources.leave(_RESOURCES[plural], self._namespace, name, self.changed.set)
        self._wanted = wanted

    async def unknown(self) -> list[str]:
        """Wait until all of it is known; gives the kinds of which something does not become known."""
        wanted = sorted(self._wanted)
        known = await asyncio.gather(*(self._sources.known(_RESOURCES[plural], self._namespace, name) for plural, name in wanted))
        return sorted({_RESOURCES[plural].kind.lower() for (plural, _), is_known in zip(wanted, known, strict=True) if not is_known})

    def config_maps(self) -> dict[str, ConfigMap]:
        return self._held(CONFIG_MAPS)

    def secrets(self) -> dict[str, Secret]:
        return self._held(SECRETS)

    def _held(self, resource: Resource[T]) -> dict[str, T]:
        found = {name: self._sources.get(resource, self._namespace, name) for plural, name in self._wanted if plural == resource.plural}
        return {name: value for name, value in found.items() if value is not None}

    def close(self) -> None:
        """The Pod is gone."""
        self.want((), ())


_RESOURCES: dict[str, Resource[Any]] = {"configmaps": CONFIG_MAPS, "secrets": SECRETS}
