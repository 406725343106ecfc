"""What the containers of a Pod share of System V IPC, message queues and /dev/shm; and what they have of the node's own namespaces."""

from __future__ import annotations

import os

import pytest

from image_archives import BUSYBOX
from kernel.pods.running import Node, Tree, eventually, running_node
from kernel.pods.test_images import RUNC, load, script
from podwire.linux import namespaces, sysctl
from podwire.pods.admission import SAFE_SYSCTLS

MAKE = "ipcmk -Q -p 0666 > /dev/null; touch /dev/mqueue/queue; echo > /dev/shm/memory; exec sleep 1000"
LOOK = "{ ipcs -q | grep -c 0x; ls /dev/mqueue /dev/shm; } > /dev/termination-log"
WAIT = "until [ -e /dev/shm/memory ]; do sleep 0.05; done"
SHARED = "1\n/dev/mqueue:\nqueue\n\n/dev/shm:\nmemory\n"
NOTHING = "0\n/dev/mqueue:\n\n/dev/shm:\n"


def machine(text: str, name: str = "main", **more: object) -> Tree:
    return {"name": name, "image": "podwire.dev/machine", "command": ["sh", "-c", text], **more}


def message(node: Node, pod: str, container: str = "main") -> str:
    def found() -> str | None:
        for one in node.get(pod)["status"].get("containerStatuses", ()):
            if one["name"] == container and "terminated" in one["state"]:
                return str(one["state"]["terminated"].get("message", ""))
        return None

    return str(eventually(found, lambda: node.get(pod)["status"]))


def test_containers_of_a_pod_share_what_other_pods_do_not_see() -> None:
    with running_node() as node:
        node.service_account()
        node.pod("one", machine(MAKE, "maker"), machine(f"{WAIT}; {LOOK}"), restartPolicy="OnFailure")
        assert message(node, "one") == SHARED
        node.kill("agent")
        node.start_agent()
        node.pod("two", machine(LOOK), restartPolicy="Never")
        assert message(node, "two") == NOTHING
        node.pod("host-one", machine(MAKE), hostIPC=True)
        node.pod("host-two", machine(f"{WAIT}; {LOOK}"), hostIPC=True, restartPolicy="Never")
        assert message(node, "host-two") == SHARED
        # A volume of its own there is the Pod's way to have another one.
        own = [{"name": "own", "mountPath": "/dev/shm"}]
        memory = [{"name": "own", "emptyDir": {"medium": "Memory"}}]
        node.pod(
            "volume",
            machine("df /dev/shm | grep -c /dev/shm > /dev/termination-log; touch /dev/shm/x", volumeMounts=own),
            volumes=memory,
            restartPolicy="Never",
        )
        assert message(node, "volume") == "1\n"
        for name in ("one", "two", "host-one", "volume"):
            node.delete(name)
            node.gone(name)
        assert [path.name for path in (node.folder / "shared-memory").iterdir()] == ["node"]


def test_what_was_shared_outlives_a_container() -> None:
    with running_node() as node:
        node.service_account()
        again = f"if [ -e /dev/shm/memory ]; then {LOOK}; exit 0; fi; ipcmk -Q > /dev/null; touch /dev/mqueue/queue /dev/shm/memory; exit 1"
        node.pod("one", machine(again), restartPolicy="OnFailure")
        assert node.wait("one", lambda status: status.get("phase") == "Succeeded")["status"]["containerStatuses"][0]["restartCount"] == 1
        assert message(node, "one") == SHARED


