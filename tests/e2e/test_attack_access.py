"""Who gets in from where: a Pod with its own token, the sockets on the machine, the files on its disk."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from e2e.lab import Cluster, processes_of, until

# What a program in a Pod does: it asks the API, over its own wires and with its own token, and leaves what it was told as its last word.
PROGRAM = """
import json, os, ssl, urllib.error, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
token = open(folder + "token").read()
context = ssl.create_default_context(cafile=folder + "ca.crt")
base = "https://" + os.environ["KUBERNETES_SERVICE_HOST"] + ":" + os.environ["KUBERNETES_SERVICE_PORT"]
def ask(path, token):
    request = urllib.request.Request(base + path, headers={"authorization": "Bearer " + token} if token else {})
    try:
        return [200, json.loads(urllib.request.urlopen(request, context=context, timeout=20).read()).get("kind")]
    except urllib.error.HTTPError as error:
        return [error.code, json.loads(error.read())["message"]]
paths = %s
told = {path: ask(path, token) for path in paths}
told["anonymous"] = ask("/api/v1/namespaces", "")
told["forged"] = ask("/api/v1/namespaces", token[:-8] + "AAAAAAAA")
open("/dev/termination-log", "w").write(json.dumps(told))
"""


def test_a_pod_gets_what_its_account_may_and_nothing_else(cluster: Cluster) -> None:
    own, other = "access-own", "access-other"
    for namespace in (own, other):
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("create", "secret", "generic", "treasure", "--from-literal=k=v", "-n", namespace)
    cluster.kubectl("create", "serviceaccount", "reader", "-n", own)
    cluster.kubectl("create", "role", "reader", "--verb=get", "--resource=secrets", "-n", own)
    cluster.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={own}:reader", "-n", own)
    paths = [f"/api/v1/namespaces/{own}/secrets/treasure", f"/api/v1/namespaces/{other}/secrets/treasure", "/api/v1/secrets", "/api"]
    container = {"name": "c", "image": "podwire.dev/machine", "command": ["/usr/bin/python3", "-c", PROGRAM % json.dumps(paths)]}
    spec = {"serviceAccountName": "reader", "restartPolicy": "Never", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "curious", "namespace": own}, "spec": spec}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))

    def last_word() -> Any:
        [state] = cluster.get("pod", "curious", "-n", own)["status"].get("containerStatuses", [{}])
        return state.get("state", {}).get("terminated")

    told = json.loads(until(last_word, "the Pod's end")["message"])
    user = f'User "system:serviceaccount:{own}:reader"'
    assert told[paths[0]] == [200, "Secret"]
    assert told[paths[1]] == [
        403,
        f'secrets "treasure" is forbidden: {user} cannot get resource "secrets" in API group "" in the namespace "{other}"',
    ]
    assert told[paths[2]][0] == 403
    assert told[paths[3]] == [200, "APIVersions"]
    assert told["anonymous"] == [
        403,
        'namespaces is forbidden: User "system:anonymous" cannot list resource "namespaces" in API group "" at the cluster scope',
    ]
    assert told["forged"] == [401, "Unauthorized"]
    cluster.kubectl("delete", "namespace", own, other, "--wait=false")


def listening(user_processes: list[int]) -> set[str]:
    """The local addresses, as the kernel prints them, of the listening TCP sockets of these processes in the machine's network namespace.

    A socket stays in the namespace where it was made, wherever the process lives that has it.
    """
    sockets = set()
    for process in user_processes:
        with contextlib.suppress(OSError):
            sockets |= {os.readlink(entry.path) for entry in os.scandir(f"/proc/{process}/fd")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                found.add(local)
    return found


def test_nothing_listens_beyond_the_loopback(cluster: Cluster) -> None:
    found = listening(processes_of(cluster.user))
    assert found, "not even the API"
    assert {address.partition(":")[0] for address in found} == {"0100007F"}


def test_what_proves_somebody_is_its_owners_alone(cluster: Cluster) -> None:
    state = cluster.user.home / ".local/state/podwire" / cluster.name
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    private = [*state.glob("pki/*"), *state.glob("kubeconfig/*")]
    assert {"ca.key", "apiserver.key", "sa.key"} <= {path.name for path in private}
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
