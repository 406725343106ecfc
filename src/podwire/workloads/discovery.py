"""Which kinds the API server serves, asked of it."""

from __future__ import annotations

import asyncio

import msgspec

from podwire.client.api import Client
from podwire.objects.meta import Object
from podwire.objects.resources import Resource
from podwire.workloads.namespaces.desired import listed


async def kinds(client: Client) -> list[tuple[Resource[Object], frozenset[str]]]:
    """Give all kinds of all groups, each in its preferred version, with their verbs. Raises ApiError, Unreachable."""
    groups = msgspec.json.decode(await client.request("GET", "/apis"))["groups"]
    preferred = [group["preferredVersion"]["groupVersion"] for group in groups]
    paths = ["/api/v1", *(f"/apis/{version}" for version in preferred)]
    answers = await asyncio.gather(*(client.request("GET", path) for path in paths))
    lists = [msgspec.json.decode(answer) for answer in answers]
    return [kind for one in lists for kind in listed(one["groupVersion"], one.get("resources") or ())]
