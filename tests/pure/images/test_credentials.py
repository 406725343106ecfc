"""Which credentials of pull secrets are for an image."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from podwire.images.credentials import CONFIG, CONFIG_JSON, auths, documents
from podwire.images.reference import parse


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(tree: Any) -> dict[str, Any]:
    return auths(CONFIG_JSON, {".dockerconfigjson": encoded(json.dumps({"auths": tree}))})


def chosen(image: str, *trees: Any) -> list[str]:
    """The credentials for an image, as ``USER:PASSWORD``, in the order to try them."""
    reference = parse(image)
    found = [json.loads(one)["auths"] for one in documents([secret(tree) for tree in trees], reference)]
    assert all(list(one) == [reference.domain] for one in found)
    return [base64.b64decode(one[reference.domain]["auth"]).decode() for one in found]


def user(name: str) -> dict[str, str]:
    return {"username": name, "password": "word"}


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("localhost:5000", "localhost:5000/shop/web:1", True),
        ("localhost:5001", "localhost:5000/shop/web:1", False),
        ("localhost", "localhost:5000/shop/web:1", False),
        ("https://example.com/v1/", "example.com/web", True),
        ("http://example.com/v2/shop", "example.com/shop/web", True),
        ("example.com/shop", "example.com/shop/web", True),
        ("example.com/shop", "example.com/shopping/web", False),
        ("*.example.com", "a.example.com/web", True),
        ("*.example.com", "a.b.example.com/web", False),
        ("*.example.com", "example.com/web", False),
        ("https://index.docker.io/v1/", "web", True),
        ("docker.io", "shop/web", True),
        ("index.docker.io", "example.com/web", False),
        ("example.com/v1shop", "example.com/v1shop/web", True),
    ],
)
def test_a_key_is_for_the_images_below_it(key: str, image: str, fits: bool) -> None:
    assert chosen(image, {key: user("me")}) == (["me:word"] if fits else [])


def test_the_longest_key_is_tried_first_and_all_that_fit_are() -> None:
    first = {"example.com": user("all"), "example.com/shop": user("shop"), "other.com": user("other")}
    assert chosen("example.com/shop/web", first, {"example.com/shop": user("too")}) == ["shop:word", "too:word", "all:word"]
    assert chosen("example.com/shop/web", first, first) == ["shop:word", "all:word"]


def test_what_says_nothing_is_left_out() -> None:
    assert chosen("example.com/web", {"example.com": {"auth": encoded("a:b:c")}}) == ["a:b:c"]
    for broken in ({}, {"auth": "?"}, {"auth": encoded("nobody")}, {"auth": "gICA"}):
        assert chosen("example.com/web", {"example.com": broken}) == []
    for data in ({}, {".dockerconfigjson": "?"}, {".dockerconfigjson": encoded("[]")}, {".dockerconfigjson": encoded('{"auths": []}')}):
        assert auths(CONFIG_JSON, data) == {}
    assert auths(CONFIG_JSON, {".dockerconfigjson": encoded('{"auths": {"a": 1, "b": {}}}')}) == {"b": {}}
    assert auths("Opaque", {".dockerconfigjson": encoded('{"auths": {"a": {}}}')}) == {}
    assert auths(CONFIG, {".dockercfg": encoded('{"a": {"auth": "x"}}')}) == {"a": {"auth": "x"}}


def test_a_token_stays_one() -> None:
    [text] = documents([secret({"example.com": {"identitytoken": "t", "username": "me"}})], parse("example.com/web"))
    assert json.loads(text) == {"auths": {"example.com": {"auth": encoded("me:"), "identitytoken": "t"}}}
