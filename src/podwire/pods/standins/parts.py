"""The parts of well-known web programs: what a client sees first of each, with the words that the program itself has. And ``Told``: any
part, as the Pod's annotations say.

Which image has which part, and where it listens, is ``personalities``'. Sources: each image's own page, named at its class.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import orjson

from podwire.pods.standins.directions import Directions, Manner
from podwire.pods.standins.messages import Character
from podwire.pods.standins.outside import Outside
from podwire.pods.standins.session import Answer, Part, Place, Request, Session

_TEXT, _HTML = "text/plain; charset=utf-8", "text/html"


class Told(Part):
    """Another part, with the manners that annotations ask for."""

    def __init__(self, part: Part, directions: Directions) -> None:
        self._part = part
        self._directions = directions

    def respond(self, place: Place, request: Request) -> Answer | Awaitable[Answer]:
        manner = self._directions.manner(place.container, place.port, request.path)
        if manner.hang or manner.delay_s:
            return self._late(place, request, manner)
        answer = self._part.respond(place, request)
        return _mannered(answer, manner) if isinstance(answer, Answer) else self._awaited(answer, manner)

    async def _late(self, place: Place, request: Request, manner: Manner) -> Answer:
        if manner.hang:
            await asyncio.Event().wait()  # until the client goes
        await asyncio.sleep(manner.delay_s)
        answer = self._part.respond(place, request)
        return _mannered(answer if isinstance(answer, Answer) else await answer, manner)

    @staticmethod
    async def _awaited(coming: Awaitable[Answer], manner: Manner) -> Answer:
        return _mannered(await coming, manner)

    def talk(self, place: Place) -> Session | None:
        return self._part.talk(place)

    def datagram(self, place: Place, data: bytes) -> bytes | None:
        return self._part.datagram(place, data)


def _mannered(answer: Answer, manner: Manner) -> Answer:
    told = {name.lower() for name, _ in manner.headers}
    kind = next((value for name, value in manner.headers if name.lower() == "content-type"), answer.kind)
    server = next((value for name, value in manner.headers if name.lower() == "server"), answer.server)
    own = tuple(field for field in answer.headers if field[0].lower() not in told)
    more = tuple(field for field in manner.headers if field[0].lower() not in {"content-type", "server"})
    return Answer(
        body=answer.body if manner.body is None else manner.body,
        status=manner.status or answer.status,
        kind=kind if manner.body is None or "content-type" in told else _TEXT,
        headers=own + more,
        server=server,
        close=answer.close,
    )


class Nginx(Part):
    """https://hub.docker.com/_/nginx: a welcome at ``/``, and pages for what is not there."""

    server = "nginx/1.29.3"

    def respond(self, place: Place, request: Request) -> Answer:  # noqa: ARG002
        if request.method not in {"GET", "HEAD"}:
            return self._error("405 Not Allowed")
        if request.path not in {"/", "/index.html"}:
            return self._error("404 Not Found")
        words = "If you see this page, nginx is played by a stand-in: its image is not run."
        title = "Welcome to nginx!"
        body = f"<body>\n<h1>{title}</h1>\n<p>{words}</p>\n</body>\n"
        page = f"<!DOCTYPE html>\n<html>\n<head>\n<title>{title}</title>\n</head>\n{body}</html>\n"
        return Answer(page.encode(), kind=_HTML, server=self.server)

    def _error(self, words: str) -> Answer:
        head = f"<html>\r\n<head><title>{words}</title></head>\r\n<body>\r\n<center><h1>{words}</h1></center>\r\n"
        foot = f"<hr><center>{self.server}</center>\r\n</body>\r\n</html>\r\n"
        return Answer((head + foot).encode(), int(words[:3]), _HTML, server=self.server)


class Httpd(Part):
    """https://hub.docker.com/_/httpd: ``It works!``."""

    server = "Apache/2.4.66 (Unix)"

    def respond(self, place: Place, request: Request) -> Answer:  # noqa: ARG002
        if request.path not in {"/", "/index.html"}:
            words = "<h1>Not Found</h1>\n<p>The requested URL was not found on this server.</p>\n"
            page = f"<html><head>\n<title>404 Not Found</title>\n</head><body>\n{words}</body></html>\n"
            return Answer(page.encode(), 404, "text/html; charset=iso-8859-1", server=self.server)
        return Answer(b"<html><body><h1>It works!</h1></body></html>\n", kind=_HTML, server=self.server)


