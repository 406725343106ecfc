"""api-auth: what it costs the API to know who asks and whether they may, over HTTPS, by a client on the same machine.

``get_authorized_per_s``: one Service, read again and again by a ServiceAccount that proves itself with a signed token (JWT), in a namespace
with 500 RoleBindings to 500 Roles. The reader is a subject of all of them, and one allows the reading. Proved: without that binding the
same request is refused at once, and with it again let through.

Other figures of the same name come from ``bench/api_exec.py`` and ``bench/api_crd.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from typing import Any

import orjson

from bench.api import READERS, call, serving
from bench.api_objects import NAMESPACE, SERVICES, service
from bench.https_client import drive, on_a_loop, request
from bench.report import Limit, Report, median
from tests.running_apiserver import ApiServer

BINDINGS = 500
REQUESTS = 20_000
ROUNDS = 3
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
PARTS = ("bench.api_exec", "bench.api_crd")

LIMITS = {
    "get_authorized_per_s": Limit(least=6000),
    "exec_p50_ms": Limit(most=20),
    "port_forward_mib_per_s": Limit(least=200),
    "crd_create_per_s": Limit(least=1500),
}


def _role(number: int) -> bytes:
    rule = {"apiGroups": [""], "resources": ["services" if number == BINDINGS - 1 else f"things-{number}"], "verbs": ["get"]}
    return orjson.dumps({"metadata": {"name": f"role-{number}"}, "rules": [rule]})


def _binding(number: int) -> bytes:
    subjects = [{"kind": "ServiceAccount", "name": "reader", "namespace": NAMESPACE}, {"kind": "User", "name": f"user-{number}"}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"role-{number}"}
    return orjson.dumps({"metadata": {"name": f"binding-{number}"}, "roleRef": role, "subjects": subjects})


def prepare(server: ApiServer) -> str:
    """Make the account, its roles and bindings, and the Service; give the account's token."""
    made = [request("POST", f"{RBAC}/roles", _role(number)) for number in range(BINDINGS)]
    made += [request("POST", f"{RBAC}/rolebindings", _binding(number)) for number in range(BINDINGS)]
    on_a_loop(drive(server.port, server.context(), made, READERS, 201))
    call(server, "POST", ACCOUNTS, orjson.dumps({"metadata": {"name": "reader"}}), 201)
    call(server, "POST", SERVICES, service("frontend"), 201)
    told = orjson.loads(call(server, "POST", f"{ACCOUNTS}/reader/token", orjson.dumps({"spec": {}}), 201))
    return str(told["status"]["token"])


def get_authorized(server: ApiServer) -> list[float]:
    """Read the Service; requests a second, each round."""
    token = prepare(server)
    one = request("GET", f"{SERVICES}/frontend", headers=f"authorization: Bearer {token}\r\n")
    context = server.context(None)
    rates = [REQUESTS / on_a_loop(drive(server.port, context, itertools.repeat(one, REQUESTS), READERS, 200)) for _ in range(ROUNDS)]
    last = f"{RBAC}/rolebindings/binding-{BINDINGS - 1}"
    call(server, "DELETE", last)
    on_a_loop(drive(server.port, context, [one], 1, 403))
    call(server, "POST", f"{RBAC}/rolebindings", _binding(BINDINGS - 1), 201)
    on_a_loop(drive(server.port, context, [one], 1, 200))
    return rates


def run() -> Report:
    """Run the benchmark, and the parts of it that are in files of their own: ``measure()`` gives a part's samples."""
    samples: dict[str, Any] = {}
    with serving() as server:
        samples["get_authorized_per_s"] = get_authorized(server)
    for name in PARTS:
        if importlib.util.find_spec(name) is not None:
            samples |= importlib.import_module(name).measure()
    figures = {name: median(values) for name, values in samples.items()}
    limits = {name: limit for name, limit in LIMITS.items() if name in figures}
    return Report("api-auth", figures, samples, {"bindings": BINDINGS, "clients": READERS, "requests": REQUESTS}, limits)
