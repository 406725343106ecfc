"""The `kubernetes` Python client: objects, watch, patches of each kind, pages, leader election, and what it says of errors.

Run by tests/e2e/test_clients.py with a kubeconfig; it ends with 0 when all is as that client expects.
"""

from __future__ import annotations

import threading
import time
import uuid

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import stream

NAMESPACE = f"official-{uuid.uuid4().hex[:6]}"


def settings(name: str, **data: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"by": "official"}), data=data)


def objects(core: client.CoreV1Api) -> None:
    made = core.create_namespaced_config_map(NAMESPACE, settings("a", x="1"))
    assert made.metadata.uid
    assert core.read_namespaced_config_map("a", NAMESPACE).data == {"x": "1"}
    core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"y": "2"}})
    core.patch_namespaced_config_map("a", NAMESPACE, [{"op": "remove", "path": "/data/x"}])
    assert core.read_namespaced_config_map("a", NAMESPACE).data == {"y": "2"}
    stale = made
    stale.data = {"z": "3"}
    try:
        core.replace_namespaced_config_map("a", NAMESPACE, stale)
        raise AssertionError("a stale object was taken")
    except ApiException as error:
        assert error.status == 409, error
    try:
        core.read_namespaced_config_map("nobody", NAMESPACE)
        raise AssertionError("nobody was found")
    except ApiException as error:
        assert error.status == 404, error
    for number in range(7):
        core.create_namespaced_config_map(NAMESPACE, settings(f"page-{number}"))
    seen, more = [], None
    while more != "":
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="by=official", limit=3, _continue=more)
        seen += [item.metadata.name for item in page.items]
        more = page.metadata._continue or ""
    assert seen == ["a", *(f"page-{number}" for number in range(7))], seen


def watching(core: client.CoreV1Api) -> None:
    listed = core.list_namespaced_config_map(NAMESPACE)
    events = []

    def change() -> None:
        core.create_namespaced_config_map(NAMESPACE, settings("watched"))
        core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"n": "1"}})
        core.delete_namespaced_config_map("watched", NAMESPACE)

    worker = threading.Thread(target=change)
    worker.start()
    watcher = watch.Watch()
    version = listed.metadata.resource_version
    for event in watcher.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=20):
        if event["object"].metadata.name == "watched":
            events.append(event["type"])
            if event["type"] == "DELETED":
                watcher.stop()
    worker.join()
    assert events == ["ADDED", "MODIFIED", "DELETED"], events


def deployment(apps: client.AppsV1Api) -> None:
    pod = client.V1PodSpec(containers=[client.V1Container(name="web", image="nginx", ports=[client.V1ContainerPort(container_port=80)])])
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"app": "web"}), spec=pod)
    spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template)
    apps.create_namespaced_deployment(NAMESPACE, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
    apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 3}})
    until = time.monotonic() + 30
    while apps.read_namespaced_deployment_status("web", NAMESPACE).status.ready_replicas != 3:
        assert time.monotonic() < until, "not ready"
        time.sleep(0.1)


def command(core: client.CoreV1Api) -> None:
    container = {"name": "tool", "image": "podwire.dev/machine", "command": ["sleep", "600"]}
    core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": "tool"}, "spec": {"containers": [container]}})
    until = time.monotonic() + 30
    while core.read_namespaced_pod("tool", NAMESPACE).status.phase != "Running":
        assert time.monotonic() < until, "not running"
        time.sleep(0.1)
    words = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    options = {"command": words, "stdout": True, "stderr": True, "stdin": False, "_preload_content": False}
    session = stream(core.connect_get_namespaced_pod_exec, "tool", NAMESPACE, **options)
    session.run_forever(timeout=30)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("out\n", "err\n", 3)


def election() -> None:
    leading = threading.Event()
    lock = ConfigMapLock("leader", NAMESPACE, "me")
    chosen = electionconfig.Config(
        lock, lease_duration=8, renew_deadline=6, retry_period=1, onstarted_leading=leading.set, onstopped_leading=None
    )
    threading.Thread(target=leaderelection.LeaderElection(chosen).run, daemon=True).start()
    assert leading.wait(20), "not elected"


def main() -> None:
    config.load_kube_config()
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    assert client.VersionApi().get_code().major == "1"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    objects(core)
    watching(core)
    deployment(apps)
    command(core)
    election()
    core.delete_namespace(NAMESPACE)


if __name__ == "__main__":
    main()
