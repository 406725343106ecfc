"""Where objects lie in the store: ``pods/default/web``, ``deployments.apps/default/web``, ``nodes/node-1``."""

from __future__ import annotations

from podwire.apiserver.kind import Kind


def prefix(kind: Kind, namespace: str = "") -> str:
    """Give the beginning of the keys of all objects of a kind, or of those in one namespace."""
    table = kind.stored.resource
    return f"{table}/{namespace}/" if kind.namespaced and namespace else f"{table}/"


def key(kind: Kind, namespace: str, name: str) -> str:
    table = kind.stored.resource
    return f"{table}/{namespace}/{name}" if kind.namespaced else f"{table}/{name}"


def names(stored: str) -> tuple[str, str]:
    """Read namespace (``""``: none) and name from a key."""
    _, _, rest = stored.partition("/")
    namespace, slash, name = rest.partition("/")
    return (namespace, name) if slash else ("", namespace)
