"""Lists: pages, selectors, forms, the past."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from running_apiserver import CONTROLLER, ApiServer

TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
METADATA = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}


@pytest.fixture
def ten(call: Any, namespace: str) -> str:
    """The path of ten ConfigMaps."""
    where = f"/api/v1/namespaces/{namespace}/configmaps"
    for i in range(10):
        labels = {"i": str(i), "half": "low" if i < 5 else "high", **({"odd": ""} if i % 2 else {})}
        call("POST", where, {"metadata": {"name": f"c{i}", "labels": labels}})
    return where


def names(tree: Any) -> list[str]:
    return [one["metadata"]["name"] for one in tree["items"]]


def test_pages_show_the_revision_of_the_first(call: Any, ten: str) -> None:
    first = call("GET", ten + "?limit=4").tree
    assert names(first) == ["c0", "c1", "c2", "c3"]
    assert first["metadata"]["remainingItemCount"] == 6
    # What is written meanwhile is not seen by the pages that follow.
    call("DELETE", ten + "/c5")
    call("POST", ten, {"metadata": {"name": "c55"}})
    call("PATCH", ten + "/c6", {"data": {"k": "new"}}, content_type="application/merge-patch+json")
    second = call("GET", ten + f"?limit=4&continue={first['metadata']['continue']}").tree
    assert names(second) == ["c4", "c5", "c6", "c7"]
    assert "data" not in second["items"][2]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    third = call("GET", ten + f"?limit=4&continue={second['metadata']['continue']}").tree
    assert names(third) == ["c8", "c9"]
    assert "continue" not in third["metadata"]
    exact = call("GET", ten + f"?resourceVersion={first['metadata']['resourceVersion']}&resourceVersionMatch=Exact").tree
    assert names(exact) == [f"c{i}" for i in range(10)]
    assert names(call("GET", ten).tree) == ["c0", "c1", "c2", "c3", "c4", "c55", "c6", "c7", "c8", "c9"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("i=3", "3"),
        ("i==3", "3"),
        ("half!=low", "56789"),
        ("half=low,odd", "13"),
        ("half=low,!odd", "024"),
        ("i in (1, 2,9)", "129"),
        ("i notin (1,2),half=low", "034"),
        ("i>6", "789"),
        ("i<2,half", "01"),
        ("nothing", ""),
        ("nothing!=x,i=4", "4"),
    ],
)
def test_label_selectors(call: Any, ten: str, selector: str, expected: str) -> None:
    got = call("GET", f"{ten}?labelSelector={quote(selector)}").tree
    assert names(got) == [f"c{i}" for i in expected]


@pytest.mark.parametrize(
    "selector", ["=", "a=b=c", "a in", "a in (b", "!", "a b", "a,,b", "a=b,", "UPPER/x y=1", "-a=1", "a=" + "x" * 64, "a>x"]
)
def test_label_selectors_that_are_none(call: Any, ten: str, selector: str) -> None:
    got = call("GET", f"{ten}?labelSelector={quote(selector)}")
    assert (got.status, got.tree["reason"]) == (400, "BadRequest")


def test_field_selectors(call: Any, ten: str) -> None:
    assert names(call("GET", f"{ten}?fieldSelector=metadata.name%3Dc3").tree) == ["c3"]
    assert names(call("GET", "/api/v1/configmaps?fieldSelector=metadata.name%3Dc3").tree) == ["c3"] * len(
        call("GET", "/api/v1/configmaps?fieldSelector=metadata.name%3D%3Dc3").tree["items"]
    )
    assert len(names(call("GET", f"{ten}?fieldSelector=metadata.name!%3Dc3").tree)) == 9
    refused = call("GET", f"{ten}?fieldSelector=spec.color%3Dred")
    assert (refused.status, refused.tree["message"]) == (400, "field label not supported: spec.color")


def test_fields_of_pods(call: Any, namespace: str) -> None:
    where = f"/api/v1/namespaces/{namespace}/pods"
    for name in ("a", "b"):
        call("POST", where, {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    call("POST", where + "/b/binding", {"target": {"kind": "Node", "name": "node-7"}})
    assert names(call("GET", where + "?fieldSelector=spec.nodeName%3Dnode-7").tree) == ["b"]
    assert names(call("GET", where + "?fieldSelector=spec.nodeName%3D").tree) == ["a"]
    assert names(call("GET", where + "?fieldSelector=status.phase%3DPending,spec.nodeName!%3Dnode-7").tree) == ["a"]


def test_tables(call: Any, ten: str) -> None:
    table = call("GET", ten, headers=TABLE).tree
    assert table["kind"] == "Table"
    assert table["columnDefinitions"][0]["name"] == "Name"
    assert [row["cells"][0] for row in table["rows"]] == [f"c{i}" for i in range(10)]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = call("GET", ten + "/c1?includeObject=Object", headers=TABLE).tree
    assert whole["rows"][0]["object"]["kind"] == "ConfigMap"
    assert "object" not in call("GET", ten + "?includeObject=None", headers=TABLE).tree["rows"][0]
    assert call("GET", ten + "?includeObject=Some", headers=TABLE).status == 400


def test_metadata_alone(call: Any, ten: str) -> None:
    got = call("GET", ten, headers=METADATA).tree
    assert (got["kind"], len(got["items"]), set(got["items"][0])) == ("PartialObjectMetadataList", 10, {"kind", "apiVersion", "metadata"})
    one = call("GET", ten + "/c1", headers={"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}).tree
    assert one["kind"] == "PartialObjectMetadata"


def test_forms_that_are_not_served(call: Any, ten: str) -> None:
    for accept in ("application/vnd.kubernetes.protobuf", "text/html", "application/json;as=Poem"):
        assert call("GET", ten, headers={"accept": accept}).status == 406
    # A write whose answer could not be shown is not done.
    assert call("DELETE", ten + "/c1", headers={"accept": "text/html"}).status == 406
    assert call("GET", ten + "/c1", headers={"accept": "application/vnd.kubernetes.protobuf,application/json"}).status == 200


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("limit=x", 400),
        ("limit=-1", 400),
        ("continue=nonsense", 400),
        ("resourceVersion=x", 400),
        ("resourceVersion=99999999", 504),
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersion=5&resourceVersionMatch=Rough", 422),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422),
        ("resourceVersion=5&resourceVersionMatch=Exact&continue=abc", 422),
        ("sendInitialEvents=true", 422),
        ("sendInitialEvents=false&watch=0", 422),
        ("resourceVersion=1&resourceVersionMatch=NotOlderThan", 200),
        ("resourceVersion=0", 200),
        ("watch=perhaps", 400),
    ],
)
def test_words_of_the_query(call: Any, ten: str, words: str, status: int) -> None:
    got = call("GET", f"{ten}?{words}")
    assert got.status == status, got
    if status != 200:
        assert got.tree["kind"] == "Status"


def test_long_lists_come_in_pieces(call: Any, namespace: str) -> None:
    where = f"/api/v1/namespaces/{namespace}/configmaps"
    for i in range(8):
        assert call("POST", where, {"metadata": {"name": f"big{i}"}, "data": {"k": "x" * 200_000}}).status == 201
    got = call("GET", where)
    assert got.headers["transfer-encoding"] == "chunked"
    assert [len(one["data"]["k"]) for one in got.tree["items"]] == [200_000] * 8
    for i in range(120):
        call("POST", where, {"metadata": {"name": f"small{i}"}})
    assert len(call("GET", where, headers=TABLE).tree["rows"]) == 128
    assert len(call("GET", where, headers=METADATA).tree["items"]) == 128


def test_a_page_that_comes_too_late_says_how_to_go_on(server: ApiServer, call: Any, ten: str) -> None:
    """What a list began with is forgotten when the server starts anew: the rest can be had as it is now."""
    first = call("GET", ten + "?limit=4").tree
    call("DELETE", ten + "/c5")
    server.stop()
    server.run()
    late = call("GET", f"{ten}?limit=4&continue={first['metadata']['continue']}", identity=CONTROLLER)
    assert (late.status, late.tree["reason"], late.tree["code"]) == (410, "Expired", 410)
    assert late.tree["message"].startswith("The provided continue parameter is too old to display a consistent list result.")
    rest = call("GET", f"{ten}?limit=9&continue={late.tree['metadata']['continue']}", identity=CONTROLLER)
    assert names(rest.tree) == ["c4", "c6", "c7", "c8", "c9"]
    gone = call("GET", f"{ten}?resourceVersion={first['metadata']['resourceVersion']}&resourceVersionMatch=Exact", identity=CONTROLLER)
    assert (gone.status, gone.tree["reason"]) == (410, "Expired")
