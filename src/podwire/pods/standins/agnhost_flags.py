"""What agnhost does by its arguments: the subcommand, its flags and where it listens. Pure.

Source: https://github.com/kubernetes/kubernetes/blob/master/test/images/agnhost/README.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "netexec": {"http-port": "8080", "udp-port": "8081", "sctp-port": "-1", "tls-cert-file": "", "http-override": ""},
    "serve-hostname": {"tcp": "false", "udp": "false", "http": "true", "close": "false", "port": "9376"},
    "test-webserver": {"port": "80"},
    "liveness": {},
    "porter": {},
    "pause": {},
    "no-snat-test": {"port": "8080"},
    "tcp-reset": {"port": "8080"},
    "grpc-health-checking": {"port": "5000", "http-port": "8080", "delay-unhealthy-sec": "-1", "service": ""},
}
"""The subcommands that are played, and their flags with the values that they have when nothing is said."""
_TRUTHS = frozenset({"tcp", "udp", "http", "close"})
_PORTER = re.compile(r"SERVE_(TLS_|SCTP_)?PORT_(\d+)")


@dataclass(frozen=True)
class Agnhost:
    """``listening``: protocol and port. ``served``: what porter says on each TCP port, by number. Ports that
    are to speak TLS speak it, and without it, too.
    """

    command: str
    flags: Mapping[str, str]
    listening: tuple[tuple[str, int], ...] = ()
    served: Mapping[int, str] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Say whether it is one that is played: servers and ``pause``, which go on until they are ended."""
        return self.command in DEFAULTS

    def port(self, flag: str) -> int:
        text = self.flags.get(flag, "")
        return int(text) if text.isascii() and text.isdecimal() and int(text) < 65536 else 0


def agnhost(words: Sequence[str], environment: Mapping[str, str]) -> Agnhost:
    """Read the arguments; none at all are ``pause``, as the image's own."""
    command = words[0] if words else "pause"
    flags = {**DEFAULTS.get(command, {}), **_flags(words[1:])}
    if command == "porter":
        return _porter(flags, environment)
    plain = Agnhost(command, flags)
    found: list[tuple[str, int]] = []
    if command == "netexec":
        found = [("TCP", plain.port("http-port")), ("UDP", plain.port("udp-port")), ("SCTP", plain.port("sctp-port"))]
    elif command == "serve-hostname":
        raw = [protocol for protocol in ("tcp", "udp") if flags[protocol] == "true"]
        found = [(protocol.upper(), plain.port("port")) for protocol in raw or (["tcp"] if flags["http"] == "true" else [])]
    elif command == "liveness":
        found = [("TCP", 8080)]
    else:
        found = [("TCP", plain.port(flag)) for flag in ("port", "http-port") if flag in DEFAULTS.get(command, {})]
    return Agnhost(command, flags, tuple((protocol, port) for protocol, port in found if port))


def _flags(words: Sequence[str]) -> dict[str, str]:
    """``--name=value``, ``--name value`` and, for the ones that are true or false, ``--name``; one dash is enough."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals:
            value = "true" if name in _TRUTHS or not rest else rest.pop(0)
        found[name] = value.lower() if name in _TRUTHS else value
    return found


def _porter(flags: Mapping[str, str], environment: Mapping[str, str]) -> Agnhost:
    found: list[tuple[str, int]] = []
    served: dict[int, str] = {}
    for name, value in environment.items():
        match = _PORTER.fullmatch(name)
        if match is None or not 0 < int(match[2]) < 65536:
            continue
        port = int(match[2])
        found.append(("SCTP" if match[1] == "SCTP_" else "TCP", port))
        served[port] = value
    return Agnhost("porter", flags, tuple(found), served)
