"""``agnhost`` as the server that its arguments make of it: netexec, serve-hostname, porter, test-webserver, liveness, tcp-reset and so on.

What is said, to whom and with which status is upstream's; where it listens is ``agnhost_flags``'. ``/shell`` knows the few commands of
its own that tests use; it runs no program.

Source: https://github.com/kubernetes/kubernetes/blob/master/test/images/agnhost/README.md
"""

from __future__ import annotations

import asyncio
import os
import shlex
import time
import zlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import orjson

from podwire.pods.standins.agnhost_flags import Agnhost, agnhost
from podwire.pods.standins.durations import parse_duration
from podwire.pods.standins.messages import Character
from podwire.pods.standins.outside import Outside, Unresolved
from podwire.pods.standins.session import Answer, Part, Place, Request, Session

_DIAL_TIMEOUT_S = 5.0
_MOST_TRIES = 1000
_LIVE_S = 10.0
_TEXT = "text/plain; charset=utf-8"


def _text(words: str, status: int = 200, *, close: bool = False) -> Answer:
    return Answer(words.encode(), status, _TEXT, close=close)


def _address(caller: tuple[str, int]) -> str:
    host, port = caller
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Say(Session):
    """Says one thing and closes; what is heard is nothing."""

    def __init__(self, words: bytes) -> None:
        self.closing = False
        self._words = words

    def receive(self, data: bytes) -> bytes:  # noqa: ARG002
        said, self._words, self.closing = self._words, b"", True
        return said

    def close(self) -> None:
        """Nothing is under way."""


