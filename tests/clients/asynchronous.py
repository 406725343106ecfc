"""The `kubernetes_asyncio` client: objects, watch, a Pod that is followed until it is ready.

Run by tests/e2e/test_clients.py with a kubeconfig; it ends with 0 when all is as that client expects.
"""

from __future__ import annotations

import asyncio
import uuid

from kubernetes_asyncio import client, config, watch

NAMESPACE = f"asynchronous-{uuid.uuid4().hex[:6]}"


async def ready(core: client.CoreV1Api) -> None:
    pod = {
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "nginx", "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]},
    }
    await core.create_namespaced_pod(NAMESPACE, pod)
    async with watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=web", timeout_seconds=30) as stream:
        async for event in stream:
            conditions = event["object"].status.conditions or []
            if any(one.type == "Ready" and one.status == "True" for one in conditions):
                return
    raise AssertionError("not ready")


async def main() -> None:
    await config.load_kube_config()
    async with client.ApiClient() as api:
        core = client.CoreV1Api(api)
        await core.create_namespace({"metadata": {"name": NAMESPACE}})
        bodies = [{"metadata": {"name": f"c-{number}"}, "data": {"n": str(number)}} for number in range(20)]
        made = await asyncio.gather(*(core.create_namespaced_config_map(NAMESPACE, body) for body in bodies))
        assert len({one.metadata.resource_version for one in made}) == 20
        found = await core.list_namespaced_config_map(NAMESPACE)
        assert {one.metadata.name for one in found.items} >= {f"c-{number}" for number in range(20)}
        await ready(core)
        await core.delete_namespace(NAMESPACE)


if __name__ == "__main__":
    asyncio.run(main())
