"""Carries checks out: finds the Pods that are named, tries each connection from where its source is, with real packets.

All connections from one place are tried at once, by a program that the lab runs there (``connecting``).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from podwire.client.api import Client
from podwire.client.errors import ApiError
from podwire.cluster import execution
from podwire.cluster.checks import Check, Connection, End
from podwire.cluster.problem import Problem
from podwire.objects.core import Pod
from podwire.objects.resources import DAEMON_SETS, DEPLOYMENTS, PODS, REPLICA_SETS, SERVICES, STATEFUL_SETS, Resource

_AT_ONCE: Final = 200  # connections that one program tries; its words are an argument
_OWNERS: Mapping[str, Resource[Any]] = {
    "deployment": DEPLOYMENTS,
    "statefulset": STATEFUL_SETS,
    "daemonset": DAEMON_SETS,
    "replicaset": REPLICA_SETS,
}


@dataclass(frozen=True)
class Result:
    """What came of a check: each connection and its outcome, or why there is none."""

    check: Check
    outcomes: tuple[tuple[Connection, str], ...] = ()
    failure: str = ""


async def connections(client: Client, check: Check) -> list[Connection] | str:
    """Give what a check tries, or why it cannot be tried: every Pod of the source to every Pod of the destination."""
    try:
        sources = [(f"pod/{pod.key}", pod.key) for pod in await _pods(client, check.source)] or [(check.source.name, check.source.name)]
        targets = await _targets(client, check.target)
    except ApiError as error:
        return error.message
    except LookupError as error:
        return str(error.args[0])
    return [Connection(where, host, f"{told} -> {name}".rstrip()) for where, told in sources for host, name in targets]


async def _targets(client: Client, end: End) -> list[tuple[str, str]]:
    if not end.kind:
        return [(end.name, "")]
    if end.kind == "service":
        service = await client.get(SERVICES, end.name, end.namespace)
        if service.spec.cluster_ip in {"", "None"}:
            raise LookupError(f"{end} has no cluster IP")
        return [(service.spec.cluster_ip, service.key)]
    return [(pod.status.pod_ip, pod.key) for pod in await _pods(client, end)]


async def _pods(client: Client, end: End) -> list[Pod]:
    """The running Pods of one end. Raises LookupError when there are none, ApiError."""
    if not end.kind:
        return []
    if end.kind == "pod":
        found = [await client.get(PODS, end.name, end.namespace)]
    else:
        owner = await client.get(_OWNERS[end.kind], end.name, end.namespace)
        found = [pod for pod in await client.list(PODS, end.namespace) if owner.spec.selector.matches(pod.metadata.labels)]
    running = sorted((pod for pod in found if pod.status.phase == "Running" and not pod.terminating), key=lambda pod: pod.name)
    if not running:
        raise LookupError(f"{end} has no Pod that runs")
    return running


def carry_out(
    cluster: str, planned: Sequence[tuple[Check, list[Connection] | str]], progress: Callable[[str], None] = lambda _words: None
) -> list[Result]:
    """Try everything; gives the results in the order of the checks. Raises Problem."""
    tries: dict[str, list[tuple[str, Check, Connection]]] = {}
    for number, (check, found) in enumerate(planned):
        for at, connection in enumerate(found if isinstance(found, list) else ()):
            tries.setdefault(connection.where, []).append((f"{number}.{at}", check, connection))
    outcomes: dict[str, str] = {}
    for where, listed in tries.items():
        progress(f"trying {len(listed)} connections from {where}")
        for first in range(0, len(listed), _AT_ONCE):
            outcomes |= _from(cluster, where, listed[first : first + _AT_ONCE])
    results = []
    for number, (check, found) in enumerate(planned):
        if isinstance(found, str):
            results.append(Result(check, failure=found))
        else:
            told = ((connection, outcomes.get(f"{number}.{at}", "not tried")) for at, connection in enumerate(found))
            results.append(Result(check, tuple(told)))
    return results


def _from(cluster: str, where: str, listed: Iterable[tuple[str, Check, Connection]]) -> dict[str, str]:
    orders = [
        {
            "id": identity,
            "host": connection.host,
            "port": check.port,
            "protocol": check.protocol,
            "timeout": check.timeout_s,
            "attempts": check.attempts,
            "wanted": check.expected,
        }
        for identity, check, connection in listed
    ]
    with tempfile.TemporaryFile() as said:
        status = execution.run_own(cluster, where, "podwire.cluster.connecting", json.dumps(orders), stdout=said.fileno())
        said.seek(0)
        text = said.read()
    if status:
        raise Problem(f"connections from {where} could not be tried: the program ended with {status}")
    found: dict[str, str] = json.loads(text)
    return found
