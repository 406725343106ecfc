"""The commands that people type, on the newest kubectl and on one three minors older: ``kubectl.script`` says what each must answer."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from running_apiserver import ApiServer, start

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("kubectl.script")
PROGRAMS = {"1.37": REPOSITORY / ".venv/bin/kubectl", "1.34": REPOSITORY / ".cache/clients/kubectl"}
LIMIT_S = 30


@dataclass
class Step:
    """One command and what it must say, or one file to write."""

    line: int
    command: str = ""
    file: str = ""
    status: int = 0
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    content: str = ""


def steps(minor: str) -> Iterator[Step]:
    """Read the script as it holds for one minor version."""
    lines = iter(enumerate(SCRIPT.read_text().splitlines(), 1))
    step: Step | None = None
    for number, line in lines:
        if only := re.match(r"\[(\d\.\d+)\] ", line):
            if only[1] != minor:
                continue
            line = line[only.end() :]
        if line.startswith(("$ ", "cat > ")):
            if step is not None:
                yield step
            step = Step(number, command=line[2:])
            if line.startswith("cat > "):
                step = Step(number, file=line.split()[2])
                while (text := next(lines)[1]) != "EOF":
                    step.content += text + "\n"
        elif step is None or line.startswith("#"):
            # A comment of the script; a "#" in an answer is followed by a capital and stands after a command.
            if step is not None and step.command.endswith("--list") and not line.startswith("##"):
                step.out.append(line)
        elif line.startswith("! "):
            step.err.append(line[2:])
        elif line.startswith("? "):
            step.status = int(line[2:])
        else:
            step.out.append(line)
    if step is not None:
        yield step


def _one_blank(text: str) -> str:
    return " ".join(text.split())


def _pattern(line: str) -> str:
    parts = re.split(r"(<\.\.\.>|<>)", _one_blank(line))
    return "".join({"<...>": ".*", "<>": r"\S*"}.get(part, re.escape(part)) for part in parts)


def matches(expected: list[str], said: str) -> bool:
    """Compare line by line; blank lines count for nothing, ``...`` stands for any lines."""
    whole = "".join(r"(?:.*\n)*?" if line == "..." else _pattern(line) + "\n" for line in expected if line.strip())
    text = "".join(_one_blank(line) + "\n" for line in said.splitlines() if line.strip())
    return re.fullmatch(whole, text) is not None


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kubectl") as name:
        yield Path(name)


@pytest.mark.parametrize("minor", PROGRAMS)
def test_the_commands_that_people_use(minor: str, folder: Path) -> None:
    program = PROGRAMS[minor]
    if not program.exists():
        assert not (os.environ.get("CI") and os.uname().machine == "x86_64"), "tools/setup brings both"
        pytest.skip(f"no kubectl {minor}: tools/setup brings it")
    server = start(folder)
    work = folder / "work"
    work.mkdir()
    try:
        failures = [failure for step in steps(minor) if (failure := run(step, program, server, work))]
    finally:
        server.stop()
        server.listener.close()
    assert not failures, "\n\n".join(failures)
    assert "Traceback" not in server.log(), server.log()


def run(step: Step, program: Path, server: ApiServer, work: Path) -> str:
    """Do one step. Gives what is wrong with the answer, or nothing."""
    if step.file:
        (work / step.file).write_text(step.content)
        return ""
    words = shlex.split(step.command) if '"' in step.command.split("{")[0] else step.command.split()
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(work),
        "KUBECONFIG": server.kubeconfig(),
        "LANG": "C.UTF-8",
    }
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    wrong = [line for line in step.err if not re.search(_pattern(line), _one_blank(done.stderr.replace("\n", " \n ")))]
    if done.returncode == step.status and matches(step.out, done.stdout) and not wrong:
        return ""
    expected = "\n".join([*step.out, *(f"! {line}" for line in step.err)])
    where = f"{SCRIPT.name}:{step.line}: {step.command}"
    return f"{where}\nsaid ({done.returncode}):\n{done.stdout}{done.stderr}\nexpected ({step.status}):\n{expected}"
