"""Containers that are run from their image: what they find, how they end, and that nothing of them is left."""

from __future__ import annotations

import http.client
import json
import os
import shutil

import pytest

from image_archives import ARCHITECTURE, BUSYBOX, Made, busybox, docker_archive, entry, layer, layout
from image_registry import a_registry
from kernel.pods.running import NODE, Node, Tree, ask, eventually, running_node
from podwire.images.documents import Platform
from podwire.images.errors import ImageRefused
from podwire.images.store import Store
from podwire.linux import syscalls

RUNC = shutil.which("runc", path="/usr/local/sbin:/usr/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and (RUNC is None or not os.path.exists(BUSYBOX)), reason="runc or busybox-static is missing"
)


def image(name: str = "main", command: tuple[str, ...] = (), **more: object) -> Tree:
    return {"name": name, "image": "shop/tool:1", **({"command": list(command)} if command else {}), **more}


def script(text: str, name: str = "main", **more: object) -> Tree:
    return image(name, ("sh", "-c", text), **more)


def load(node: Node, **execution: object) -> Store:
    store = Store(f"{node.folder}/images", machine=Platform(ARCHITECTURE, "linux"))
    closed = entry("www/cgi-bin/secret", b"x", mode=0)
    store.load(str(docker_archive(node.folder / "tool.tar", busybox(closed, **execution), "shop/tool:1")))
    return store


def states(pod: Tree) -> dict[str, Tree]:
    return {one["name"]: one["state"] for one in pod["status"].get("containerStatuses", ())}


def left(node: Node) -> list[str]:
    """What runs of images have left on the node."""
    found = [str(path) for path in (node.folder / "state/nodes" / NODE / "pods").glob("*/*.image")]
    return found + [str(path) for path in (node.folder / "run-images").glob("*-*-*/*")]


