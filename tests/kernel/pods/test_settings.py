"""What a Pod's spec says of its network, as a program in it finds it; and Pods in the node's own network."""

from __future__ import annotations

import socket
from ipaddress import ip_interface, ip_network

from kernel.pods.running import NODE, NODE_IP, Tree, ask, condition, eventually, running_node
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.pods.addresses import Addresses
from podwire.wire.rtnetlink import Address, add


def look(script: str) -> Tree:
    return {"name": "main", "image": "podwire.dev/machine", "command": ["sh", "-c", f"{{ {script} ; }} > /dev/termination-log 2>&1"]}


def test_names_and_kernel_settings() -> None:
    with running_node() as node:
        node.service_account()
        wanted = {"net.ipv4.ip_local_port_range": "2000 3000", "net.ipv4.tcp_keepalive_time": "99"}
        sysctls = [{"name": name, "value": value} for name, value in wanted.items()]
        dns = {"nameservers": ["192.0.2.1"], "searches": ["example.com"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}
        look_all = look(
            "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/tcp_keepalive_time; hostname; cat /etc/hosts /etc/resolv.conf"
        )
        node.pod(
            "named",
            look_all,
            restartPolicy="Never",
            hostname="one",
            subdomain="db",
            setHostnameAsFQDN=True,
            hostAliases=[{"ip": "192.0.2.9", "hostnames": ["far", "away"]}],
            dnsPolicy="None",
            dnsConfig=dns,
            securityContext={"sysctls": sysctls},
        )
        node.pod("plain", look("cat /proc/sys/net/ipv4/tcp_keepalive_time; cat /etc/nsswitch.conf; ls -A /run"), restartPolicy="Never")
        status = node.wait("named", lambda status: status.get("phase") == "Succeeded")["status"]
        text = status["containerStatuses"][0]["state"]["terminated"]["message"]
        for words in (
            "2000\t3000\n99\none.db.default.svc.cluster.local\n",
            f"{status['podIP']}\tone.db.default.svc.cluster.local\tone\n",
            "192.0.2.9\tfar\taway\n",
            "search example.com\nnameserver 192.0.2.1\noptions ndots:2 edns0\n",
        ):
            assert words in text, (words, text)
        status = node.wait("plain", lambda status: status.get("phase") == "Succeeded")["status"]
        text = status["containerStatuses"][0]["state"]["terminated"]["message"]
        assert not text.startswith("99\n")
        assert text.endswith("hosts: files dns\nsecrets\n")
        long = "a" * 60
        node.pod(long, look("true"), subdomain="b", setHostnameAsFQDN=True)
        eventually(lambda: any("is too long (64 is the max, 88 characters requested)" in event for event in node.events(long)))
        node.pod("bad", look("true"), securityContext={"sysctls": [{"name": "net.ipv4.tcp_keepalive_time", "value": "never"}]})
        eventually(lambda: any("sysctl -w net.ipv4.tcp_keepalive_time='never'" in event for event in node.events("bad")))


def test_pods_in_the_network_of_the_node() -> None:
    with running_node() as node:
        node.service_account()
        ports = [{"containerPort": 8085, "hostPort": 8085}]
        probe = {"httpGet": {"path": "/", "port": 8085}, "periodSeconds": 1}
        node.pod("web", {"name": "server", "image": "example.com/server", "ports": ports, "readinessProbe": probe}, hostNetwork=True)
        node.pod("tool", look("hostname; ls /sys/class/net"), hostNetwork=True, restartPolicy="Never", dnsPolicy="ClusterFirstWithHostNet")
        status = node.ready("web")["status"]
        assert (status["podIP"], status["hostIP"]) == (NODE_IP, NODE_IP)
        assert ask(NODE_IP, 8085)["pod"]["name"] == "web"
        status = node.wait("tool", lambda status: status.get("phase") == "Succeeded")["status"]
        text = status["containerStatuses"][0]["state"]["terminated"]["message"]
        assert text.startswith(f"{NODE}\ncbr0\n")
        for name in ("web", "tool"):
            node.delete(name)
            node.gone(name)
        assert ask_refused(8085)


def test_ports_of_the_node_lead_to_a_pod() -> None:
    with running_node() as node:
        with Network() as network:
            network.apply([add(Address("lo", ip_interface("10.128.0.99")))])
        ports = [
            {"containerPort": 8080, "hostPort": 8090},
            {"containerPort": 8080, "hostPort": 8091, "hostIP": "10.128.0.99"},
            {"containerPort": 5353, "hostPort": 5399, "protocol": "UDP"},
        ]
        node.pod("web", {"name": "server", "image": "example.com/server", "ports": ports})
        node.ready("web")
        assert ask(NODE_IP, 8090)["pod"]["name"] == "web"
        assert ask("10.128.0.99", 8091)["pod"]["name"] == "web"
        assert ask_refused(8091)  # on another address of the node
        assert echoed(NODE_IP, 5399)
        node.kill("agent")
        node.start_agent()
        assert ask(NODE_IP, 8090)["pod"]["name"] == "web"
        node.pod("late", {"name": "server", "image": "example.com/server", "ports": ports[:1]})
        assert node.wait("late", lambda status: status.get("phase") == "Failed")["status"]["reason"] == "NodePorts"
        node.delete("late")
        node.gone("late")
        node.delete("web")
        node.gone("web")
        node.pod("late", {"name": "server", "image": "example.com/server", "ports": ports[:1]})
        node.ready("late")
        assert ask(NODE_IP, 8090)["pod"]["name"] == "late"
        node.delete("late")
        node.gone("late")
        assert ask_refused(8090)
        with Nftables() as nftables:
            assert not nftables.dump([("ip", "podwire-cni")]).tables


def echoed(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(5)
        udp.connect((address, port))
        udp.send(b"ping")
        return udp.recv(100) == b"ping"


def ask_refused(port: int) -> bool:
    try:
        ask(NODE_IP, port)
    except ConnectionRefusedError:
        return True
    return False


def test_what_is_left_when_the_node_is_killed_again_and_again() -> None:
    """The agent is killed while Pods come and go; at the end what is there is what should be, and nothing else."""
    with running_node() as node:
        node.service_account()
        volumes = [{"name": "v", "emptyDir": {"medium": "Memory"}}, {"name": "w", "emptyDir": {}}]
        mounts = [{"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}]
        worker = {
            "name": "main",
            "image": "podwire.dev/machine",
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
        }
        for number in range(4):
            node.pod(f"web-{number}", {"name": "server", "image": "example.com/server", "ports": [{"containerPort": 8080}]})
            node.pod(f"tool-{number}", {**worker, "volumeMounts": mounts}, volumes=volumes)
            if number:
                node.delete(f"web-{number - 1}")
                node.delete(f"tool-{number - 1}")
            node.kill("agent")
            node.start_agent()
        for name in ("web-3", "tool-3"):
            assert condition(node.ready(name)["status"], "Ready") == "True"
        for number in range(3):
            node.gone(f"web-{number}")
            node.gone(f"tool-{number}")
        web, tool = (node.get(name)["metadata"]["uid"] for name in ("web-3", "tool-3"))
        state = node.folder / "state/nodes" / NODE
        eventually(
            lambda: {file.name for file in (state / "pods").iterdir()} == {f"{web}.json", f"{tool}.json", web, tool},
            lambda: list((state / "pods").iterdir()),
        )
        eventually(lambda: len(list((node.folder / "volumes").iterdir())) == 1)
        for name in ("web-3", "tool-3"):
            node.delete(name)
            node.gone(name)
        eventually(lambda: not list((state / "pods").iterdir()), lambda: list((state / "pods").iterdir()))
        assert not list((node.folder / "volumes").iterdir())
        eventually(lambda: not Addresses(node.folder / "addresses", ip_network("10.4.0.0/24")).owners())
