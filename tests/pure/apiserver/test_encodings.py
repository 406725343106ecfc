"""Answers as their clients want them written: YAML, packed."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any

import pytest
import yaml

from podwire.apiserver.encodings import PACKED_FROM, takes_gzip
from podwire.apiserver.requests import Accepted, Form, accepted
from podwire.apiserver.status import Failure
from running_apiserver import ApiServer

DEADLINE_S = 30
YAML, GZIP = {"accept": "application/yaml"}, {"accept-encoding": "gzip"}


def asked(
    server: ApiServer, path: str, headers: dict[str, str], method: str = "GET", body: Any = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=DEADLINE_S)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        sent = json.dumps(body).encode() if body is not None else b""
        described = {"content-type": "application/json", "content-length": str(len(sent))} if sent else {}
        for name, value in (described | headers).items():
            connection.putheader(name, value)
        connection.endheaders(sent or None)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def filled(server: ApiServer) -> str:
    """A namespace with a small object, a large one, and enough of them that a list goes out in pieces."""
    asked(server, "/api/v1/namespaces", {}, "POST", {"metadata": {"name": "encodings"}})
    path = "/api/v1/namespaces/encodings/configmaps"
    text = "".join(f"line {number}: yes\n" for number in range(20_000))
    for name in ("a", "b", "c"):
        assert asked(server, path, {}, "POST", {"metadata": {"name": name, "labels": {"on": "yes"}}, "data": {"text": text}})[0] == 201
    return path


@pytest.mark.parametrize("path", ["", "/a", "/none", "?limit=1"])
@pytest.mark.parametrize("more", [{}, GZIP], ids=["plain", "packed"])
def test_yaml_says_what_json_says(server: ApiServer, filled: str, path: str, more: dict[str, str]) -> None:
    status, headers, body = asked(server, filled + path, YAML | more)
    assert headers["content-type"] == "application/yaml"
    if headers["content-encoding"] == "gzip":
        body = gzip.decompress(body)
    assert not body.startswith(b"{")
    same, _, written = asked(server, filled + path, {})
    shown, expected = yaml.load(body, Loader=yaml.CSafeLoader), json.loads(written)
    shown["metadata"].pop("resourceVersion", None)
    expected["metadata"].pop("resourceVersion", None)
    assert (status, shown) == (same, expected)


def test_tables_and_writes_in_yaml(server: ApiServer, filled: str) -> None:
    _, headers, body = asked(server, filled, {"accept": "application/yaml;as=Table;v=v1;g=meta.k8s.io"})
    assert (headers["content-type"], yaml.load(body, Loader=yaml.CSafeLoader)["kind"]) == ("application/yaml", "Table")
    status, headers, body = asked(server, filled, YAML, "POST", {"metadata": {"name": "written"}})
    assert (status, headers["content-type"], yaml.load(body, Loader=yaml.CSafeLoader)["metadata"]["name"]) == (
        201,
        "application/yaml",
        "written",
    )
    status, _, body = asked(server, f"{filled}/written", YAML, "DELETE")
    assert (status, yaml.load(body, Loader=yaml.CSafeLoader)["status"]) == (200, "Success")
    assert yaml.safe_load(asked(server, "/apis/apps/v1", YAML)[2])["kind"] == "APIResourceList"


@pytest.mark.parametrize(("path", "pieces"), [("", True), ("/a", False), ("?limit=1", True)])
def test_what_is_long_is_packed_for_who_takes_it(server: ApiServer, filled: str, path: str, pieces: bool) -> None:
    _, headers, body = asked(server, filled + path, GZIP)
    assert (headers["content-encoding"], headers["vary"], headers["content-type"]) == ("gzip", "Accept-Encoding", "application/json")
    assert (headers["transfer-encoding"] == "chunked") == pieces
    _, others, whole = asked(server, filled + path, {})
    assert others["content-encoding"] is None
    unpacked = gzip.decompress(body)
    assert len(body) < len(unpacked) / 4
    assert len(unpacked) > PACKED_FROM
    assert json.loads(unpacked)["kind"] == json.loads(whole)["kind"]
    assert (json.loads(unpacked).get("items") or json.loads(unpacked)["data"]) == (
        json.loads(whole).get("items") or json.loads(whole)["data"]
    )


def test_what_is_short_and_what_goes_on_is_not_packed(server: ApiServer, filled: str) -> None:
    assert asked(server, "/api/v1/namespaces/encodings", GZIP)[1]["content-encoding"] is None
    _, headers, body = asked(server, f"{filled}?watch=1&timeoutSeconds=1", GZIP | {"accept": "application/yaml, application/json"})
    assert (headers["content-encoding"], headers["content-type"]) == (None, "application/json")
    assert {json.loads(line)["type"] for line in body.splitlines()} == {"ADDED"}


def test_a_watch_is_no_yaml(server: ApiServer, filled: str) -> None:
    status, _, body = asked(server, f"{filled}?watch=1", YAML)
    assert (status, yaml.safe_load(body)["reason"]) == (406, "NotAcceptable")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", Accepted(Form.OBJECT, False)),
        (b"*/*", Accepted(Form.OBJECT, False)),
        (b"application/yaml", Accepted(Form.OBJECT, True)),
        (b"application/yaml, application/json", Accepted(Form.OBJECT, True)),
        (b"application/json, application/yaml", Accepted(Form.OBJECT, False)),
        (b"application/vnd.kubernetes.protobuf, application/yaml;q=0.5", Accepted(Form.OBJECT, True)),
        (b"application/yaml;as=Table;v=v9, application/json;as=Table;v=v1", Accepted(Form.TABLE, False)),
    ],
)
def test_the_first_that_is_served_is_chosen(accept: bytes, expected: Accepted) -> None:
    assert accepted(accept) == expected


@pytest.mark.parametrize("accept", [b"text/yaml", b"application/x-yaml", b"application/vnd.kubernetes.protobuf"])
def test_what_is_not_served_is_refused(accept: bytes) -> None:
    with pytest.raises(Failure, match="application/yaml"):
        accepted(accept)


@pytest.mark.parametrize(
    ("header", "expected"), [(b"gzip", True), (b"deflate, gzip", True), (b"gzip;q=0", False), (b"x-gzip", False), (b"identity", False)]
)
def test_who_takes_gzip(header: bytes, expected: bool) -> None:
    assert takes_gzip(header) == expected
