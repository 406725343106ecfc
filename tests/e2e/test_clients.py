"""Clients that others wrote do their daily work on a cluster: helm, Python clients, an operator, a program made with client-go."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.lab import REPOSITORY, USERS, Cluster, User, a_cluster, a_user, until

CLIENTS = REPOSITORY / ".cache" / "clients"
SCRIPTS = REPOSITORY / "tests" / "clients"
SITES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "sites.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "sites", "singular": "site", "kind": "Site"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Pods", "type": "integer", "jsonPath": ".spec.pods"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "required": ["pods"], "properties": {"pods": {"type": "integer", "maximum": 10}}},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Cluster]:
    """A cluster of the ordinary user's. The clients meet its API alone, so whose it is makes no difference to them."""
    with a_user(USERS[-1]) as user, a_cluster(user, "clients") as cluster:
        yield cluster


def client(cluster: Cluster, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a client as whoever runs the tests, with the cluster's kubeconfig."""
    user: User = cluster.user
    environment = {"HOME": str(user.home), "PATH": os.environ["PATH"], "KUBECONFIG": f"{user.home}/.kube/config", "LANG": "C.UTF-8"}
    environment |= options.pop("environment", {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, check=False, **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


def made(name: str) -> str:
    """Give a client that tools/clients has made."""
    found = CLIENTS / name
    if not found.exists():
        message = f"{found} is missing: python tools/clients makes it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return str(found)


@pytest.mark.parametrize("script", ["official.py", "asynchronous.py", "light.py"])
def test_python_clients(lab: Cluster, script: str) -> None:
    client(lab, made("venv/bin/python"), script, cwd=SCRIPTS)


def test_helm_installs_upgrades_rolls_back_and_uninstalls(lab: Cluster) -> None:
    helm, chart = made("helm"), str(SCRIPTS / "chart")
    homes = {f"HELM_{kind}_HOME": f"{lab.user.home}/helm" for kind in ("CACHE", "CONFIG", "DATA")}

    def run(*words: str) -> str:
        return client(lab, helm, *words, environment=homes).stdout

    def state() -> tuple[int, str]:
        return lab.get("deployment", "shop-web")["spec"]["replicas"], lab.get("configmap", "shop-settings")["data"]["greeting"]

    run("install", "shop", chart, "--wait", "--timeout", "60s")
    assert state() == (2, "hello")
    run("upgrade", "shop", chart, "--set", "replicas=3", "--set", "greeting=bye", "--wait", "--timeout", "60s")
    assert state() == (3, "bye")
    assert lab.get("job", "shop-migrate")["status"]["succeeded"] == 1, "the hook ran before the upgrade"
    run("rollback", "shop", "1", "--wait", "--timeout", "60s")
    assert state() == (2, "hello")
    history = json.loads(run("history", "shop", "-o", "json"))
    assert [one["status"] for one in history] == ["superseded", "superseded", "deployed"]
    run("uninstall", "shop", "--wait")
    assert lab.get("deployments,services,configmaps", "-l", "chart=shop")["items"] == []


def test_an_operator_written_with_kopf(lab: Cluster) -> None:
    kopf = made("venv/bin/kopf")
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(SITES))
    lab.kubectl("wait", "--for=condition=Established", "crd/sites.example.com", "--timeout=30s")
    environment = {"HOME": str(lab.user.home), "PATH": os.environ["PATH"], "KUBECONFIG": f"{lab.user.home}/.kube/config"}
    words = [kopf, "run", "--standalone", "--namespace", "default", str(SCRIPTS / "sites.py")]
    with open(lab.user.home / "kopf.log", "w") as log, subprocess.Popen(words, env=environment, stdout=log, stderr=log) as operator:
        try:
            site = {"apiVersion": "example.com/v1", "kind": "Site", "metadata": {"name": "blog"}, "spec": {"pods": 2}}
            lab.kubectl("apply", "-f", "-", stdin=json.dumps(site))
            until(lambda: lab.get("site", "blog").get("status", {}).get("create") == {"pods": 2}, "a status")
            until(lambda: lab.get("deployment", "blog")["status"].get("readyReplicas") == 2, "two Pods")
            lab.kubectl("patch", "site", "blog", "--type=merge", "-p", '{"spec": {"pods": 3}}')
            until(lambda: lab.get("deployment", "blog")["status"].get("readyReplicas") == 3, "three Pods")
            assert lab.kubectl("get", "sites").stdout.split()[-1] == "3"
            lab.kubectl("delete", "site", "blog", "--timeout=30s")
            assert lab.get("configmap", "blog-is-gone")
            until(lambda: not lab.get("deployments,services", "--field-selector", "metadata.name=blog")["items"], "what it owned is gone")
        finally:
            operator.terminate()
            operator.wait(30)


@pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go on this machine")
@pytest.mark.timeout(600)
def test_a_program_made_with_client_go(lab: Cluster) -> None:
    folder, program = SCRIPTS / "go", REPOSITORY / ".cache" / "clients" / "with-client-go"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=folder, check=True, timeout=580)
    client(lab, str(program))
