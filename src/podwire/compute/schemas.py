"""Schemas of the cloud's Compute kinds, in the form in which Kubernetes' own come (JSON Schema with its extensions).

Here: the shape of each kind as a table. Not here: what a value means (``podwire.objects.compute``), rules between fields (``kinds.py``).
Descriptions are what ``kubectl explain`` shows.

Source: https://cloud.google.com/compute/docs/reference/rest/v1
"""

from __future__ import annotations

from typing import Any

GROUP, VERSION = "compute.podwire.dev", "v1"
PREFIX = "dev.podwire.compute.v1."
_META = "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1."

Schema = dict[str, Any]


def _text(description: str) -> Schema:
    return {"type": ["string", "null"], "description": description}


def _list(items: Schema, description: str) -> Schema:
    return {"type": ["array", "null"], "items": items, "x-kubernetes-list-type": "atomic", "description": description}


def _object(summary: str, /, **properties: Schema) -> Schema:
    return {"type": ["object", "null"], "description": summary, "properties": properties}


_PORT: Schema = {"type": "integer", "format": "int32"}
_NAME: Schema = {"type": "string"}

_SPECS: dict[str, tuple[str, Schema]] = {
    "Address": (
        "An Address is an IP address that is kept for this cluster, as a static external address is.",
        _object(
            "AddressSpec says which address.",
            address=_text("The address. Left out, one is given from the range of the type."),
            addressType=_text("EXTERNAL (the default): from the external range."),
            description=_text("A note for people."),
        ),
    ),
    "ForwardingRule": (
        "A ForwardingRule sends what arrives at an address and port to a target pool: a passthrough network load balancer.",
        _object(
            "ForwardingRuleSpec says what is forwarded and where to.",
            ipAddress=_text("The address at which packets arrive, one that an Address holds."),
            ipProtocol=_text("TCP (the default) or UDP."),
            ports=_list(_PORT, "The ports. None means all ports."),
            target=_text("The name of a TargetPool."),
            loadBalancingScheme=_text("EXTERNAL (the default)."),
            description=_text("A note for people."),
        ),
    ),
    "TargetPool": (
        "A TargetPool is a set of instances that share the connections of a forwarding rule.",
        _object(
            "TargetPoolSpec names the instances.",
            instances=_list(_NAME, "The names of Instances."),
            sessionAffinity=_text("NONE (the default: by addresses, ports and protocol), CLIENT_IP or CLIENT_IP_PROTO."),
            description=_text("A note for people."),
        ),
    ),
    "Instance": (
        "An Instance is a virtual machine of the VPC network; each node is one.",
        _object(
            "InstanceSpec says where the machine is and which addresses it has.",
            zone=_text("The zone, as europe-west1-b."),
            networkInterfaces=_list(
                {"$ref": "#/$defs/" + PREFIX + "NetworkInterface"}, "The machine's interfaces, the first one being eth0."
            ),
        ),
    ),
}


def _definitions() -> dict[str, Schema]:
    found: dict[str, Schema] = {
        PREFIX + "NetworkInterface": _object(
            "NetworkInterface is an interface of an instance.",
            networkIP=_text("The interface's address in the VPC network: a node's IP."),
            ipv6Address=_text("The interface's address of the second family."),
            aliasIPRanges=_list(_NAME, "Ranges that are routed to the instance: a node's Pods."),
        )
    }
    for kind, (description, spec) in _SPECS.items():
        marks = [{"group": GROUP, "version": VERSION, "kind": kind}]
        whole = {"$ref": "#/$defs/" + PREFIX + kind + "Spec"}
        about = {"$ref": _META + "ObjectMeta", "description": "Standard object's metadata."}
        found[PREFIX + kind + "Spec"] = spec
        found[PREFIX + kind] = {
            **_object(description, apiVersion=_text("compute.podwire.dev/v1"), kind=_text(kind), metadata=about, spec=whole),
            "x-kubernetes-group-version-kind": marks,
        }
        items: Schema = {"type": "array", "items": {"$ref": "#/$defs/" + PREFIX + kind}, "description": "The objects."}
        found[PREFIX + kind + "List"] = {
            **_object(
                f"{kind}List is a list of {kind} objects.",
                apiVersion=_text("compute.podwire.dev/v1"),
                kind=_text(kind + "List"),
                metadata={"$ref": _META + "ListMeta", "description": "Standard list metadata."},
                items=items,
            ),
            "required": ["items"],
            "x-kubernetes-group-version-kind": [{**marks[0], "kind": kind + "List"}],
        }
    return found


DEFINITIONS = _definitions()
