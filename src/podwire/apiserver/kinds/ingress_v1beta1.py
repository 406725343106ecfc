"""The row of extensions/v1beta1 Ingress, the version in which Google's page about the network of a cluster writes it.

Stored as networking.k8s.io/v1: there a backend is an object with a Service and its port, and every path says how it is matched. A path of
this version that does not say so is matched as its controller likes, and goes on not saying so: what was written comes back as it was.

Source: https://cloud.google.com/kubernetes-engine/docs/concepts/network-overview and
https://kubernetes.io/docs/reference/using-api/deprecation-guide/#ingress-v122
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from podwire.apiserver.kind import Conversion, Kind, Tree
from podwire.apiserver.kinds.ingress_v1beta1_schema import GROUP, PREFIX, VERSION
from podwire.apiserver.kinds.networking import INGRESS
from podwire.apiserver.validation import FieldError

_UNSAID = "ImplementationSpecific"


def _backend_there(backend: Tree) -> Tree:
    made = {"resource": backend["resource"]} if "resource" in backend else {}
    if backend.get("serviceName") or backend.get("servicePort"):
        service: Tree = {"name": backend.get("serviceName", "")}
        port = backend.get("servicePort", 0)
        if port:
            service["port"] = {"name": port} if isinstance(port, str) else {"number": port}
        made["service"] = service
    return made


def _backend_back(backend: Tree) -> Tree:
    made = {"resource": backend["resource"]} if "resource" in backend else {}
    if "service" in backend:
        port = backend["service"].get("port", {})
        made["serviceName"] = backend["service"].get("name", "")
        if port:
            made["servicePort"] = port.get("name") or port.get("number", 0)
    return made


def _with_backends(tree: Tree, convert: Callable[[Tree], Tree], convert_path: Callable[[Tree], Tree], names: tuple[str, str]) -> Tree:
    """Give the Ingress with its backends converted. ``names``: what the default one is called, before and after."""
    if "spec" not in tree:
        return tree
    spec = dict(tree["spec"])
    if names[0] in spec:
        spec[names[1]] = convert(spec.pop(names[0]))
    if "rules" in spec:
        spec["rules"] = [_rule(rule, convert_path) for rule in spec["rules"]]
    return {**tree, "spec": spec}


def _rule(rule: Tree, convert: Callable[[Tree], Tree]) -> Tree:
    if "paths" not in rule.get("http", {}):
        return rule
    return {**rule, "http": {**rule["http"], "paths": [convert(path) for path in rule["http"]["paths"]]}}


def _path_there(path: Tree) -> Tree:
    return {**path, "backend": _backend_there(path.get("backend", {})), "pathType": path.get("pathType") or _UNSAID}


def _path_back(path: Tree) -> Tree:
    kept = {key: value for key, value in path.items() if (key, value) != ("pathType", _UNSAID)}
    return {**kept, "backend": _backend_back(path.get("backend", {}))}


def _there(tree: Tree) -> Tree:
    return _with_backends(tree, _backend_there, _path_there, ("backend", "defaultBackend"))


def _back(tree: Tree) -> Tree:
    return _with_backends(tree, _backend_back, _path_back, ("defaultBackend", "backend"))


def _no_errors(_tree: Tree, _old: Tree | None) -> list[FieldError]:
    """What is wrong is found in the stored version."""
    return []


INGRESS_V1BETA1: Kind = replace(
    INGRESS,
    group=GROUP,
    version=VERSION,
    definition=PREFIX + "Ingress",
    validate=_no_errors,
    conversion=Conversion(
        INGRESS,
        _there,
        _back,
        words=(
            (".service.port.number", ".servicePort"),
            (".service.port.name", ".servicePort"),
            (".service.name", ".serviceName"),
            ("spec.defaultBackend", "spec.backend"),
            ("`defaultBackend`", "`backend`"),
        ),
    ),
    deprecation=("extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress"),
)

KINDS = (INGRESS_V1BETA1,)
