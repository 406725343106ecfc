"""Names of images as people write them, and in full. Pure.

``web`` is ``docker.io/library/web:latest``: the same rules as Docker's and containerd's, so that the name in a manifest and the name of
an archive meet.

Source: https://github.com/distribution/reference
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from podwire.images.errors import ImageRefused

DEFAULT_DOMAIN, OFFICIAL, DEFAULT_TAG = "docker.io", "library", "latest"
LONGEST_REPOSITORY = 255
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_DOMAIN = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
)
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """``repository`` with its domain; ``tag`` or ``digest`` may be empty, not both."""

    domain: str
    path: str
    tag: str
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The full name. One without tag and digest has the tag ``latest``. Raises ImageRefused."""
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise ImageRefused(f"invalid image name {text!r}: a digest is sha256: and 64 hexadecimal digits, in small letters")
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        domain, rest = first, path
    else:
        domain = DEFAULT_DOMAIN
    path, colon, tag = rest.partition(":")
    if domain in {DEFAULT_DOMAIN, "index.docker.io"}:
        domain = DEFAULT_DOMAIN
        path = path if "/" in path else f"{OFFICIAL}/{path}"
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path) or len(domain) + len(path) >= LONGEST_REPOSITORY:
        hint = ": repository names are in small letters" if path != path.lower() else ""
        raise ImageRefused(f"invalid image name {text!r}{hint}: expected [HOST/]NAME[:TAG][@DIGEST]")
    if colon and not _TAG.fullmatch(tag):
        raise ImageRefused(
            f"invalid image name {text!r}: a tag is at most 128 letters, digits, '_', '.' and '-', and begins with no '.' or '-'"
        )
    return Reference(domain, path, tag or ("" if digest else DEFAULT_TAG), digest)


def is_digest(text: str) -> bool:
    """Whether a text is a digest that can be checked here."""
    return _DIGEST.fullmatch(text) is not None


def on_loopback(domain: str) -> bool:
    """Whether a registry's ``HOST[:PORT]`` is the machine itself."""
    host = domain if domain.endswith("]") else domain.rpartition(":")[0] or domain
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
