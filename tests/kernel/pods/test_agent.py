"""The agent on a node of its own: Pods come, are probed, restart, are taken up again, and go, and nothing of them is left."""

from __future__ import annotations

import re
import time
from ipaddress import ip_address, ip_network

import pytest

from kernel.pods.running import NODE, NODE_IP, Tree, ask, condition, eventually, running_node
from podwire.linux.network import Network
from podwire.pods.addresses import Addresses

WEB = {"name": "server", "image": "shop/server", "ports": [{"containerPort": 8080}]}


def machine(script: str, name: str = "main", **more: object) -> dict[str, object]:
    return {"name": name, "image": "podwire.dev/machine", "command": ["sh", "-c", script], **more}


def restarts(status: Tree) -> int:
    return sum(container["restartCount"] for container in status.get("containerStatuses", ()))


def test_a_node_registers_and_lives() -> None:
    with running_node() as node:
        found = node.call("GET", f"/api/v1/nodes/{NODE}")
        assert found["metadata"]["labels"]["topology.kubernetes.io/zone"] == "us-central1-a"
        assert found["metadata"]["labels"]["cloud.google.com/gke-nodepool"] == "default-pool"
        assert found["spec"]["podCIDR"] == "10.4.0.0/24"
        assert {"type": "InternalIP", "address": NODE_IP} in found["status"]["addresses"]
        assert condition(found["status"], "Ready") == "True"
        assert found["status"]["capacity"]["pods"] == "110"
        lease = node.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}")
        assert lease["spec"]["holderIdentity"] == NODE


def test_a_pod_of_stand_ins_is_ready_answers_and_goes() -> None:
    probe = {"httpGet": {"path": "/healthz", "port": 8081}, "periodSeconds": 1}
    with running_node() as node:
        began = time.monotonic()
        node.pod("web", {**WEB, "readinessProbe": probe}, initContainers=[{"name": "first", "image": "busybox", "command": ["false"]}])
        pod = node.ready("web")
        print("ready after", time.monotonic() - began)
        status = pod["status"]
        assert status["phase"] == "Running"
        assert status["hostIP"] == NODE_IP
        assert status["qosClass"] == "BestEffort"
        assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
        assert status["containerStatuses"][0]["ready"] is True
        answer = ask(status["podIP"], 8080, "/hello")
        assert answer["pod"]["name"] == "web"
        assert answer["pod"]["ip"] == status["podIP"]
        assert answer["node"] == NODE
        assert answer["zone"] == "us-central1-a"
        assert answer["caller"]["address"] == "10.4.0.1"
        eventually(lambda: 'Pulled: Container image "shop/server" is not run: a stand-in plays the container' in node.events("web"))
        node.delete("web")
        node.gone("web")
        with Network() as links:
            eventually(lambda: not [link for link in links.links().values() if link.master == "cbr0"])
        assert Addresses(node.folder / "addresses", ip_network("10.4.0.0/24")).owners() == {}
        eventually(lambda: not list((node.folder / "state/nodes" / NODE / "pods").iterdir()))


def test_a_start_costs_few_writes() -> None:
    with running_node() as node:
        pod = node.pod("web", {**WEB, "readinessProbe": {"tcpSocket": {"port": 8080}}})
        node.ready("web")
        eventually(lambda: len(node.events("web")) == 3)
        # One write of its status when it is ready; where that takes longer than a status may be kept back, one before.
        assert 1 <= len(node.changes(pod)) <= 2, node.changes(pod)


def test_ports_follow_the_services_that_select_the_pod() -> None:
    with running_node() as node:
        node.pod("web", {"name": "server", "image": "shop/server"}, labels={"app": "web"})
        address = node.ready("web")["status"]["podIP"]
        with pytest.raises(ConnectionRefusedError):
            ask(address, 9000)
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 9000}]}
        node.create("/api/v1/namespaces/default/services", {"metadata": {"name": "web"}, "spec": spec})

        def answers() -> bool:
            try:
                return bool(ask(address, 9000)["pod"]["name"] == "web")
            except ConnectionRefusedError:
                return False

        eventually(answers)


def test_a_program_of_the_machine_lives_in_its_pod() -> None:
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f"""
        cat /etc/resolv.conf; cat /etc/hosts; echo host=$(hostname) name=$NAME ip=$IP greeting="$GREETING"
        cat {token}/token; echo; cat {token}/namespace; echo
        touch /etc/here 2>&1; touch /tmp/there && echo tmp is mine
        exec sleep 1000
    """
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "GREETING", "value": "hello $(NAME)"},
    ]
    with running_node() as node:
        node.service_account()
        pod = node.pod("tool", machine(script, env=env))
        status = node.ready("tool")["status"]
        text = eventually(lambda: "tmp is mine\n" in node.said(pod) and node.said(pod), lambda: node.said(pod))
        assert "nameserver 10.8.0.10\n" in text
        assert "search default.svc.cluster.local svc.cluster.local cluster.local\n" in text
        assert f"{status['podIP']}\ttool" in text
        assert f"host=tool name=tool ip={status['podIP']} greeting=hello tool" in text
        assert re.search(r"^eyJ[\w-]+\.[\w-]+\.[\w-]+\ndefault$", text, re.MULTILINE)
        assert "Read-only file system" in text
        eventually(lambda: "Started: Container started" in node.events("tool"))
        node.delete("tool")
        node.gone("tool")


