"""Which credentials of a Pod's pull secrets are for an image, and the document that skopeo reads one of them from. Pure.

A key of ``auths`` is a registry's host, with a port or a path or both, and may be written as a URL; parts of the host may be patterns. The
longer key is asked first, and all that fit are tried, as kubelets do it.

Sources: https://kubernetes.io/docs/concepts/containers/images/#config-json;
https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from podwire.images.reference import DEFAULT_DOMAIN, Reference

CONFIG_JSON: Final = "kubernetes.io/dockerconfigjson"
CONFIG: Final = "kubernetes.io/dockercfg"
_KEYS: Final = {CONFIG_JSON: ".dockerconfigjson", CONFIG: ".dockercfg"}
_DEFAULT_ALIASES: Final = ("index.docker.io", "registry-1.docker.io")


def auths(kind: str, data: Mapping[str, str]) -> dict[str, Any]:
    """What a Secret of this type says, by registry; one that is none of them, or is broken, says nothing. ``data`` is base64."""
    try:
        tree = json.loads(base64.b64decode(data[_KEYS[kind]]))
        found = tree["auths"] if kind == CONFIG_JSON else tree
        return {key: value for key, value in found.items() if isinstance(value, dict)}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def documents(said: Iterable[Mapping[str, Any]], image: Reference) -> list[bytes]:
    """For each credential that is for an image, in the order to try them, what skopeo is to be given."""
    found = [(key, value) for one in said for key, value in one.items() if _is_for(_place(key), image)]
    found.sort(key=lambda one: _place(one[0]), reverse=True)
    made = (_entry(value) for _, value in found)
    texts = [json.dumps({"auths": {image.domain: entry}}).encode() for entry in made if entry]
    return list(dict.fromkeys(texts))


def _place(key: str) -> str:
    """A key as ``HOST[:PORT][/PATH]``."""
    rest = key.partition("://")[2] or key
    host, _, path = rest.partition("/")
    for version in ("v1", "v2"):
        path = path.removeprefix(version) if path == version or path.startswith(version + "/") else path
    return f"{host}/{path.strip('/')}".rstrip("/")


def _is_for(place: str, image: Reference) -> bool:
    host, _, path = place.partition("/")
    domains = (image.domain, *(_DEFAULT_ALIASES if image.domain == DEFAULT_DOMAIN else ()))
    return any(_host_fits(host, domain) for domain in domains) and f"{image.path}/".startswith(f"{path}/" if path else "")


def _host_fits(pattern: str, domain: str) -> bool:
    wanted, there = pattern.split("."), domain.split(".")
    if pattern.rpartition(":")[1:] != domain.rpartition(":")[1:] and (":" in pattern or ":" in domain):
        return False
    return len(wanted) == len(there) and all(fnmatch.fnmatchcase(part, one) for one, part in zip(wanted, there, strict=True))


def _entry(value: Mapping[str, Any]) -> dict[str, str]:
    """One registry's entry in skopeo's words; empty: there is no credential in it."""
    if token := value.get("identitytoken"):
        return {"auth": base64.b64encode(f"{value.get('username', '')}:".encode()).decode(), "identitytoken": str(token)}
    if value.get("username") or value.get("password"):
        pair = f"{value.get('username', '')}:{value.get('password', '')}"
        return {"auth": base64.b64encode(pair.encode()).decode()}
    try:
        pair = base64.b64decode(str(value.get("auth", "")), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return {}
    return {"auth": base64.b64encode(pair.encode()).decode()} if ":" in pair else {}
