"""Names of images, short and in full."""

from __future__ import annotations

import pytest

from podwire.images.errors import ImageRefused
from podwire.images.reference import parse

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("shop/web", "docker.io/shop/web:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("localhost/web", "localhost/web:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("gcr.io/google-samples/hello-app:2.0", "gcr.io/google-samples/hello-app:2.0"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"registry.k8s.io/e2e:v1@{DIGEST}", f"registry.k8s.io/e2e:v1@{DIGEST}"),
        ("[::1]:5000/web", "[::1]:5000/web:latest"),
    ],
)
def test_names_are_written_in_full(short: str, full: str) -> None:
    assert str(parse(short)) == full
    assert str(parse(full)) == full


@pytest.mark.parametrize("text", ["", "Busybox", "a b", "web:", "web:-x", "web@sha256:00", "a//b", "../web", "web:" + "t" * 129, "a" * 300])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ImageRefused, match="invalid image name"):
        parse(text)