def test_endings_and_restarts() -> None:
    with running_node() as node:
        node.service_account()
        node.pod("once", machine("exit 3"), restartPolicy="Never")
        status = node.wait("once", lambda status: status["phase"] == "Failed")["status"]
        ended = status["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (3, "Error")
        node.pod("good", machine("exit 0"), restartPolicy="OnFailure")
        status = node.wait("good", lambda status: status["phase"] == "Succeeded")["status"]
        assert status["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
        node.pod("again", machine("sh -c 'kill -KILL $$$$'; exit $?"))
        status = node.wait("again", lambda status: "CrashLoopBackOff" in str(status), "crash loop")["status"]
        container = status["containerStatuses"][0]
        assert container["restartCount"] == 1
        assert container["lastState"]["terminated"]["exitCode"] == 137
        assert re.match(r"back-off 10s restarting failed container=main pod=again_default\(", container["state"]["waiting"]["message"])
        node.pod("nothing", machine("", command=["/no/such/program"]))
        status = node.wait("nothing", lambda status: "RunContainerError" in str(status), "no such program")["status"]
        for name in ("once", "good", "again", "nothing"):
            node.delete(name)
            node.gone(name)


def test_probes_decide() -> None:
    with running_node() as node:
        node.service_account()
        serving = "exec python3 -m http.server -d /tmp 8080"
        probe = {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1}
        ports = [{"name": "http", "containerPort": 8080}]
        node.pod("late", machine(f"(sleep 2; touch /tmp/ready) & {serving}", ports=ports, readinessProbe=probe))
        status = node.wait("late", lambda status: status.get("phase") == "Running")["status"]
        assert condition(status, "Ready") == "False"
        node.ready("late")
        words = "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 404"
        eventually(lambda: words in node.events("late"))
        liveness = {"exec": {"command": ["test", "-e", "/proc/self/stat"]}, "periodSeconds": 1}
        failing = {"exec": {"command": ["sh", "-c", "echo no; exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
        node.pod("alive", machine("exec sleep 1000", livenessProbe=liveness))
        node.pod("dead", machine("trap 'exit 0' TERM; while :; do sleep 0.1; done", livenessProbe=failing))
        node.wait("dead", lambda status: restarts(status) > 0)
        eventually(lambda: "Unhealthy: Liveness probe failed: no\n" in node.events("dead"))
        assert node.get("alive")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_agent_may_be_killed() -> None:
    with running_node() as node:
        node.service_account()
        node.pod("web", WEB)
        node.pod("tool", machine("exec python3 -m http.server 8080"))
        before = {name: node.ready(name) for name in ("web", "tool")}
        addresses = [pod["status"]["podIP"] for pod in before.values()]
        node.kill("agent")
        assert ask(addresses[0], 8080)["pod"]["name"] == "web"
        node.pod("later", WEB)
        node.delete("tool")
        node.start_agent()
        node.ready("later")
        node.gone("tool")
        assert ask(addresses[0], 8080)["pod"]["name"] == "web"
        after = node.ready("web")
        assert after["status"]["podIP"] == addresses[0]
        assert after["status"]["containerStatuses"][0]["restartCount"] == 0
        assert after["status"]["containerStatuses"] == before["web"]["status"]["containerStatuses"]


def test_the_stand_ins_may_be_killed() -> None:
    with running_node() as node:
        node.pod("web", WEB)
        address = node.ready("web")["status"]["podIP"]
        node.kill("standins")
        with pytest.raises(ConnectionRefusedError):
            ask(address, 8080)
        node.start_standins()

        def answers() -> bool:
            try:
                return bool(ask(address, 8080)["pod"]["name"] == "web")
            except ConnectionRefusedError:
                return False

        eventually(answers)


def test_a_node_that_is_restarted_makes_its_pods_anew() -> None:
    with running_node() as node:
        node.service_account()
        node.pod("web", WEB)
        node.pod("tool", machine("exec sleep 1000"))
        before = {name: node.ready(name)["status"]["podIP"] for name in ("web", "tool")}
        for name in ("agent", "standins"):
            node.kill(name)
        node.kill_init()
        node.start()
        for name in ("web", "tool"):
            status = node.wait(name, lambda status: restarts(status) == 1 and condition(status, "Ready") == "True")["status"]
            assert status["podIP"] not in before.values()
            assert status["podIPs"] == [{"ip": status["podIP"]}]
        assert ask(node.get("web")["status"]["podIP"], 8080)["pod"]["name"] == "web"
        with Network() as links:
            eventually(lambda: len([link for link in links.links().values() if link.master == "cbr0"]) == 2)


def test_an_exhausted_range_says_so() -> None:
    with running_node() as node:
        addresses = Addresses(node.folder / "addresses", ip_network("10.4.0.0/24"))
        for _ in range(253):
            addresses.allocate("somebody")
        node.pod("late", WEB)
        eventually(
            lambda: (
                "FailedCreatePodSandBox: Failed to create pod sandbox: no address left in 10.4.0.0/24: all 253 are in use"
                in node.events("late")
            )
        )
        addresses.release(ip_address("10.4.0.77"))
        assert node.ready("late")["status"]["podIP"] == "10.4.0.77"
