"""Apply manifests: make what is missing, change what differs, as ``kubectl apply`` does on the client's side.

What an object should be and was when it was last applied (the annotation that kubectl keeps too) give a merge patch: fields that
this manifest had and has no more are removed, fields of others stay.

What must not be here: which objects (the command line's files, or addons.py).
Sources: https://kubernetes.io/docs/tasks/manage-kubernetes-objects/declarative-config/, RFC 7386.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from podwire.client.api import ApiError, Client

Tree = dict[str, Any]
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
DEFAULT_NAMESPACE = "default"


class NoKind(Exception):
    """A manifest of a kind that the API does not serve."""


@dataclass(frozen=True)
class Kind:
    """What discovery says of a kind: its path, and whether its objects live in namespaces."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """The kind as kubectl prints it in front of a name: ``deployment.apps``."""
        return f"{self.kind.lower()}.{self.group}" if self.group else self.kind.lower()

    def path(self, namespace: str, name: str = "") -> str:
        """Build the URL path of the collection (``""``: in all namespaces), or of the object when it is named."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{base}{scope}/{self.plural}" + (f"/{name}" if name else "")


@dataclass(frozen=True)
class Applied:
    """What became of one manifest: ``action`` is created, configured or unchanged."""

    kind: Kind
    namespace: str
    name: str
    action: str
    warnings: tuple[str, ...] = ()


def merge_patch(before: Any, wanted: Any, live: Any) -> Tree:
    """Give the merge patch that turns ``live`` into ``wanted``, removing what ``before`` had and ``wanted`` has no more.

    Lists are replaced whole. Equal values are left out, so an empty patch means that nothing has to change.
    """
    patch: Tree = {}
    for key, value in wanted.items():
        have = live.get(key)
        if isinstance(value, Mapping) and isinstance(have, Mapping):
            inner = before.get(key)
            deeper = merge_patch(inner if isinstance(inner, Mapping) else {}, value, have)
            if deeper:
                patch[key] = deeper
        elif not _holds(have, value):
            patch[key] = value
    patch.update({key: None for key in before if key not in wanted and key in live})
    return patch


def _holds(live: Any, wanted: Any) -> bool:
    """Say whether the live value is the wanted one, but for defaults that the server added inside lists."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(key in live and _holds(live[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(live, list) and len(live) == len(wanted) and all(map(_holds, live, wanted))
    return bool(live == wanted) or (wanted is None and live is None)


def annotated(tree: Tree) -> Tree:
    """Give the manifest with the annotation that remembers it."""
    plain = copy.deepcopy(tree)
    annotations = plain.setdefault("metadata", {}).get("annotations") or {}
    annotations.pop(LAST_APPLIED, None)
    if annotations:
        plain["metadata"]["annotations"] = annotations
    text = json.dumps(plain, separators=(",", ":"), sort_keys=True) + "\n"
    plain["metadata"]["annotations"] = {**annotations, LAST_APPLIED: text}
    return plain


class Applier:
    """Applies manifests through one client; asks the API once which kinds it serves."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kinds: dict[tuple[str, str], Kind] = {}

    async def apply(self, trees: Iterable[Tree], namespace: str = DEFAULT_NAMESPACE) -> AsyncIterator[Applied]:
        """Apply in the order given. Raises NoKind, ApiError; what came before stays applied."""
        for tree in trees:
            yield await self._one(tree, namespace)

    async def kinds(self) -> list[Kind]:
        """Give all kinds that the API serves."""
        if not self._kinds:
            self._kinds = await self._discover()
        return list(self._kinds.values())

    async def kind(self, tree: Tree) -> Kind:
        """Find a manifest's kind. Raises NoKind."""
        key = (str(tree.get("apiVersion", "")), str(tree.get("kind", "")))
        await self.kinds()
        if key not in self._kinds:
            raise NoKind(f'no matches for kind "{key[1]}" in version "{key[0]}"')
        return self._kinds[key]

    async def _discover(self) -> dict[tuple[str, str], Kind]:
        groups = await self._ask("GET", "/apis")
        versions = [("", "v1", "/api/v1")]
        for group in groups.get("groups", ()):
            versions += [(group["name"], v["version"], f"/apis/{v['groupVersion']}") for v in group["versions"]]
        answers = await asyncio.gather(*(self._ask("GET", path) for _, _, path in versions))
        kinds: dict[tuple[str, str], Kind] = {}
        for (group_name, version, _), answer in zip(versions, answers, strict=True):
            for row in answer.get("resources", ()):
                if "/" not in row["name"]:
                    api_version = f"{group_name}/{version}" if group_name else version
                    verbs = frozenset(row["verbs"])
                    kinds[api_version, row["kind"]] = Kind(group_name, version, row["name"], row["kind"], row["namespaced"], verbs)
        return kinds

    async def _one(self, tree: Tree, namespace: str) -> Applied:
        kind = await self.kind(tree)
        metadata = tree.get("metadata") or {}
        name, place = str(metadata.get("name", "")), str(metadata.get("namespace") or namespace)
        wanted = annotated(tree)
        path = kind.path(place, name)
        try:
            live = await self._ask("GET", path)
        except ApiError as error:
            if error.status != 404:
                raise
            if kind.namespaced:
                wanted["metadata"]["namespace"] = place
            await self._ask("POST", kind.path(place), wanted, "application/json")
            return Applied(kind, place, name, "created")
        before = json.loads((live["metadata"].get("annotations") or {}).get(LAST_APPLIED) or "{}")
        patch = merge_patch(before, wanted, live)
        if not patch:
            return Applied(kind, place, name, "unchanged")
        await self._ask("PATCH", path, patch, "application/merge-patch+json")
        return Applied(kind, place, name, "configured")

    async def _ask(self, method: str, path: str, body: Tree | None = None, content_type: str = "application/json") -> Any:
        query = {"fieldValidation": "Strict"} if body is not None else None
        return json.loads(await self._client.request(method, path, body, content_type=content_type, query=query))
