"""Personalities: which well-known program a stand-in behaves as, and where that listens. Pure.

The last element of the image's name decides, whatever registry, tag or digest there is; every other image has the plain personality,
which listens where the manifest says. What is known here of a program: its kind, its usual ports, and what its arguments say of them. What
it says on a connection is ``actors``' part. A command is read, never run, but by somebody who attaches to a client's shell.

Sources: https://github.com/kubernetes/kubernetes/blob/master/test/images/agnhost/README.md, and each image's own page
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from podwire.pods.standins.agnhost_flags import agnhost
from podwire.pods.standins.durations import parse_duration

Listening = tuple[str, int]
"""A protocol and a port."""

KINDS: Mapping[str, str] = {
    "agnhost": "agnhost",
    "busybox": "busybox",
    "alpine": "busybox",
    "debian": "busybox",
    "ubuntu": "busybox",
    "bash": "busybox",
    "dnsutils": "busybox",
    "jessie-dnsutils": "busybox",
    "nginx": "nginx",
    "nginx-unprivileged": "nginx",
    "httpd": "httpd",
    "hello-app": "hello-app",
    "hello-app-tls": "hello-app",
    "whereami": "whereami",
    "whereami-frontend": "whereami",
    "redis": "redis",
    "valkey": "redis",
    "pause": "pause",
    "pause-amd64": "pause",
    "echoserver": "echoserver",
    "echo-server": "echoserver",
    "http-echo": "http-echo",
    "httpbin": "httpbin",
    "go-httpbin": "httpbin",
    "curl": "curl",
    "netshoot": "curl",
}
"""The last element of an image's name, and the personality's."""

USUAL: Mapping[str, tuple[Listening, ...]] = {
    "nginx": (("TCP", 80),),
    "httpd": (("TCP", 80),),
    "hello-app": (("TCP", 8080),),
    "whereami": (("TCP", 8080),),
    "redis": (("TCP", 6379),),
    "echoserver": (("TCP", 8080),),
    "http-echo": (("TCP", 5678),),
    "httpbin": (("TCP", 80),),
}
"""Where a personality listens even if nothing names a port. Others listen where their arguments say, or nowhere."""

CALLING = frozenset({"agnhost"})
"""Personalities that call others, and so must know how names are resolved in their Pod."""

# What keeps a container there without serving anything.
_WAITING = re.compile(r"(?:^|[\s;&|/])(?:sleep|tail|pause|top)(?:\s|$)|^cat$|while (?:true|:|sleep)")
_SLEEP = re.compile(r"(?:^|.*/)sleep")
_NC = re.compile(r"(?:^|[\s;&|/])nc\s([^;&|]*)")
_HTTPD = re.compile(r"(?:^|[\s;&|/])httpd\s([^;&|]*)")


def kind_of(image: str) -> str:
    """The personality of an image; ``""`` is the plain one."""
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return KINDS.get(name, "")


def program(kind: str, command: Sequence[str], arguments: Sequence[str]) -> tuple[str, ...]:
    """The words of a program without its own name: an image's entrypoint is its program, so that a command replaces that."""
    if kind == "agnhost":
        words = [*command, *arguments]
        return tuple(words[1:] if words and words[0].rpartition("/")[2] == "agnhost" else words)
    return (*command, *arguments)


def ports(kind: str, words: Sequence[str], environment: Mapping[str, str]) -> tuple[Listening, ...]:
    """Where the program listens by itself."""
    if kind == "agnhost":
        return agnhost(words, environment).listening
    if kind in {"busybox", "curl"}:
        return tuple(_shell_ports(" ".join(words)))
    if kind == "http-echo":
        return (("TCP", _flag_port(words, "listen", USUAL[kind][0][1])),)
    if kind == "redis":
        return (("TCP", _flag_port(words, "port", USUAL[kind][0][1])),)
    if kind in {"hello-app", "whereami"} and environment.get("PORT", "").isdecimal():
        return (("TCP", int(environment["PORT"])),)
    return USUAL.get(kind, ())


def is_exact(kind: str, words: Sequence[str]) -> bool:
    """Say whether it listens there alone, whatever ports the manifest declares."""
    return waits(kind, words) if kind in {"agnhost", "pause", "busybox", "curl"} else False


def waits(kind: str, words: Sequence[str]) -> bool:
    """Say whether the program is there to be waited with: a client's shell, ``sleep``, ``pause``."""
    if kind == "pause":
        return True
    if kind == "agnhost":
        return agnhost(words, {}).waits
    return bool(words) and bool(_WAITING.search(" ".join(words)))


def shell_command(kind: str, command: Sequence[str], arguments: Sequence[str]) -> tuple[str, ...]:
    """What a client's shell would run, for somebody who attaches to it: a shell where nothing is named; empty for any other kind.

    An image of curl takes options and addresses for its own.
    """
    if kind not in {"busybox", "curl"}:
        return ()
    if kind == "curl" and not command and arguments and (arguments[0].startswith("-") or "://" in arguments[0]):
        return ("curl", *arguments)
    return (*command, *arguments) or ("sh",)


def sleeps(words: Sequence[str]) -> float | None:
    """The seconds after which ``sleep 30``, also within ``sh -c``, ends; None for any other program, and for one without end."""
    line = list(words)
    if len(line) == 3 and line[0].rpartition("/")[2] in {"sh", "bash", "ash"} and line[1] == "-c":
        line = line[2].split()
    if len(line) != 2 or not _SLEEP.fullmatch(line[0]):
        return None
    try:
        return parse_duration(line[1] if line[1][-1:].isalpha() else f"{line[1]}s")
    except ValueError:
        return None


def _shell_ports(line: str) -> Iterator[Listening]:
    """Ports that ``nc -l -p 8080``, ``nc -lk 8080`` and ``httpd -f -p 8080`` listen on."""
    for match in _NC.finditer(line):
        options = match[1].split()
        flags = "".join(word[1:] for word in options if word.startswith("-") and not word.startswith("--"))
        number = next((int(word) for word in options if word.isdecimal() and 0 < int(word) < 65536), 0)
        if "l" in flags and number:
            yield "UDP" if "u" in flags else "TCP", number
    for match in _HTTPD.finditer(line):
        found = re.search(r"-p\s*(?:[\d.]*:)?(\d+)", match[1])
        yield "TCP", int(found[1]) if found else 80


def _flag_port(words: Sequence[str], flag: str, usual: int) -> int:
    """The port in ``-listen=:8080``, ``--port 8080`` and the like."""
    found = re.search(rf"(?:^|\s)--?{flag}[=\s]+(?:\S*:)?(\d+)", " ".join(words))
    return int(found[1]) if found and 0 < int(found[1]) < 65536 else usual
