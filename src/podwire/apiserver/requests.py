"""What a request asks for: its path, its query, its headers, read into one value.

Here: the shapes of the API's paths, the words of its queries, and the choice of the answer's form from ``Accept``. Not here: whether
the kind exists, who may ask, what is done.

    /api/VERSION/...  and  /apis/GROUP/VERSION/...   followed by
    PLURAL[/NAME[/SUBRESOURCE]]  or  namespaces/NAMESPACE/PLURAL[/NAME[/SUBRESOURCE]]

``namespaces/NAME/status`` and ``namespaces/NAME/finalize`` are subresources of the Namespace itself.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from podwire.apiserver import status
from podwire.apiserver.authentication import User

if TYPE_CHECKING:
    from podwire.apiserver.kind import Kind

JSON, YAML = "application/json", "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC_PATCH, APPLY_PATCH = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
CUSTOM_PATCHES = (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)

MANAGER_LIMIT = 128  # bytes of a field manager's name

_SHORT_PATH = 256  # characters
_SHORT_ACCEPT = 1024  # bytes of an ``Accept`` header that is worth remembering
_PROXIED = ("nodes", "pods", "services")
_NAMESPACE_SUBRESOURCES = ("status", "finalize")
_TRUE = ("true", "1", "True", "t", "T", "TRUE")
_FALSE = ("false", "0", "False", "f", "F", "FALSE", "")


class Form(Enum):
    """How objects are shown: whole, as rows of a table, or their metadata only."""

    OBJECT = ""
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. ``namespace`` empty: cluster scope, or all namespaces."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


@dataclass(slots=True)
class Request:
    """One request to a resource. ``query`` holds the last value of each word. ``warnings`` go into the answer's headers.

    ``annotations`` go into the audit log.
    """

    method: str
    path: str
    target: Target
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    user: User
    body: bytes = b""
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    spoken: Kind | None = None
    """The kind that the client speaks of, where the request was translated to another (``versions.py``)."""

    def flag(self, name: str) -> bool:
        """Read a boolean of the query. Raises Failure (400)."""
        value = self.query.get(name, "")
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise status.bad_request(f'strconv.ParseBool: parsing "{value}": invalid syntax')

    def number(self, name: str) -> int:
        """Read a whole number of the query, 0 when absent. Raises Failure (400)."""
        value = self.query.get(name, "")
        if not value:
            return 0
        if value.isascii() and value.isdecimal():
            return int(value)
        raise status.bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax')

    @property
    def content_type(self) -> str:
        """The media type of the body without parameters; JSON when none is named."""
        return self.headers.get(b"content-type", b"").split(b";")[0].strip().decode("latin-1").lower() or JSON

    @property
    def form(self) -> Form:
        """How the client wants objects shown. Raises Failure (400, 406)."""
        watches = self.method == "GET" and "watch" in self.query and self.flag("watch")
        return accepted(self.headers.get(b"accept", b""), streamed=watches).form

    @property
    def dry_run(self) -> bool:
        """Whether to do all but store. Raises Failure (400)."""
        value = self.query.get("dryRun", "")
        if value not in ("", "All"):
            raise status.bad_request(f'invalid dryRun option: "{value}"; supported values: "All"')
        return value == "All"

    @property
    def field_manager(self) -> str:
        """Name the one who owns the fields that are written: who the query says, else the first word of the User-Agent."""
        name = self.query.get("fieldManager", "")
        if not name:
            agent = self.headers.get(b"user-agent", b"").decode("utf-8", "replace").split("/", 1)[0]
            name = "".join(filter(str.isprintable, agent)).encode()[:MANAGER_LIMIT].decode(errors="ignore")
        return name or "unknown"

    @property
    def verb(self) -> str:
        """The API's word for what is asked, which authorization knows."""
        match self.method:
            case "GET" | "HEAD":
                if self.target.subresource == "proxy":
                    return "get"
                if self.method == "HEAD":
                    raise status.method_not_allowed()
                if "watch" in self.query and self.flag("watch"):
                    return "watch"
                return "get" if self.target.name else "list"
            case "POST":
                return "create"
            case "PUT":
                return "update"
            case "PATCH":
                return "patch"
            case "DELETE":
                return "delete" if self.target.name else "deletecollection"
        raise status.method_not_allowed()


def target(path: str) -> Target | None:
    """Read a resource's path; None when it is not one."""
    return _remembered_target(path) if len(path) <= _SHORT_PATH else _target(path)


def _target(path: str) -> Target | None:
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    rest = _without_proxied(rest)
    if "" in rest:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and rest[2] in _NAMESPACE_SUBRESOURCES):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return None
    return Target(group, version, rest[0], namespace, *rest[1:])


_remembered_target = functools.lru_cache(maxsize=1024)(_target)  # who writes, or watches over one object, names the same paths again


def _without_proxied(parts: list[str]) -> list[str]:
    """A proxy's own path, without that of what it leads to."""
    for place in (2, 4):
        if parts[place : place + 1] == ["proxy"] and parts[place - 2] in _PROXIED:
            return parts[: place + 1]
    return parts


def query(text: bytes) -> Mapping[str, str]:
    """Read the query of a URL."""
    if not text:
        return {}
    return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True))


class Accepted(NamedTuple):
    """What a client wants to see: a form, and whether as YAML rather than JSON."""

    form: Form
    yaml: bool


def accepted(accept: bytes, *, streamed: bool = False) -> Accepted:
    """Choose how to show objects: the first of the ``Accept`` header that is served. Raises Failure (406).

    ``streamed``: one after the other, as a watch has them, which no document of YAML does.
    """
    return _accepted(accept, streamed) if len(accept) <= _SHORT_ACCEPT else _accepted.__wrapped__(accept, streamed)


@functools.lru_cache(maxsize=256)
def _accepted(accept: bytes, streamed: bool) -> Accepted:
    for alternative in accept.decode("latin-1").split(","):
        media, *parameters = [part.strip() for part in alternative.split(";")]
        yaml = media.lower() == YAML and not streamed
        if media.lower() not in ("", "*/*", "application/*", JSON) and not yaml:
            continue
        words = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        shown = words.get("as", "")
        if shown == "Table" and words.get("v", "v1") in ("v1", "v1beta1"):
            return Accepted(Form.TABLE, yaml)
        if shown in ("PartialObjectMetadata", "PartialObjectMetadataList") and words.get("v", "v1") in ("v1", "v1beta1"):
            return Accepted(Form.METADATA, yaml)
        if not shown:
            return Accepted(Form.OBJECT, yaml)
    raise status.not_acceptable(f"{JSON}, {JSON};as=Table, {JSON};as=PartialObjectMetadata" + ("" if streamed else f", {YAML}"))