def test_a_container_finds_its_image_and_its_pod() -> None:
    words = "id -u; pwd; cat /www/index.html; env; cat /etc/resolv.conf; hostname; touch /here && ls /here; ls /sys/class/net"
    with running_node() as node:
        node.service_account()
        load(node, WorkingDir="/www", Entrypoint=["sh", "-c"], Cmd=["echo not this"])
        settings = {"name": "settings", "configMap": {"name": "settings"}}
        node.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "settings"}, "data": {"greeting": "hello"}})
        read_only = {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"], "add": ["KILL"]}, "allowPrivilegeEscalation": False}
        mounts = [{"name": "settings", "mountPath": "/etc/settings"}, {"name": "scratch", "mountPath": "/scratch/deep"}]
        pod = node.pod(
            "tool",
            image(
                args=[words + "; exec sleep 1000"], env=[{"name": "GREETING", "value": "hello $(FROM)"}, {"name": "FROM", "value": "pod"}]
            ),
            script(
                "cat /etc/settings/greeting; echo; touch /no; touch /scratch/deep/yes && echo wrote; grep -E 'CapBnd|NoNewPrivs|Seccomp:' "
                "/proc/self/status; mount -t tmpfs none /mnt; exec sleep 1000",
                "tight",
                securityContext=read_only,
                volumeMounts=mounts,
            ),
            volumes=[settings, {"name": "scratch", "emptyDir": {}}],
        )
        found = node.ready("tool")
        text = eventually(lambda: "eth0" in node.said(pod) and node.said(pod), lambda: node.said(pod))
        for line in ("0", "/www", "from the image", "GREETING=hello $(FROM)", "FROM=pod", "nameserver 10.8.0.10", "tool", "/here"):
            assert line in text.splitlines(), text
        text = eventually(
            lambda: "permission denied" in node.said(pod, "tight") and node.said(pod, "tight"), lambda: node.said(pod, "tight")
        )
        for line in ("hello", "wrote", "CapBnd:\t0000000000000020", "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in text.splitlines(), text
        assert "Read-only file system" in text
        assert found["status"]["containerStatuses"][0]["imageID"].startswith("sha256:")
        eventually(
            lambda: any("shop/tool:1" in one and "already present" in one for one in node.events("tool")), lambda: node.events("tool")
        )
        bound = node.folder / "state/nodes" / NODE / "pods" / pod["metadata"]["uid"] / "started"
        assert json.loads((bound / "tight.json").read_text())["capabilities"] == [5]  # what a command in it may have
        node.delete("tool")
        node.gone("tool")
        assert left(node) == []


def test_images_serve_are_probed_and_live_on_when_the_agent_is_killed() -> None:
    with running_node() as node:
        node.service_account()
        store = load(node)
        server = image(
            command=("httpd", "-f", "-p", "8080", "-h", "/www"),
            readinessProbe={"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
            livenessProbe={"exec": {"command": ["sh", "-c", "test ! -e /shared/sick"]}, "periodSeconds": 1, "failureThreshold": 1},
            volumeMounts=[{"name": "shared", "mountPath": "/shared"}],
        )
        pod = node.pod(
            "web",
            server,
            script("echo begun; trap 'echo asked; exit 0' TERM; while :; do sleep 0.1; done", "beside"),
            volumes=[{"name": "shared", "emptyDir": {}}],
        )
        address = node.ready("web")["status"]["podIP"]
        assert fetched(address) == b"from the image\n"
        node.kill("agent")
        assert fetched(address) == b"from the image\n"
        node.start_agent()
        assert sum(one["restartCount"] for one in node.ready("web")["status"]["containerStatuses"]) == 0
        with pytest.raises(ImageRefused, match="shop/tool:1 is used by a container that runs"):
            store.remove("shop/tool:1")
        sick = node.folder / "state/nodes" / NODE / "pods" / pod["metadata"]["uid"] / "volumes/shared/sick"
        sick.touch()
        node.wait("web", lambda status: status["containerStatuses"][0]["restartCount"] == 1, "the probe lets it begin anew")
        sick.unlink()
        node.ready("web")
        assert fetched(address) == b"from the image\n"
        node.delete("web")
        node.gone("web")
        assert left(node) == []
        store.remove("shop/tool:1")


def fetched(address: str) -> bytes:
    connection = http.client.HTTPConnection(address, 8080, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_endings_and_refusals() -> None:
    with running_node() as node:
        node.service_account()
        load(node, User="web", StopSignal="SIGUSR1")
        root = {"runAsUser": 0}
        failing = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
        node.pod(
            "ends",
            script("echo last words > /dev/termination-log; exit 3", "three", securityContext=root),
            image("absent", ("/nope",), securityContext=root),
            script(
                "trap 'exit 9' USR1; while :; do sleep 0.1; done",
                "asked",
                securityContext=root,
                livenessProbe=failing,
            ),
            script(
                "trap 'exit 8' USR2; trap 'exit 9' USR1; while :; do sleep 0.1; done",
                "other",
                securityContext=root,
                livenessProbe=failing,
                lifecycle={"stopSignal": "SIGUSR2"},
            ),
            image("user", ("sh",)),
            image("group", ("sh",), securityContext={**root, "runAsGroup": 7}),  # that the image lists root in others is no fault
            image("nonroot", ("sh",), securityContext={**root, "runAsNonRoot": True}),
            {"name": "never", "image": "shop/absent", "imagePullPolicy": "Never"},
            restartPolicy="Never",
            os={"name": "linux"},
        )

        def told(status: Tree) -> bool:
            found = {one["name"]: one["state"] for one in status.get("containerStatuses", ())}
            waiting = {name: state["waiting"].get("reason") for name, state in found.items() if "waiting" in state}
            ended = all("terminated" in found.get(name, {}) for name in ("asked", "other"))
            return (
                len(found) == 8
                and ended
                and waiting
                == {
                    "user": "CreateContainerConfigError",
                    "group": "CreateContainerConfigError",
                    "nonroot": "CreateContainerConfigError",
                    "never": "ErrImageNeverPull",
                }
            )

        pod = node.wait("ends", told)
        found = states(pod)
        assert (found["three"]["terminated"]["exitCode"], found["three"]["terminated"]["message"]) == (3, "last words\n")
        assert found["asked"]["terminated"]["exitCode"] == 9  # by the signal that the image names
        assert found["other"]["terminated"]["exitCode"] == 8  # by the one that the container names
        signals = {one["name"]: one.get("stopSignal") for one in pod["status"]["containerStatuses"]}
        assert (signals["asked"], signals["other"], signals["user"]) == ("SIGUSR1", "SIGUSR2", None)
        assert found["absent"]["terminated"]["reason"] == "StartError"
        assert 'exec: "/nope"' in found["absent"]["terminated"]["message"]
        words = "is to have {} {}, and the cluster has only user and group 0: `podwire doctor` says why"
        assert words.format("user", 1000) in found["user"]["waiting"]["message"]
        assert words.format("group", 7) in found["group"]["waiting"]["message"]
        assert "breaks non-root policy" in found["nonroot"]["waiting"]["message"]
        assert 'Container image "shop/absent" is not present with pull policy of Never' in found["never"]["waiting"]["message"]
        node.delete("ends")
        node.gone("ends")
        assert left(node) == []


def test_images_are_pulled_from_registries_that_are_named() -> None:
    with running_node() as node, a_registry({"shop/tool:1": layout(busybox(), "")}) as (address, asked):
        node.service_account()
        config = node.folder / "config.json.agent"
        config.write_text(json.dumps({**json.loads(config.read_text()), "registries": [f"{address}/shop"]}))
        node.kill("agent")
        node.start_agent()
        server = {"command": ["httpd", "-f", "-p", "8080", "-h", "/www"], "image": f"{address}/shop/tool:1"}
        node.pod("web", image() | server)
        node.pod("absent", image() | {"image": f"{address}/shop/absent:1", "ports": [{"containerPort": 8080}]})
        node.pod("never", image() | server | {"imagePullPolicy": "Never", "image": f"{address}/shop/tool:2"})
        node.pod("other", image() | {"image": "example.com/shop/tool:1", "ports": [{"containerPort": 8080}]})
        found = node.ready("web")
        assert fetched(found["status"]["podIP"]) == b"from the image\n"
        assert ask(node.ready("other")["status"]["podIP"], 8080)["container"] == "main"
        for words in (f'Pulling: Pulling image "{address}/shop/tool:1"', f'Pulled: Successfully pulled image "{address}/shop/tool:1" in '):
            eventually(lambda words=words: any(one.startswith(words) for one in node.events("web")), lambda: node.events("web"))
        node.wait("absent", lambda status: reason(status) == "ErrImagePull")
        node.wait("never", lambda status: reason(status) == "ErrImageNeverPull")
        eventually(lambda: any("manifest unknown" in one for one in node.events("absent")), lambda: node.events("absent"))
        asked.clear()
        always = image(command=("sleep", "1000")) | {"image": f"{address}/shop/tool:1"}
        node.pod("again", always)
        node.ready("again")
        assert asked == []  # IfNotPresent
        node.pod("always", always | {"imagePullPolicy": "Always"})
        node.ready("always")
        assert "/v2/shop/tool/manifests/1" in asked


def reason(status: Tree) -> str:
    states = [one["state"] for one in status.get("containerStatuses", ())]
    return str(states[0].get("waiting", {}).get("reason")) if states else ""


def test_stand_ins_play_where_the_image_may_not_be_run() -> None:
    assert RUNC is not None
    with running_node() as node:
        load(node)
        syscalls.mount("/dev/null", os.path.realpath(RUNC), "", syscalls.MS_BIND)
        node.kill("agent")
        node.start_agent()
        ports = {"ports": [{"containerPort": 8080}]}
        allowed = {"name": "never", "image": "shop/absent", "imagePullPolicy": "Never", "ports": [{"containerPort": 8081}]}
        node.create(
            "/api/v1/namespaces/default/pods",
            {
                "metadata": {"name": "web", "annotations": {"images.podwire.dev/stand-in": "true"}},
                "spec": {"nodeName": NODE, "containers": [image(**ports), allowed]},
            },
        )
        address = node.ready("web")["status"]["podIP"]
        assert ask(address, 8080)["container"] == "main"
        assert ask(address, 8081)["container"] == "never"
        words = 'ImageNotRun: Image "shop/tool:1" is there, but cannot be run: runc is not installed (Debian: apt-get install runc)'
        eventually(lambda: any(one.startswith(words) for one in node.events("web")), lambda: node.events("web"))
        syscalls.umount(os.path.realpath(RUNC))


def test_images_of_odd_layers_and_settings() -> None:
    with running_node() as node:
        node.service_account()
        store = load(node)
        base = busybox().layers
        numbers = [layer(entry(f"n/{number}", b"x")) for number in range(124)]
        hides = layer(entry(".wh..wh..opq"), entry("hidden", b"x"))
        settings = {"Env": ["PATH=/bin", "ODD", "A=1", "A=2"], "WorkingDir": "/made/for/it"}
        nul = {"Env": ["PATH=/bin", "NUL=a\x00b"]}
        for name, layers, execution in (
            ("many", (*base, *numbers, base[1]), {}),
            ("hides", (layer(entry("gone", b"x")), hides, *base), {}),
            ("settings", base, settings),
            ("nul", base, nul),
            ("relative", base, {"WorkingDir": "made"}),
        ):
            store.load(
                str(docker_archive(node.folder / f"{name}.tar", Made(layers, {"Env": ["PATH=/bin"], **execution}), f"shop/{name}:1"))
            )
        say = "ls n | wc -l; cat /www/index.html; ls /; pwd; env; exec sleep 1000"
        pods = {
            name: node.pod(name, script(say) | {"image": f"shop/{name}:1"}) for name in ("many", "hides", "settings", "nul", "relative")
        }

        def text(name: str) -> list[str]:
            return eventually(lambda: "HOSTNAME" in node.said(pods[name]) and node.said(pods[name]), lambda: node.events(name)).splitlines()

        assert {"124", "from the image"} <= set(text("many"))
        hidden = text("hides")
        assert "hidden" in hidden
        assert "gone" not in hidden
        assert {"/made/for/it", "A=2"} <= set(text("settings"))
        waiting = node.wait("nul", lambda status: reason(status) == "CreateContainerError")["status"]["containerStatuses"][0]["state"]
        assert "cannot be handed to a program" in waiting["waiting"]["message"]
        waiting = node.wait("relative", lambda status: reason(status) == "RunContainerError")["status"]["containerStatuses"][0]["state"]
        assert "Cwd must be an absolute path" in waiting["waiting"]["message"]