class Agnhostly(Part):
    """One container. ``outside`` is its way out; ``ended`` is called with the exit status when it is asked to end."""

    def __init__(self, character: Character, outside: Outside, ended: Callable[[int], None]) -> None:
        self._program: Agnhost = agnhost(character.words, character.environment)
        self._outside = outside
        self._ended = ended
        self._began = time.monotonic()

    def respond(self, place: Place, request: Request) -> Answer | Awaitable[Answer]:
        match self._program.command:
            case "netexec":
                return self._netexec(place, request)
            case "serve-hostname":
                return Answer(place.role.hostname.encode(), kind=_TEXT, close=self._program.flags["close"] == "true")
            case "porter":
                return _text(self._program.served.get(place.port, ""))
            case "liveness":
                return self._liveness(request)
            case "test-webserver":
                return _text("<pre>\n</pre>\n") if request.path == "/" else _text("404 page not found\n", 404)
            case "no-snat-test" if request.path == "/whoami":
                return _text(place.caller[0])
            case "grpc-health-checking" | "no-snat-test":
                return _text("404 page not found\n", 404)
        return super().respond(place, request)

    def talk(self, place: Place) -> Session | None:
        if self._program.command == "serve-hostname" and self._program.flags["tcp"] == "true":
            return Say(place.role.hostname.encode())
        return None

    def datagram(self, place: Place, data: bytes) -> bytes | None:
        if self._program.command == "serve-hostname":
            return place.role.hostname.encode()
        word, _, rest = data.decode("utf-8", "replace").strip().partition(" ")
        match word.lower():
            case "hostname":
                return place.role.hostname.encode()
            case "echo":
                return rest.encode()
            case "clientip":
                return _address(place.caller).encode()
        return None

    def _liveness(self, request: Request) -> Answer:
        age = time.monotonic() - self._began
        if request.path == "/started":
            return _text(f"{age:.9f}s")
        return _text("ok") if age <= _LIVE_S else _text(f"error: {age:.6f}", 500)

    # netexec -----------------------------------------------------------------------------------------------------------------

    def _netexec(self, place: Place, request: Request) -> Answer | Awaitable[Answer]:
        query = request.query
        match self._program.flags["http-override"] or request.path:
            case "/":
                return _text(f"NOW: {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f %z UTC}")
            case "/clientip" | "/clientIP":
                return _text(_address(place.caller))
            case "/hostname" | "/hostName":
                return _text(place.role.hostname)
            case "/healthz":
                return _text("")
            case "/serverport":
                return _text(str(place.port))
            case "/header":
                return _text(request.headers.get(query.get("key", "").lower(), ""))
            case "/echo":
                return _echo(query)
            case "/redirect":
                return _redirect(query)
            case "/dial":
                return self._dial(query)
            case "/shell" | "/shell/":
                return self._shell(place, query.get("shellCommand") or query.get("cmd") or "")
            case "/exit":
                return self._exit(query)
            case "/shutdown":
                self._ended(0)
                return _text("", close=True)
            case "/upload":
                return _upload(request)
        return _text("404 page not found\n", 404)

    async def _exit(self, query: dict[str, str]) -> Answer:
        code, wait = query.get("code", "0") or "0", query.get("wait", "0") or "0"
        try:
            seconds = parse_duration(wait)
        except ValueError:
            return _text(f"argument 'wait' must be a duration, got {wait!r}", 400)
        if not code.isdecimal() or int(code) > 127:
            return _text(f"argument 'code' must be an integer [0-127] or empty, got {code!r}", 400)
        asyncio.get_running_loop().call_later(seconds, self._ended, int(code))
        return _text("", close=True)

    def _dial(self, query: dict[str, str]) -> Answer | Awaitable[Answer]:
        host, port, protocol = query.get("host", ""), query.get("port", ""), query.get("protocol", "") or "http"
        what, tries = query.get("request", ""), query.get("tries", "") or "1"
        if not what:
            return _text("request parameter not set", 400)
        if not host:
            return _text("host parameter not set", 400)
        if not port.isdecimal() or not 0 < int(port) < 65536:
            return _text(f"invalid port parameter {port!r}", 400)
        if protocol.lower() not in {"http", "udp", "sctp"}:
            return _text(f"unsupported protocol {protocol!r}: expected http, udp or sctp", 400)
        if not tries.isdecimal() or not 0 < int(tries) <= _MOST_TRIES:
            return _text(f"invalid tries parameter {tries!r}: expected a number from 1 to {_MOST_TRIES}", 400)
        return self._dial_all(host, int(port), protocol.lower(), what, int(tries))

    async def _dial_all(self, host: str, port: int, protocol: str, what: str, tries: int) -> Answer:
        output: dict[str, list[str]] = {}
        good = False
        for _ in range(tries):
            try:
                said = await self._dial_once(host, port, protocol, what)
                good = True
                output.setdefault("responses", []).append(said)
            except OSError as error:
                good = False
                output.setdefault("errors", []).append(f"dial {protocol} {host}:{port}: {_why(error)}")
        return Answer(orjson.dumps(output), 200 if good else 417, "application/json")

    async def _dial_once(self, host: str, port: int, protocol: str, what: str) -> str:
        if protocol == "sctp":
            raise OSError(93, "protocol not supported")
        if protocol == "udp":
            return (await self._outside.ask(host, port, what.encode(), _DIAL_TIMEOUT_S)).decode("utf-8", "replace").strip()
        target = what if what.startswith("/") else f"/{what}"
        return (await self._outside.get(host, port, target, _DIAL_TIMEOUT_S))[1].decode("utf-8", "replace").strip()

    # Its own commands ----------------------------------------------------------------------------------------------------------

    async def _shell(self, place: Place, line: str) -> Answer:
        try:
            output, status = await self._run(place, shlex.split(line))
        except ValueError as error:
            output, status = f"/bin/sh: {error}", 2
        found = {"output": output} if not status else {"output": output, "error": f"exit status {status}"}
        return Answer(orjson.dumps(found), 417 if status else 200, "application/json")

    async def _run(self, place: Place, words: list[str]) -> tuple[str, int]:
        """What the command prints, and its exit status."""
        match words:
            case ["hostname"]:
                return place.role.hostname + "\n", 0
            case ["echo", *rest]:
                return " ".join(rest) + "\n", 0
            case ["cat", "/etc/hosts"] | ["/agnhost" | "agnhost", "etc-hosts"]:
                return place.role.hosts, 0
            case ["cat", "/etc/resolv.conf"]:
                return place.role.resolv_conf, 0
            case ["true"]:
                return "", 0
            case ["false"]:
                return "", 1
            case ["/agnhost" | "agnhost", "connect", *rest]:
                return await self._connect(rest)
        return f"/bin/sh: {words[0] if words else ''}: not found: a stand-in runs no program\n", 127

    async def _connect(self, words: list[str]) -> tuple[str, int]:
        flags = dict(word.lstrip("-").partition("=")[::2] for word in words if word.startswith("-"))
        host, _, port = next((word for word in words if not word.startswith("-")), "").rpartition(":")
        if not port.isdecimal():
            return "UNKNOWN: expected HOST:PORT\n", 1
        timeout_s = parse_duration(flags.get("timeout", "0")) or None
        try:
            if flags.get("protocol", "tcp") == "udp":
                await self._outside.ask(host, int(port), b"hostname\n", timeout_s or _DIAL_TIMEOUT_S)
            else:
                (await self._outside.connect(host, int(port), timeout_s)).close()
        except TimeoutError:
            return "TIMEOUT\n", 1
        except ConnectionRefusedError:
            return "REFUSED\n", 1
        except Unresolved as error:
            return f"DNS: {error}\n", 1
        except OSError as error:
            return f"OTHER: {_why(error)}\n", 1
        return "", 0


def _why(error: OSError) -> str:
    """What an error is in the words that network programs use."""
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _echo(query: dict[str, str]) -> Answer:
    code = query.get("code", "") or "200"
    if not code.isdecimal() or not 200 <= int(code) <= 599:
        return _text(f"argument 'code' must be a status from 200 to 599, got {code!r}", 400)
    return _text(query.get("msg", ""), int(code))


def _redirect(query: dict[str, str]) -> Answer:
    location, code = query.get("location", ""), query.get("code", "") or "302"
    if not location or not location.isprintable() or not code.isdecimal() or not 300 <= int(code) <= 399:
        return _text("arguments 'location' and 'code' must be a URL and a status from 300 to 399", 400)
    return Answer(b"", int(code), _TEXT, headers=(("Location", location),))


def _upload(request: Request) -> Answer:
    """Takes a file and says where it would be; nothing is written."""
    if b"filename=" not in request.body:
        return Answer(orjson.dumps({"error": "http: no such file"}))
    return Answer(orjson.dumps({"output": f"/uploads/upload{zlib.crc32(request.body)}"}))