class HelloApp(Part):
    """https://github.com/GoogleCloudPlatform/kubernetes-engine-samples (hello-app): greeting, version by the image's tag, host name."""

    def __init__(self, character: Character) -> None:
        found = re.fullmatch(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", character.tag)
        self._version = ".".join(number or "0" for number in found.groups()) if found else "1.0.0"

    def respond(self, place: Place, request: Request) -> Answer:  # noqa: ARG002
        return Answer(f"Hello, world!\nVersion: {self._version}\nHostname: {place.role.hostname}\n".encode(), kind=_TEXT)


class Whereami(Part):
    """https://github.com/GoogleCloudPlatform/kubernetes-engine-samples (whereami): where the Pod is, as JSON; ``/FIELD`` gives one."""

    def __init__(self, character: Character) -> None:
        self._metadata = character.environment.get("METADATA", "frontend")

    def respond(self, place: Place, request: Request) -> Answer:
        role = place.role
        found = {
            "cluster_name": role.cluster,
            "host_header": request.host,
            "metadata": self._metadata,
            "node_name": role.node,
            "pod_ip": role.ip,
            "pod_name": role.name,
            "pod_name_emoji": "🧩",
            "pod_namespace": role.namespace,
            "pod_service_account": role.service_account,
            "project_id": "podwire",
            "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}",
            "zone": role.zone,
        }
        if request.path == "/healthz":
            return Answer(b'"OK"\n')
        one = request.path.strip("/")
        if one in found:
            return Answer(found[one].encode(), kind=_TEXT)
        return Answer(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


class EchoServer(Part):
    """https://github.com/kubernetes/kubernetes (echoserver): the request in words."""

    def respond(self, place: Place, request: Request) -> Answer:
        fields = "".join(f"\t{name}={value}\n" for name, value in sorted(request.headers.items()))
        role, host = place.role, request.host.partition(":")[0]
        parts = (
            f"\n\nHostname: {role.hostname}\n",
            f"Pod Information:\n\tnode name:\t{role.node}\n\tpod name:\t{role.name}\n"
            f"\tpod namespace:\t{role.namespace}\n\tpod IP:\t{role.ip}\n",
            "Server values:\n\tserver_version=podwire stand-in\n",
            f"Request Information:\n\tclient_address={place.caller[0]}\n\tmethod={request.method}\n\treal path={request.target}\n"
            f"\tquery={request.target.partition('?')[2]}\n\trequest_version=1.1\n\trequest_scheme=http\n"
            f"\trequest_uri=http://{host}:{place.port}{request.target}\n",
            f"Request Headers:\n{fields}",
            f"Request Body:\n{request.body.decode('utf-8', 'replace') or '-no body in request-'}\n\n",
        )
        return Answer("\n".join(parts).encode(), kind="text/plain")


class HttpEcho(Part):
    """https://github.com/hashicorp/http-echo: what ``-text`` says, everywhere but at ``/health``."""

    def __init__(self, character: Character) -> None:
        found = re.search(r"(?:^|\0)--?text(?:=|\0)([^\0]*)", "\0".join(character.words))
        self._text = found[1] if found else character.environment.get("ECHO_TEXT", "hello-world")

    def respond(self, place: Place, request: Request) -> Answer:  # noqa: ARG002
        if request.path == "/health":
            return Answer(b'{"status":"ok"}\n', kind="application/json; charset=utf-8")
        return Answer(f"{self._text}\n".encode(), kind=_TEXT, headers=(("X-App-Name", "http-echo"), ("X-App-Version", "1.0.0")))


class HttpBin(Part):
    """https://httpbin.org: the few paths that say what was asked, with which status, how late, and where to."""

    server = "gunicorn/19.9.0"

    def respond(self, place: Place, request: Request) -> Answer | Awaitable[Answer]:
        what, _, rest = request.path.lstrip("/").partition("/")
        number = rest.partition("/")[0]
        headers = {name.title(): value for name, value in request.headers.items()}
        seen: dict[str, object] = {
            "args": request.query,
            "headers": headers,
            "origin": place.caller[0],
            "url": f"http://{request.host}{request.target}",
        }
        match what:
            case "status" if number.isdecimal() and 200 <= int(number) <= 599:
                return Answer(b"", int(number), _HTML, server=self.server)
            case "delay" if number.isdecimal():
                return self._late(min(float(number), 10.0), seen)
            case "get" | "post" | "put" | "patch" | "delete" | "anything":
                sent = {"data": request.body.decode("utf-8", "replace"), "method": request.method}
                return self._json(seen if what == "get" else seen | sent)
            case "headers":
                return self._json({"headers": headers})
            case "ip":
                return self._json({"origin": place.caller[0]})
            case "user-agent":
                return self._json({"user-agent": request.headers.get("user-agent", "")})
            case "":
                page = b"<!DOCTYPE html>\n<html>\n<head>\n<title>httpbin.org</title>\n</head>\n</html>\n"
                return Answer(page, kind=_HTML, server=self.server)
        return Answer(b"<!doctype html>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n", 404, _HTML, server=self.server)

    async def _late(self, seconds: float, seen: dict[str, object]) -> Answer:
        await asyncio.sleep(seconds)
        return self._json(seen)

    def _json(self, tree: object) -> Answer:
        return Answer(orjson.dumps(tree, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), server=self.server)


def part_of(character: Character, outside: Callable[[], Outside], ended: Callable[[int], None]) -> Part:
    """The part of a container. ``outside`` gives the Pod's way out; ``ended`` takes the exit status of a program that was asked to end."""
    match character.kind:
        case "agnhost":
            from podwire.pods.standins.agnhost import Agnhostly

            return Agnhostly(character, outside(), ended)
        case "redis":
            from podwire.pods.standins.redis import Redis

            return Redis()
        case "nginx":
            return Nginx()
        case "httpd":
            return Httpd()
        case "hello-app":
            return HelloApp(character)
        case "whereami":
            return Whereami(character)
        case "echoserver":
            return EchoServer()
        case "http-echo":
            return HttpEcho(character)
        case "httpbin":
            return HttpBin()
    return Part()
