"""The health pages, as probes and people ask for them."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

from podwire.apiserver import health
from running_apiserver import ApiServer

WELL = {"ping": True, "etcd": True, "shutdown": True}
BROKEN = WELL | {"etcd": False}


@pytest.mark.parametrize(
    ("path", "query", "well", "wanted"),
    [
        ("/readyz", "", WELL, (200, "ok")),
        ("/readyz", "verbose", WELL, (200, "[+]ping ok\n[+]etcd ok\n[+]shutdown ok\nreadyz check passed\n")),
        ("/livez", "verbose=true", WELL, (200, "[+]ping ok\n[+]etcd ok\nlivez check passed\n")),
        ("/healthz", "", BROKEN, (500, "[+]ping ok\n[-]etcd failed: reason withheld\nhealthz check failed\n")),
        ("/healthz", "exclude=etcd", BROKEN, (200, "ok")),
        ("/livez", "verbose&exclude=etcd", BROKEN, (200, "[+]ping ok\n[+]etcd excluded: ok\nlivez check passed\n")),
        (
            "/livez",
            "verbose&exclude=x&exclude=y",
            WELL,
            (
                200,
                '[+]ping ok\n[+]etcd ok\nwarn: some health checks cannot be excluded: no matches for "x", "y"\nlivez check passed\n',
            ),
        ),
        ("/livez/ping", "", BROKEN, (200, "ok")),
        ("/livez/etcd", "", BROKEN, (500, "internal server error: etcd failed: reason withheld\n")),
        ("/readyz/shutdown", "", WELL | {"shutdown": False}, (500, "internal server error: shutdown failed: reason withheld\n")),
        ("/livez/shutdown", "", WELL, None),
        ("/livezz", "", WELL, None),
        ("/", "", WELL, None),
    ],
)
def test_a_page_says_what_is_well(path: str, query: str, well: dict[str, bool], wanted: Any) -> None:
    assert health.page(path, query, well) == wanted


def get(server: ApiServer, path: str) -> tuple[int, str]:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_server_that_is_well_says_so(server: ApiServer) -> None:
    assert get(server, "/readyz?verbose") == (200, "[+]ping ok\n[+]etcd ok\n[+]shutdown ok\nreadyz check passed\n")
    assert get(server, "/livez/ping") == (200, "ok")
    assert get(server, "/healthz") == (200, "ok")
    assert get(server, "/livez/nosuch")[0] == 404