def test_all_safe_settings_of_the_kernel_are_had() -> None:
    values = {
        "kernel.shm_rmid_forced": "1",
        "net.ipv4.ip_local_port_range": "2000 3000",
        "net.ipv4.ip_local_reserved_ports": "2001",
        "net.ipv4.ip_unprivileged_port_start": "7",
        "net.ipv4.ping_group_range": "0 0",
        "net.ipv4.tcp_fin_timeout": "61",
        "net.ipv4.tcp_keepalive_intvl": "76",
        "net.ipv4.tcp_keepalive_probes": "8",
        "net.ipv4.tcp_keepalive_time": "99",
        "net.ipv4.tcp_rmem": "4096 131072 6291455",
        "net.ipv4.tcp_syncookies": "0",
        "net.ipv4.tcp_wmem": "4096 16384 4194303",
    }
    assert set(values) == SAFE_SYSCTLS
    had = {name: value for name, value in values.items() if name in sysctl.settable(SAFE_SYSCTLS)}
    paths = " ".join("/proc/sys/" + sysctl.path(name) for name in had)
    look = machine(f"cat {paths} > /dev/termination-log")
    wanted = [{"name": name, "value": value} for name, value in had.items()]
    with running_node() as node:
        node.service_account()
        node.pod("all", look, restartPolicy="Never", securityContext={"sysctls": wanted})
        node.pod("none", look, restartPolicy="Never")
        assert message(node, "all").replace("\t", " ").splitlines() == list(had.values())
        assert not set(message(node, "none").replace("\t", " ").splitlines()) & {"61", "99", "76"}
        forced = {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}
        with pytest.raises(AssertionError, match="may not be specified when"):
            node.pod("host", look, hostIPC=True, securityContext=forced)
        node.pod("wrong", look, securityContext={"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "7"}]})
        eventually(lambda: any("sysctl -w kernel.shm_rmid_forced='7'" in event for event in node.events("wrong")))


def test_a_setting_that_is_not_there_is_not_settable() -> None:
    assert sysctl.settable(["net.ipv4.tcp_fin_timeout", "net.ipv4.no_such", "kernel.hostname/x"]) == {"net.ipv4.tcp_fin_timeout"}
    assert namespaces.identity() == namespaces.identity(namespaces.own_network())


def test_the_processes_of_the_node() -> None:
    processes = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    with running_node() as node:
        node.service_account()
        node.pod("other", machine("sleep 4321"))
        node.ready("other")
        node.pod("own", machine(f"{processes} > /dev/termination-log"), restartPolicy="Never")
        assert "sleep 4321" not in message(node, "own")
        # What it leaves behind ends with it, also in a session of its own; what is others' stays.
        node.pod(
            "host", machine(f"setsid sleep 5432 & sleep 5432 & {processes} > /dev/termination-log"), hostPID=True, restartPolicy="Never"
        )
        seen = message(node, "host")
        assert "sleep 4321" in seen
        node.pod("late", machine(f"{processes} > /dev/termination-log"), hostPID=True, restartPolicy="Never")
        seen = message(node, "late")
        assert "sleep 4321" in seen
        assert "sleep 5432" not in seen
        assert "running" in node.get("other")["status"]["containerStatuses"][0]["state"]


def test_what_is_hidden_from_containers_is_hidden_behind_every_process_that_they_see() -> None:
    with running_node() as node:
        node.service_account()
        look = f"for one in /proc/[0-9]*; do ls $one/root{node.folder}/state; done 2> /dev/null | wc -l > /dev/termination-log"
        node.pod("shares", machine("exec sleep 1000", "other"), machine(look), shareProcessNamespace=True, restartPolicy="OnFailure")
        assert message(node, "shares") == "0\n"
        node.pod("host", machine(look), hostPID=True, restartPolicy="Never")
        assert message(node, "host") == "0\n"
        assert list((node.folder / "state").iterdir()), "there is something to see"


@pytest.mark.skipif(not os.environ.get("CI") and (RUNC is None or not os.path.exists(BUSYBOX)), reason="runc or busybox-static is missing")
def test_containers_of_images_share_the_same() -> None:
    make = "touch /dev/mqueue/queue; echo > /dev/shm/memory; exec sleep 4321"
    look = f"{WAIT}; ls /dev/mqueue /dev/shm > /dev/termination-log"
    shared = SHARED.removeprefix("1\n")
    with running_node() as node:
        node.service_account()
        load(node)
        node.pod("one", script(make, "maker"), script(look), machine(f"{WAIT}; {LOOK}", "program"), restartPolicy="OnFailure")
        assert message(node, "one") == shared
        assert message(node, "one", "program") == "0\n" + shared  # busybox makes no queue of System V
        node.pod("two", script(look.removeprefix(f"{WAIT};")), restartPolicy="Never")
        assert message(node, "two") == NOTHING.removeprefix("0\n")
        processes = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' > /dev/termination-log"
        # Whatever it may do, it does not get at the machine's files through the processes of the node.
        peep = "for one in /proc/[0-9]*; do ls $one/root/; cat $one/environ; done > /dev/termination-log 2> /dev/null"
        node.pod("peeper", script(peep, securityContext={"privileged": True}), hostPID=True, restartPolicy="Never")
        node.pod("host", script(f"setsid sleep 5432 & {processes}"), hostPID=True, restartPolicy="Never")
        assert "sleep 4321" in message(node, "host")
        seen = message(node, "peeper").split()
        assert "www" in seen, "its own root"
        assert not {"home", "boot", "opt"} & set(seen)
        node.pod("late", script(processes), hostPID=True, restartPolicy="Never")
        seen = message(node, "late")
        assert "sleep 4321" in seen
        assert "sleep 5432" not in seen
