"""What the lab says of itself, and when that is "ready"."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.cluster.reports import Record, status

FINE = {"name": "n", "ready": True, "reason": "", "pressure": []}
DNS = {"namespace": "kube-system", "name": "kube-dns", "ready": 1, "wanted": 1}
RUNS = Record("apiserver", pid=1, ready=True)


@pytest.mark.parametrize(
    ("node", "full", "waiting"),
    [
        (FINE, "", []),
        ({**FINE, "pressure": ["DiskPressure", "PIDPressure"]}, "", ["node n has DiskPressure, PIDPressure"]),
        ({**FINE, "ready": False, "reason": "silent", "pressure": ["DiskPressure"]}, "", ["node n is not ready (silent)"]),
        (FINE, "/state/lab", ["the state directory /state/lab has no room"]),
    ],
)
def test_what_is_waited_for(node: dict[str, Any], full: str, waiting: list[str]) -> None:
    told = status("lab", "https://127.0.0.1:1", [RUNS], ["n"], {"nodes": [node], "deployments": [DNS]}, full=full)
    assert (told["ready"], told["waiting"]) == (not waiting, waiting)
