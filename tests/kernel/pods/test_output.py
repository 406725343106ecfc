"""What containers write: no line is lost when the agent is killed, a killed writing program breaks no pipe, each run has its log."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kernel.pods.running import NODE, eventually, running_node
from podwire.linux.init_client import InitClient

COUNT = "i=0; while [ $i -lt {} ]; do echo line $i; i=$((i+1)); {}; done"


def machine(script: str, **more: object) -> dict[str, object]:
    return {"name": "main", "image": "podwire.dev/machine", "command": ["sh", "-c", script], **more}


def writing_programs() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(b"podwire.pods.logs.writer" in word for word in words):
                found.append(int(entry.name))
    return found


def test_no_line_is_lost_when_the_agent_is_killed() -> None:
    with running_node() as node:
        node.service_account()
        pod = node.pod("talk", machine(COUNT.format(1_000_000, "sleep 0.001")))
        for _ in range(3):
            before = node.said(pod).count("\n")
            eventually(lambda: node.said(pod).count("\n") > before + 50)  # noqa: B023
            node.kill("agent")
            node.start_agent()
        before = node.said(pod).count("\n")
        eventually(lambda: node.said(pod).count("\n") > before + 50)
        *lines, _ = node.said(pod).split("\n")  # the last one may be under way
        assert lines == [f"line {number}" for number in range(len(lines))]
        assert node.get("talk")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_container_outlives_the_program_that_writes_its_log() -> None:
    with running_node() as node:
        node.service_account()
        pod = node.pod("talk", machine(COUNT.format(100_000, "sleep 0.001")))
        eventually(lambda: "line 20\n" in node.said(pod))
        (writer,) = writing_programs()
        os.kill(writer, signal.SIGKILL)
        eventually(lambda: writing_programs() and writing_programs() != [writer])
        lines = node.said(pod).count("\n")
        eventually(lambda: node.said(pod).count("\n") > lines + 50)
        assert node.get("talk")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_when_a_run_has_ended_all_that_it_said_is_written_and_the_run_before_is_kept() -> None:
    script = "seq 1 20000; printf 'and this'; echo error >&2; test -e /tmp/never"
    with running_node() as node:
        node.service_account()
        pod = node.pod("short", machine(script), restartPolicy="Always")
        node.wait("short", lambda status: status.get("containerStatuses", [{}])[0].get("restartCount", 0) >= 1, "it is restarted")
        first, second = node.said(pod, run=0), node.said(pod, run=1)
        for said in (first, second):
            assert said.replace("and this", "").replace("error\n", "") == "".join(f"{number}\n" for number in range(1, 20001)) or said == ""
        assert "and this" in first
        assert "error\n" in first


def test_of_a_pod_that_ends_before_its_log_is_begun_nothing_is_left() -> None:
    with running_node() as node:
        node.service_account()
        node.pod("other", machine("sleep 1000"))
        node.ready("other")
        (writer,) = writing_programs()
        init = InitClient(f"{node.folder}/init.sock")
        os.kill(writer, signal.SIGSTOP)
        pod = node.pod("short", machine("echo said; sleep 1000"))
        uid = pod["metadata"]["uid"]
        eventually(lambda: init.programs(f"pod/{uid}"))
        node.delete("short")
        node.gone("short")
        os.kill(writer, signal.SIGCONT)
        eventually(lambda: not [os.close(fd) for fd in init.give(f"log/{uid}").values()])
        pods = node.folder / "state/nodes" / NODE / "pods"
        eventually(lambda: not list(pods.glob(f"{uid}*")), lambda: list(pods.rglob("*")))
        assert node.said(node.get("other")) == ""
        init.close()


def test_a_terminal_is_one_stream() -> None:
    with running_node() as node:
        node.service_account()
        pod = node.pod("terminal", machine("test -t 0 && test -t 1 && test -t 2 && echo a terminal; sleep 1000", tty=True, stdin=True))
        eventually(lambda: node.said(pod) == "a terminal\r\n", lambda: node.said(pod))
