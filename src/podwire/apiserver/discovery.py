"""Discovery: which groups, versions and kinds there are, as clients ask for it: all at once (aggregated) or step by step.

Here: rows of the registry in the forms of discovery. Not here: schemas (``openapi.py``).

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from __future__ import annotations

import functools
import hashlib
from functools import partial

import orjson

from podwire.apiserver.answers import Answer, Tree, answer
from podwire.apiserver.kind import Kind
from podwire.apiserver.registry import Registry

_AGGREGATED = "APIGroupDiscoveryList"
_LOOKED_AT = 1024  # bytes of an ``Accept`` header


def respond(registry: Registry, path: str, accept: bytes) -> Answer | None:
    """Answer to a path of discovery; None when it is none."""
    parts = path.strip("/").split("/")
    match parts:
        case ["api"] | ["apis"]:
            core = parts[0] == "api"
            version = _aggregated_version(accept[:_LOOKED_AT])
            if version:
                return registry.once(("discovery", core, version), partial(_aggregated, registry, core, version))
            return answer(_core_versions(registry) if core else _group_list(registry))
        case ["api", version]:
            return _resources(registry, "", version)
        case ["apis", group]:
            found = registry.groups().get(group) if group else None
            return None if found is None else answer({"kind": "APIGroup", "apiVersion": "v1", **_group(group, found)})
        case ["apis", group, version]:
            return _resources(registry, group, version)
    return None


@functools.lru_cache(maxsize=64)
def _aggregated_version(accept: bytes) -> str:
    """Give the version of aggregated discovery that a client prefers to all else, ``""`` for the classic form."""
    for alternative in accept.decode("latin-1").split(","):
        media, *parameters = [part.strip() for part in alternative.split(";")]
        words = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if media not in ("application/json", "*/*", ""):
            continue
        if words.get("as") == _AGGREGATED and words.get("g") == "apidiscovery.k8s.io" and words.get("v") in ("v2", "v2beta1"):
            return words["v"]
        if "as" not in words:
            return ""
    return ""


# Aggregated --------------------------------------------------------------------------------------------------------------


def _aggregated(registry: Registry, core: bool, version: str) -> Answer:
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
            "versions": [{"version": one, "resources": _described(registry, group, one), "freshness": "Current"} for one in versions],
        }
        for group, versions in registry.groups().items()
        if core == (group == "")
    ]
    tree = {"kind": _AGGREGATED, "apiVersion": f"apidiscovery.k8s.io/{version}", "metadata": {}, "items": items}
    body = orjson.dumps(tree)
    media = f"application/json;g=apidiscovery.k8s.io;v={version};as={_AGGREGATED}".encode()
    mark = b'"' + hashlib.sha256(body).hexdigest().upper().encode() + b'"'
    return Answer(200, body, ((b"etag", mark), (b"vary", b"Accept")), media)


def _described(registry: Registry, group: str, version: str) -> list[Tree]:
    resources = []
    for kind in registry.kinds(group, version):
        resource: Tree = {
            "resource": kind.plural,
            "responseKind": _gvk(kind.group, kind.version, kind.kind),
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "singularResource": kind.singular,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            resource["shortNames"] = list(kind.short_names)
        if kind.categories:
            resource["categories"] = list(kind.categories)
        if kind.subresources:
            resource["subresources"] = [
                {
                    "subresource": part.name,
                    "responseKind": _gvk(*_part_kind(kind, part.kind, part.group, part.version)),
                    "verbs": list(part.verbs),
                }
                for part in kind.subresources
            ]
        resources.append(resource)
    return resources


def _part_kind(kind: Kind, name: str, group: str, version: str) -> tuple[str, str, str]:
    return (group, version, name) if name else (kind.group, kind.version, kind.kind)


def _gvk(group: str, version: str, kind: str) -> Tree:
    return {"group": group, "version": version, "kind": kind}


# Classic -----------------------------------------------------------------------------------------------------------------


def _core_versions(registry: Registry) -> Tree:
    return {"kind": "APIVersions", "versions": list(registry.groups()[""]), "serverAddressByClientCIDRs": []}


def _group(name: str, versions: tuple[str, ...]) -> Tree:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _group_list(registry: Registry) -> Tree:
    groups = [_group(name, versions) for name, versions in registry.groups().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _resources(registry: Registry, group: str, version: str) -> Answer | None:
    if version not in registry.groups().get(group, ()):
        return None
    resources: list[Tree] = []
    for kind in registry.kinds(group, version):
        resource: Tree = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            resource["shortNames"] = list(kind.short_names)
        if kind.categories:
            resource["categories"] = list(kind.categories)
        resources.append(resource)
        for part in kind.subresources:
            resource = {
                "name": f"{kind.plural}/{part.name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": part.kind or kind.kind,
            }
            if part.kind:
                resource |= {"group": part.group, "version": part.version}
            resources.append(resource | {"verbs": list(part.verbs)})
    group_version = f"{group}/{version}" if group else version
    return answer({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
