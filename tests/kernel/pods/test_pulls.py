"""Images from registries: whose credentials serve, what is said of those that cannot be had, and that pulls stand in nobody's way."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from image_archives import BUSYBOX, busybox, docker_archive, layout
from image_registry import a_registry
from kernel.pods.running import Node, Tree, eventually, running_node
from kernel.pods.test_images import RUNC, load, reason

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and (RUNC is None or not os.path.exists(BUSYBOX)), reason="runc or busybox-static is missing"
)
IMAGES = {name: layout(busybox(), "") for name in ("shop/tool:1", "slow/tool:1", "shop/tool:latest")}
NAMESPACE = "/api/v1/namespaces/default/"


@contextlib.contextmanager
def pulling_node(address: str) -> Iterator[Node]:
    """A node that may pull from the registry there."""
    with running_node() as node:
        node.service_account()
        config = node.folder / "config.json.agent"
        config.write_text(json.dumps({**json.loads(config.read_text()), "registries": [address]}))
        node.kill("agent")
        node.start_agent()
        yield node


def container(image: str, **more: object) -> Tree:
    return {"name": "main", "image": image, "command": ["sleep", "1000"], **more}


def secret(node: Node, name: str, address: str, word: str) -> None:
    text = json.dumps({"auths": {address: {"auth": base64.b64encode(f"me:{word}".encode()).decode()}}})
    data = {".dockerconfigjson": base64.b64encode(text.encode()).decode()}
    node.create(NAMESPACE + "secrets", {"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson", "data": data})


def said(node: Node, pod: str, *wanted: str) -> None:
    """Wait until Events of the Pod begin with each of these."""

    def all_said() -> bool:
        events = node.events(pod)
        return all(any(one.startswith(words) for one in events) for words in wanted)

    eventually(all_said, lambda: node.events(pod))


def is_reason(wanted: str) -> Callable[[Tree], bool]:
    return lambda status: reason(status) == wanted


def test_pull_secrets_open_a_registry() -> None:
    with a_registry(IMAGES, "me:word") as (address, _), pulling_node(address) as node:
        secret(node, "wrong", address, "no")
        secret(node, "right", address, "word")
        image = container(f"{address}/shop/tool:1", imagePullPolicy="Always")
        node.pod("without", image)
        node.pod("wrong", image, imagePullSecrets=[{"name": "wrong"}])
        node.pod("right", image, imagePullSecrets=[{"name": "absent"}, {"name": "wrong"}, {"name": "right"}])
        found = node.ready("right")["status"]["containerStatuses"][0]
        assert found["imageID"].startswith("sha256:")
        words = "Unable to retrieve some image pull secrets (absent); attempting to pull the image may not succeed."
        said(node, "right", f"FailedToRetrieveImagePullSecret: {words}", "Pulled: Successfully pulled image")
        [pulled] = [one for one in node.events("right") if one.startswith("Pulled: ")]
        assert " including waiting). Image size: " in pulled
        for name in ("without", "wrong"):
            said(node, name, f'Failed: Failed to pull image "{address}/shop/tool:1": ', "Failed: Error: ErrImagePull")
        for path in Path(node.folder, "images").rglob("*"):
            assert not path.is_file() or b"bWU6d29yZA" not in path.read_bytes()


def test_an_image_that_a_secret_opened_is_not_everybodys() -> None:
    with a_registry(IMAGES, "me:word") as (address, asked), pulling_node(address) as node:
        secret(node, "right", address, "word")
        image, mine = container(f"{address}/shop/tool:1"), [{"name": "right"}]
        node.pod("first", image, imagePullSecrets=mine)
        node.ready("first")
        asked.clear()
        node.pod("second", image, imagePullSecrets=mine)
        node.ready("second")
        assert asked == []  # it is there, and it is the Pod's
        node.pod("stranger", image)
        node.wait("stranger", is_reason("ErrImagePull"))
        node.pod("never", image | {"imagePullPolicy": "Never"})
        node.wait("never", is_reason("ErrImageNeverPull"))
        node.pod("never-mine", image | {"imagePullPolicy": "Never"}, imagePullSecrets=mine)
        node.ready("never-mine")
        load(node).load(str(docker_archive(node.folder / "again.tar", busybox(), f"{address}/shop/tool:1")))
        node.ready("never")  # what a person has loaded is everybody's


def test_a_failed_pull_backs_off_until_the_image_is_there() -> None:
    with a_registry(IMAGES) as (address, asked), pulling_node(address) as node:
        image = f"{address}/shop/absent:1"
        node.pod("waits", container(image))
        node.wait("waits", is_reason("ErrImagePull"))
        found = node.wait("waits", is_reason("ImagePullBackOff"))["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        assert found.startswith(f'Back-off pulling image "{image}": ErrImagePull: pull {image}: ')
        assert "manifest unknown" in found
        said(node, "waits", f'BackOff: Back-off pulling image "{image}"', "Failed: Error: ImagePullBackOff", "Failed: Error: ErrImagePull")
        asked.clear()
        load(node).load(str(docker_archive(node.folder / "late.tar", busybox(), image)))
        node.ready("waits")  # within ten seconds, and nobody is asked again
        assert asked == []


def test_what_is_said_of_names() -> None:
    with a_registry(IMAGES) as (address, asked), pulling_node(address) as node:
        node.pod("capital", container("Shop/Tool:1"))
        words = 'Failed to apply default image tag "Shop/Tool:1": couldn\'t parse image name "Shop/Tool:1": '
        found = node.wait("capital", is_reason("InvalidImageName"))["status"]["containerStatuses"][0]["state"]["waiting"]
        assert found["message"].startswith(words)
        said(node, "capital", f"InspectFailed: {words}", "Failed: Error: InvalidImageName")
        pod = node.pod("latest", container(f"{address}/shop/tool"))
        assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
        node.ready("latest")
        digest = IMAGES["shop/tool:1"].listed[0]["digest"]
        pod = node.pod("digest", container(f"{address}/shop/tool@{digest}"))
        assert pod["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
        node.ready("digest")
        never = node.pod("never", container(f"{address}/shop/tool:9", imagePullPolicy="Never"))
        node.wait(never["metadata"]["name"], is_reason("ErrImageNeverPull"))
        said(node, "never", "ErrImageNeverPull: Container image", "Failed: Error: ErrImageNeverPull")
        assert not any(path.endswith("/9") for path in asked)


def test_a_pull_that_hangs_stands_in_nobodys_way_and_ends_with_its_pod_or_agent() -> None:
    slow = threading.Event()
    with a_registry(IMAGES, slow=slow) as (address, asked), pulling_node(address) as node:
        for name in ("hangs", "hangs-too"):
            node.pod(name, container(f"{address}/slow/tool:1"))
        eventually(lambda: len([one for one in asked if one.startswith("/v2/slow/")]) > 1, lambda: asked)
        node.pod("quick", container(f"{address}/shop/tool:1"))
        node.ready("quick")
        rooms = node.folder / "images/pulls"
        assert len(os.listdir(rooms)) == 2
        assert len(pulling(rooms)) == 2
        node.delete("hangs")
        node.gone("hangs")
        eventually(lambda: len(pulling(rooms)) == 1, lambda: pulling(rooms))
        node.kill("agent")
        eventually(lambda: not pulling(rooms), lambda: pulling(rooms))
        slow.set()
        node.start_agent()
        node.ready("hangs-too")
        eventually(lambda: os.listdir(rooms) == [], lambda: os.listdir(rooms))


def pulling(rooms: Path) -> list[str]:
    """The processes that put something in one of these folders."""
    found = []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"TMPDIR={rooms}/".encode() in Path(entry.path, "environ").read_bytes():
                found.append(entry.name)
    return found
