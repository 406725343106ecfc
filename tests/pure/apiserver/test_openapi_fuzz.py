"""Requests made of the server's own OpenAPI documents, right and wrong ones: never a status of 500, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from running_apiserver import ApiServer

LIMIT_S = 100
SEED = 1
# What a path and a query hold is settled, so that most requests get as far as a handler; a watch would last.
SETTINGS = """
[parameters]
"path.namespace" = "default"
"path.name" = "a"
"query.watch" = false
"""
OBJECTS: dict[str, dict[str, Any]] = {
    "/api/v1/namespaces/default/configmaps": {"data": {"k": "v"}},
    "/api/v1/namespaces/default/services": {"spec": {"ports": [{"port": 80}]}},
    "/api/v1/namespaces/default/pods": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
    "/apis/apps/v1/namespaces/default/deployments": {
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }
    },
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices": {"addressType": "IPv4", "endpoints": []},
}


@pytest.mark.parametrize(
    ("document", "examples"),
    [
        ("api/v1", 1),
        ("apis/apps/v1", 1),
        ("apis/networking.k8s.io/v1", 2),
        ("apis/discovery.k8s.io/v1", 4),
        ("apis/compute.podwire.dev/v1", 1),
    ],
)
def test_no_request_breaks_the_server(server: ApiServer, call: Any, tmp_path: Path, document: str, examples: int) -> None:
    for path, tree in OBJECTS.items():
        assert call("POST", path, {"metadata": {"name": "a"}, **tree}).status in (201, 409)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", tmp_path / "settings.toml", "run"]
    command += [f"{server.url}/openapi/v3/{document}", "--url", server.url, "--seed", str(SEED), "--max-examples", str(examples)]
    command += ["--checks", "not_a_server_error", "--phases", "fuzzing", "--mode", "all", "--suppress-health-check", "all"]
    command += ["--tls-verify", f"{server.paths.pki}/ca.crt", "--request-cert", server.folder / "admin.pem", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in server.log()
    assert call("GET", "/readyz").status == 200
