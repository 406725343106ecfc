"""The schema of extensions/v1beta1 Ingress, in the form in which Kubernetes' own come. Kubernetes 1.22 dropped this version.

Source: https://cloud.google.com/kubernetes-engine/docs/concepts/network-overview (an Ingress of this version) and
https://kubernetes.io/docs/reference/using-api/deprecation-guide/#ingress-v122
"""

from __future__ import annotations

from typing import Any

GROUP, VERSION = "extensions", "v1beta1"
PREFIX = "io.k8s.api.extensions.v1beta1."
_API = f"{GROUP}/{VERSION}"
_REFERENCE = "#/$defs/"
_META = _REFERENCE + "io.k8s.apimachinery.pkg.apis.meta.v1."
_CORE = _REFERENCE + "io.k8s.api.core.v1."
_NETWORKING = _REFERENCE + "io.k8s.api.networking.v1."

Schema = dict[str, Any]


def _text(description: str) -> Schema:
    return {"type": ["string", "null"], "description": description}


def _part(target: str, description: str) -> Schema:
    return {"$ref": target if target.startswith("#") else _REFERENCE + PREFIX + target, "description": description}


def _list(items: Schema, description: str) -> Schema:
    return {"type": ["array", "null"], "items": items, "x-kubernetes-list-type": "atomic", "description": description}


def _object(description: str, required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    made: Schema = {"type": ["object", "null"], "description": description, "properties": properties}
    return made | ({"required": list(required)} if required else {})


def _kind(name: str, description: str, required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    about = {"apiVersion": _text(f"{_API}."), "kind": _text(f"{name}.")}
    mark = {"group": GROUP, "version": VERSION, "kind": name}
    return _object(description, required, **about, **properties) | {"x-kubernetes-group-version-kind": [mark]}


_BACKENDS = {
    "serviceName": _text("The name of the Service to which requests go."),
    "servicePort": _part(
        _REFERENCE + "io.k8s.apimachinery.pkg.util.intstr.IntOrString", "The port of that Service: its number or its name."
    ),
    "resource": _part(_CORE + "TypedLocalObjectReference", "An object of the namespace to which requests go instead of a Service."),
}
_SHORT: dict[str, Schema] = {
    "Ingress": _kind(
        "Ingress",
        "Ingress maps host names and paths of HTTP requests to Services. Use networking.k8s.io/v1 in new manifests.",
        metadata=_part(_META + "ObjectMeta", "Standard object's metadata."),
        spec=_part("IngressSpec", "What is wanted."),
        status=_part("IngressStatus", "What there is."),
    ),
    "IngressList": _kind(
        "IngressList",
        "IngressList is a list of Ingress objects.",
        ("items",),
        metadata=_part(_META + "ListMeta", "Standard list metadata."),
        items={"type": "array", "items": {"$ref": _REFERENCE + PREFIX + "Ingress"}, "description": "The objects."},
    ),
    "IngressSpec": _object(
        "IngressSpec says which requests go where.",
        backend=_part("IngressBackend", "Where requests go that no rule matches."),
        ingressClassName=_text("The name of the IngressClass that says who makes it work."),
        rules=_list({"$ref": _REFERENCE + PREFIX + "IngressRule"}, "The rules. Without any, all requests go to the backend."),
        tls=_list({"$ref": _REFERENCE + PREFIX + "IngressTLS"}, "The certificates, by host."),
    ),
    "IngressRule": _object(
        "IngressRule says where requests for one host go.",
        host=_text("The host: a full domain name, or one whose first label is a star. Left out, all hosts."),
        http=_part("HTTPIngressRuleValue", "The paths of the host."),
    ),
    "HTTPIngressRuleValue": _object(
        "HTTPIngressRuleValue is a list of paths.",
        ("paths",),
        paths=_list({"$ref": _REFERENCE + PREFIX + "HTTPIngressPath"}, "The paths, with the backend of each."),
    ),
    "HTTPIngressPath": _object(
        "HTTPIngressPath is a path and where its requests go.",
        ("backend",),
        backend=_part("IngressBackend", "Where the requests go."),
        path=_text("The path. Left out, all paths."),
        pathType=_text("Exact, Prefix or ImplementationSpecific (the default)."),
    ),
    "IngressBackend": _object("IngressBackend is a port of a Service, or another object.", (), **_BACKENDS),
    "IngressTLS": _object(
        "IngressTLS is a certificate and the hosts that show it.",
        hosts=_list({"type": "string"}, "The hosts."),
        secretName=_text("The name of the Secret that holds the certificate and its key."),
    ),
    "IngressStatus": _object(
        "IngressStatus tells where requests may arrive.",
        loadBalancer=_part(_NETWORKING + "IngressLoadBalancerStatus", "The load balancer."),
    ),
}

DEFINITIONS: dict[str, Schema] = {PREFIX + name: schema for name, schema in _SHORT.items()}
