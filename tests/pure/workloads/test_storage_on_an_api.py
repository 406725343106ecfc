"""Claims and volumes: the controllers on a real API server, with directories on a real disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import running_apiserver
from podwire.client.api import Client
from podwire.client.errors import ApiError
from podwire.objects.resources import EVENTS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STATEFUL_SETS, STORAGE_CLASSES
from running_controllers import cluster, namespace, until


def claim(name: str, size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"metadata": {"name": name}, "spec": body | spec}


def pod(name: str, *volumes: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "busybox"}], "volumes": list(volumes)}}


async def a_class(client: Client, name: str, **more: Any) -> str:
    await client.create(STORAGE_CLASSES, {"metadata": {"name": name}, "provisioner": "podwire.dev/directory"} | more)
    return name


async def bound(client: Client, where: str, name: str) -> Any:
    async def is_bound() -> Any:
        found = await client.get(PERSISTENT_VOLUME_CLAIMS, name, where)
        return found if found.status.phase == "Bound" else None

    return await until(is_bound)


async def reasons(client: Client, where: str, name: str) -> set[str]:
    return {event.reason for event in await client.list(EVENTS, where) if event.involved_object.name == name}


async def test_a_volume_is_made_grows_and_goes_with_its_claim(server: running_apiserver.ApiServer, tmp_path: Path) -> None:
    async with cluster(server, state_dir=str(tmp_path)) as (client, _):
        where = await namespace(client, "dynamic")
        fast = await a_class(client, "fast", allowVolumeExpansion=True)
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim("data", storageClassName=fast), where)
        one = await bound(client, where, "data")
        assert (one.spec.volume_name, one.status.capacity["storage"]) == (f"pvc-{one.metadata.uid}", "1Gi")
        folder = tmp_path / "volumes" / one.spec.volume_name
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "kept").write_text("1")
        volume = await client.get(PERSISTENT_VOLUMES, one.spec.volume_name)
        assert volume.metadata.finalizers == ("kubernetes.io/pv-protection",)

        for size, words in (("500Mi", "field can not be less than status.capacity"), ("2Gi", "")):
            body = {"spec": {"resources": {"requests": {"storage": size}}}}
            try:
                await client.patch(PERSISTENT_VOLUME_CLAIMS, "data", where, body)
                said = ""
            except ApiError as error:
                said = error.message
            assert words in said
            assert bool(words) == bool(said)

        async def grown() -> bool:
            return (await client.get(PERSISTENT_VOLUME_CLAIMS, "data", where)).status.capacity["storage"] == "2Gi"

        await until(grown)
        with pytest.raises(ApiError, match="spec is immutable after creation except"):
            await client.patch(PERSISTENT_VOLUME_CLAIMS, "data", where, {"spec": {"accessModes": ["ReadWriteMany"]}})

        # In use, it stays; with the last Pod it goes, and with it the volume and what lies there.
        await client.create(PODS, pod("user", {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}), where)

        async def scheduled() -> Any:
            return (await client.get(PODS, "user", where)).spec.node_name

        await until(scheduled)
        await client.delete(PERSISTENT_VOLUME_CLAIMS, "data", where)
        assert (await client.get(PERSISTENT_VOLUME_CLAIMS, "data", where)).metadata.deletion_timestamp is not None
        assert (folder / "kept").exists()
        await client.delete(PODS, "user", where)

        async def gone() -> bool:
            volumes = [one.name for one in await client.list(PERSISTENT_VOLUMES)]
            return not await client.list(PERSISTENT_VOLUME_CLAIMS, where) and volume.name not in volumes

        await until(gone)
        assert not folder.exists()
        wanted = {"ExternalProvisioning", "Provisioning", "ProvisioningSucceeded", "Resizing", "VolumeResizeSuccessful"}

        async def told() -> bool:
            return wanted <= await reasons(client, where, "data")

        await until(told)


async def test_a_class_that_waits_for_the_first_consumer(server: running_apiserver.ApiServer, tmp_path: Path) -> None:
    async with cluster(server, state_dir=str(tmp_path)) as (client, _):
        where = await namespace(client, "delayed")
        late = await a_class(client, "late", volumeBindingMode="WaitForFirstConsumer", reclaimPolicy="Retain")
        await client.create(PODS, pod("user", {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}), where)

        async def says() -> Any:
            conditions = (await client.get(PODS, "user", where)).status.conditions
            return any('persistentvolumeclaim "data" not found' in one.message for one in conditions)

        await until(says)
        other = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim("", storageClassName=late)["spec"]}}}
        await client.create(PODS, pod("other", other), where)
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim("unused", storageClassName=late), where)
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim("data", storageClassName=late), where)
        one = await bound(client, where, "data")

        async def scheduled() -> Any:
            return (await client.get(PODS, "user", where)).spec.node_name

        node = await until(scheduled)
        assert node
        assert "volume.kubernetes.io/selected-node" in one.metadata.annotations
        own = await bound(client, where, "other-scratch")
        assert [owner.kind for owner in own.metadata.owner_references] == ["Pod"]

        async def told() -> bool:
            return "WaitForFirstConsumer" in await reasons(client, where, "unused")

        await until(told)
        assert (await client.get(PERSISTENT_VOLUME_CLAIMS, "unused", where)).status.phase == "Pending"

        # The ephemeral claim ends with its Pod; its volume is kept, as its class says.
        await client.delete(PODS, "other", where)

        async def released() -> Any:
            found = await client.get(PERSISTENT_VOLUMES, own.spec.volume_name)
            return found.status.phase == "Released"

        await until(released)
        assert (tmp_path / "volumes" / own.spec.volume_name).is_dir()
        await client.delete(PERSISTENT_VOLUMES, own.spec.volume_name)

        async def gone() -> bool:
            return own.spec.volume_name not in [volume.name for volume in await client.list(PERSISTENT_VOLUMES)]

        await until(gone)


async def test_volumes_that_people_make_are_taken_once(server: running_apiserver.ApiServer, tmp_path: Path) -> None:
    async with cluster(server, state_dir=str(tmp_path)) as (client, _):
        where = await namespace(client, "static")
        for name, size in (("small", "1Gi"), ("large", "5Gi")):
            csi = {"driver": "directory.podwire.dev", "volumeHandle": "/etc"}
            spec = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "csi": csi}
            await client.create(PERSISTENT_VOLUMES, {"metadata": {"name": name}, "spec": spec})
        for number in range(3):
            await client.create(PERSISTENT_VOLUME_CLAIMS, claim(f"c{number}", storageClassName="manual"), where)

        async def both() -> Any:
            claims = await client.list(PERSISTENT_VOLUME_CLAIMS, where)
            taken = sorted(one.spec.volume_name for one in claims if one.status.phase == "Bound")
            return taken == ["large", "small"]

        await until(both)
        [left] = [one for one in await client.list(PERSISTENT_VOLUME_CLAIMS, where) if not one.spec.volume_name]
        [held] = [one for one in await client.list(PERSISTENT_VOLUME_CLAIMS, where) if one.spec.volume_name == "small"]
        await client.delete(PERSISTENT_VOLUME_CLAIMS, held.name, where)

        async def released() -> bool:
            return (await client.get(PERSISTENT_VOLUMES, "small")).status.phase == "Released"

        await until(released)
        await client.patch(PERSISTENT_VOLUMES, "small", "", {"spec": {"claimRef": None}})
        assert (await bound(client, where, left.name)).spec.volume_name == "small"


async def test_a_stateful_set_keeps_its_claims(server: running_apiserver.ApiServer, tmp_path: Path) -> None:
    async with cluster(server, state_dir=str(tmp_path)) as (client, _):
        where = await namespace(client, "sets")
        cls = await a_class(client, "for-sets", volumeBindingMode="WaitForFirstConsumer")
        template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "redis"}]}}
        spec = {
            "replicas": 2,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template,
            "volumeClaimTemplates": [claim("data", storageClassName=cls)],
        }
        await client.create(STATEFUL_SETS, {"metadata": {"name": "db"}, "spec": spec}, where)

        async def ready(count: int) -> bool:
            found = (await client.get(STATEFUL_SETS, "db", where)).status
            return (found.ready_replicas, found.replicas) == (count, count)

        await until(lambda: ready(2))
        first = {one.name: one.spec.volume_name for one in await client.list(PERSISTENT_VOLUME_CLAIMS, where)}
        assert sorted(first) == ["data-db-0", "data-db-1"]
        await client.patch(STATEFUL_SETS, "db", where, {"spec": {"replicas": 1}})
        await until(lambda: ready(1))
        await client.patch(STATEFUL_SETS, "db", where, {"spec": {"replicas": 2}})
        await until(lambda: ready(2))
        assert first == {one.name: one.spec.volume_name for one in await client.list(PERSISTENT_VOLUME_CLAIMS, where)}
        policy = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"}, "replicas": 1}
        await client.patch(STATEFUL_SETS, "db", where, {"spec": policy})

        async def one_left() -> bool:
            return [one.name for one in await client.list(PERSISTENT_VOLUME_CLAIMS, where)] == ["data-db-0"]

        await until(one_left)
