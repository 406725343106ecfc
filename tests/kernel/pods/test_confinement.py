"""What a securityContext asks of a container of an image is done: each seen in a container that has it, and in one that has not."""

from __future__ import annotations

import os
import shutil

import pytest

from image_archives import BUSYBOX
from kernel.pods.running import Tree, ask, eventually, running_node
from kernel.pods.test_images import load, script, states

RUNC = shutil.which("runc", path="/usr/local/sbin:/usr/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and (RUNC is None or not os.path.exists(BUSYBOX)), reason="runc or busybox-static is missing"
)

LOOK = """
box() { echo "$1: $(shift; /bin/busybox "$@" 2>&1 && echo yes)"; }
grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status
box root touch /new
box mtu ip link set lo mtu 9000
box ping ping -c 1 -W 5 127.0.0.1
box mount mount -t tmpfs none /tmp
box namespace unshare -U true
box forward sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
echo over
exec sleep 1000
"""
DEFAULT, ALL = "00000000a80425fb", (1 << 41) - 1
CONTEXTS: dict[str, Tree] = {
    "usual": {},
    "sealed": {"readOnlyRootFilesystem": True},
    "unraised": {"allowPrivilegeEscalation": False},
    "raised": {"allowPrivilegeEscalation": True},
    "less": {"capabilities": {"drop": ["NET_RAW"]}},
    "more": {"capabilities": {"add": ["NET_ADMIN"]}},
    "none": {"capabilities": {"drop": ["ALL"]}},
    "some": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
    "filtered": {"seccompProfile": {"type": "RuntimeDefault"}},
    "unfiltered": {"seccompProfile": {"type": "Unconfined"}},
    "privileged": {"privileged": True},
}


def test_a_security_context_is_done_not_only_taken() -> None:
    with running_node() as node:
        node.service_account()
        load(node)
        found: dict[str, str] = {}
        pods = {name: node.pod(name, script(LOOK, securityContext=context)) for name, context in CONTEXTS.items()}
        for name, pod in pods.items():
            found[name] = eventually(lambda pod=pod: "over\n" in node.said(pod) and node.said(pod), lambda: node.log("agent")[-3000:])

    def may(name: str, what: str) -> bool:
        (_, _, rest) = found[name].partition(f"\n{what}: ")
        said = rest.split("\nover")[0]
        for other in ("root", "mtu", "ping", "mount", "namespace", "forward"):
            said = said.split(f"\n{other}: ")[0]
        return said.strip().endswith("yes")

    def status(name: str, field: str) -> str:
        return next(line.split()[1] for line in found[name].splitlines() if line.startswith(f"{field}:"))

    assert {name for name in found if may(name, "root")} == set(CONTEXTS) - {"sealed"}
    assert {name for name in found if may(name, "mtu")} == {"more", "privileged"}
    assert {name for name in found if may(name, "ping")} == set(CONTEXTS) - {"less", "none", "some"}
    assert {name for name in found if may(name, "mount")} == {"privileged"}
    assert {name for name in found if may(name, "namespace")} == {"unfiltered", "privileged"}
    assert {name for name in found if may(name, "forward")} == {"privileged"}
    assert {name for name in found if status(name, "NoNewPrivs") == "1"} == {"unraised"}
    assert {name for name in found if status(name, "Seccomp") == "0"} == {"unfiltered", "privileged"}
    for field in ("CapEff", "CapBnd"):
        assert {name for name in found if status(name, field) == DEFAULT} == set(CONTEXTS) - {"less", "more", "none", "some", "privileged"}
        assert int(status("less", field), 16) == int(DEFAULT, 16) & ~(1 << 13)
        assert int(status("more", field), 16) == int(DEFAULT, 16) | 1 << 12
        assert int(status("none", field), 16) == 0
        assert int(status("some", field), 16) == 1 << 10
        assert int(status("privileged", field), 16) == ALL


def test_profiles_that_the_node_has_not_are_refused() -> None:
    with running_node() as node:
        node.service_account()
        load(node)
        own = {"seccompProfile": {"type": "Localhost", "localhostProfile": "audit.json"}}
        node.pod("local", script("exec sleep 1000", securityContext=own))
        found = states(node.wait("local", lambda status: "message" in waits(status)))["main"]["waiting"]
        assert found["reason"] == "CreateContainerError"
        assert 'cannot load seccomp profile "/var/lib/kubelet/seccomp/audit.json": no such file or directory' in found["message"]
        for name, kind in (("armoured", "RuntimeDefault"), ("localized", "Localhost")):
            profile = {"type": kind} | ({"localhostProfile": "k8s-web"} if kind == "Localhost" else {})
            node.pod(name, script("exec sleep 1000"), securityContext={"appArmorProfile": profile})
            status = node.wait(name, lambda status: status.get("phase") == "Failed")["status"]
            assert status["reason"] == "AppArmor"
            assert status["message"] == "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"
        node.pod("free", script("exec sleep 1000"), securityContext={"appArmorProfile": {"type": "Unconfined"}})
        node.ready("free")
        # A stand-in is nobody's risk: what a manifest asks of its image is not asked of it.
        standing = {"name": "main", "image": "example.com/web", "ports": [{"containerPort": 8080}]}
        node.pod("stands", standing, securityContext={"appArmorProfile": {"type": "RuntimeDefault"}})
        assert ask(node.ready("stands")["status"]["podIP"], 8080)["container"] == "main"


def waits(status: Tree) -> Tree:
    found = [one["state"].get("waiting", {}) for one in status.get("containerStatuses", ())]
    return found[0] if found else {}
