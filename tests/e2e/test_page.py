"""The main job from end to end: a cluster, the page's example, a request from the internet."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def podwire(*words: str, home: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "config")}
    command = [sys.executable, "-m", "podwire", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_request_from_the_internet_is_answered_by_a_pod(tmp_path: Path) -> None:
    podwire("up", home=tmp_path)
    try:
        podwire("apply", "-f", str(REPOSITORY / "examples/page"), home=tmp_path)
        status = json.loads(podwire("status", "-o", "json", home=tmp_path))
        [balancer] = status["loadBalancers"]
        answer = podwire("exec", "internet", "--", "curl", "-sf", f"http://{balancer['address']}/", home=tmp_path)
        assert json.loads(answer)["pod"]["name"].startswith("frontend-")
    finally:
        podwire("down", home=tmp_path)
