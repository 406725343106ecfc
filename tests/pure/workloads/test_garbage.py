"""The garbage collector on a real API: what it does where a kind cannot be listed."""

from __future__ import annotations

import re
from typing import Any

import pytest

import running_apiserver
from podwire.client.api import Client
from podwire.client.errors import ApiError
from podwire.objects.meta import Object
from podwire.objects.resources import CONFIG_MAPS, Resource
from podwire.workloads.garbage import controller
from running_controllers import cluster, until

DEFINITIONS: Resource[Object] = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False, Object
)
WIDGETS, WIDGETS_V2 = (Resource("ex.com", version, "widgets", "Widget", True, Object) for version in ("v1", "v2"))
OPEN = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
DEFINITION: dict[str, Any] = {
    "metadata": {"name": "widgets.ex.com"},
    "spec": {
        "group": "ex.com",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": OPEN},
            {"name": "v2", "served": True, "storage": False, "schema": OPEN},
        ],
        "conversion": {
            "strategy": "Webhook",
            "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"service": {"namespace": "default", "name": "nobody"}}},
        },
    },
}


async def _make_a_kind_that_cannot_be_listed(server: running_apiserver.ApiServer) -> None:
    client = Client.from_kubeconfig(server.kubeconfig())
    try:
        await client.create(DEFINITIONS, DEFINITION)

        async def made() -> bool:
            await client.create(WIDGETS, {"metadata": {"name": "w", "namespace": "default"}})
            return True

        await until(made)
        with pytest.raises(ApiError, match="conversion webhook"):
            await client.get(WIDGETS_V2, "w", "default")
    finally:
        await client.close()


async def test_a_kind_that_cannot_be_listed_holds_up_no_other(
    server: running_apiserver.ApiServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await _make_a_kind_that_cannot_be_listed(server)
    monkeypatch.setattr(controller, "SYNC_S", 3.0)
    async with cluster(server) as (client, _):
        owner = await client.create(CONFIG_MAPS, {"metadata": {"name": "owner", "namespace": "default"}})
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}
        for name, owners in (("owned", [reference]), ("free", [])):
            await client.create(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "default", "ownerReferences": owners}})
        await client.delete(CONFIG_MAPS, "owner", "default")

        async def gone() -> bool:
            try:
                await client.get(CONFIG_MAPS, "owned", "default")
            except ApiError as error:
                return error.not_found
            return False

        await until(gone)
        assert (await client.get(CONFIG_MAPS, "free", "default")).metadata.name == "free"
    assert re.search("going on without: .*widgets", caplog.text)
