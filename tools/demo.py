"""The main job, shown: a cluster of three nodes in three zones, the page's example, and packets that prove it.

Every fact printed is read off an answer that a Pod gave; a fact that does not hold ends the demo with status 1.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PODWIRE = [str(REPOSITORY / ".venv/bin/podwire")]
NAME = os.environ.get("NAME", "podwire")
COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
PYTHON = sys.executable


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if COLOUR else text


def say(text: str = "") -> None:
    print(text, flush=True)


def show(*words: str) -> None:
    """Print a command as a person would type it, and run it."""
    say(bold("$ podwire " + " ".join(words)))
    command = (*words[:1], "--name", NAME, *words[1:])
    status = subprocess.run([*PODWIRE, *command], check=False).returncode
    if status:
        sys.exit(status)


def read(*words: str) -> str:
    command = (*words[:1], "--name", NAME, *words[1:])
    done = subprocess.run([*PODWIRE, *command], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"demo: podwire {' '.join(command)} ended with status {done.returncode}")
    return done.stdout


def objects(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(read("kubectl", "get", kind, "-o", "json"))["items"]
    return found


def ask(where: str, url: str, times: int = 1) -> list[dict[str, Any]]:
    lines = read("exec", where, "--", PYTHON, str(REPOSITORY / "examples/fetch.py"), url, str(times)).splitlines()
    return [json.loads(line) for line in lines]


def prove(fact: str, holds: bool, seen: str) -> None:
    say(f"  {'✔' if holds else '✘'} {fact}: {seen}")
    if not holds:
        sys.exit(f"demo: this does not hold: {fact}")


def pods() -> list[dict[str, Any]]:
    found = [pod for pod in objects("pods") if pod["metadata"].get("labels", {}).get("app") == "demo"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def component(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"].get("component", ""))


def between_pods(client: dict[str, Any], users: list[dict[str, Any]]) -> None:
    say(bold("\nPod to Pod: no NAT, the server sees the Pod's address"))
    home, address = client["spec"]["nodeName"], client["status"]["podIP"]
    for words, server in (
        ("on the same node", next((pod for pod in users if pod["spec"]["nodeName"] == home), None)),
        ("on another node", next((pod for pod in users if pod["spec"]["nodeName"] != home), None)),
    ):
        if server is None:
            sys.exit(f"demo: no users Pod {words} as the client")
        [answer] = ask("pod/default/client", f"http://{server['status']['podIP']}:9376/")
        seen = answer["caller"]["address"]
        prove(f"client {address} to {server['status']['podIP']} {words}", seen == address, f"the server saw {seen}")


def through_service(users: list[dict[str, Any]]) -> None:
    say(bold("\nPod to Service: spread over all endpoints, by address and by name"))
    service = next(item for item in objects("services") if item["metadata"]["name"] == "users")
    address = service["spec"]["clusterIP"]
    names = {pod["metadata"]["name"] for pod in users}
    counts = collections.Counter(answer["pod"]["name"] for answer in ask("pod/default/client", f"http://{address}:8080/", 60))
    spread = ", ".join(f"{name.rsplit('-', 1)[1]} {count}" for name, count in sorted(counts.items()))
    prove(f"60 connections to ClusterIP {address}:8080", set(counts) == names, spread)
    for name in ("users", "users.default.svc.cluster.local"):
        [answer] = ask("pod/default/client", f"http://{name}:8080/")
        prove(f"http://{name}:8080/", answer["pod"]["name"] in names, f"answered by {answer['pod']['name']}")


def from_internet(frontends: list[dict[str, Any]]) -> None:
    say(bold("\nInternet to Service: an external load balancer, also through a node that runs no matching Pod"))
    balancer = next(item for item in json.loads(read("status", "-o", "json"))["loadBalancers"] if item["service"] == "default/frontend")
    address = balancer["address"]
    nodes = {
        entry["address"]: node["metadata"]["name"]
        for node in objects("nodes")
        for entry in node["status"]["addresses"]
        if entry["type"] == "InternalIP"
    }
    running = {pod["spec"]["nodeName"] for pod in frontends}
    answers = ask("internet", f"http://{address}/", 30)
    # A node without a Pod of its own forwards under its own address; one with a Pod may do either (its bridge's address
    # stands for it towards its own Pods), so only the former is counted.
    through = collections.Counter(nodes.get(answer["caller"]["address"], "") for answer in answers)
    elsewhere = {node: count for node, count in through.items() if node and node not in running}
    prove(f"30 connections from the internet to http://{address}/", all("pod" in answer for answer in answers), "all answered")
    seen = ", ".join(f"{count} through {node}" for node, count in elsewhere.items())
    prove("some through a node without a frontend Pod", bool(elsewhere), seen or "none")
    say(f"  from this machine: {', '.join(balancer['urls'])}")


def wait_for_address() -> None:
    """Wait until the load balancer has its address and this machine its port: a matter of milliseconds, a minute at most."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if json.loads(subprocess.run([*PODWIRE, "status", "--name", NAME, "-o", "json"], check=False, stdout=subprocess.PIPE).stdout)[
            "loadBalancers"
        ]:
            return
        time.sleep(0.05)
    sys.exit("demo: the load balancer got no address within a minute")


def main() -> None:
    """Run the demo; with DOWN=1 nothing is left, whatever became of it."""
    down = os.environ.get("DOWN") == "1"
    try:
        client = run()
    finally:
        if down:
            say()
            show("down")
    if not down:
        explain(client)


def run() -> dict[str, Any]:
    """Make the cluster and show what it does; give the client's Pod."""
    running = subprocess.run([*PODWIRE, "status", "--name", NAME], check=False, capture_output=True).returncode == 0
    if running:
        say(f"cluster {NAME!r} is running already")
    else:
        show("up")
    show("apply", "-f", "examples/page")
    show("kubectl", "wait", "--for=condition=Ready", "pod", "-l", "app=demo", "--timeout=60s")
    wait_for_address()
    show("kubectl", "get", "nodes,services")
    show("kubectl", "get", "pods", "-o", "wide")
    found = pods()
    [client] = [pod for pod in found if pod["metadata"]["name"] == "client"]
    users = [pod for pod in found if component(pod) == "users"]
    between_pods(client, users)
    through_service(users)
    from_internet([pod for pod in found if component(pod) == "frontend"])
    return client


def explain(client: dict[str, Any]) -> None:
    """Say how to look around, and how to end it."""
    name = "" if NAME == "podwire" else f" --name {NAME}"
    context = f" --context podwire-{NAME}"
    say(bold("\nLook around") + " (put .venv/bin on your PATH: export PATH=$PWD/.venv/bin:$PATH)")
    say(f"  kubectl{context} get pods -A -o wide")
    say(f"  podwire exec{name} pod/default/client -- python3 examples/fetch.py http://frontend/")
    say(f"  podwire exec{name} node/{client['spec']['nodeName']} -- bash")
    say(f"  podwire status{name}")
    say("Take it down")
    say(f"  podwire down{name}")


if __name__ == "__main__":
    main()
