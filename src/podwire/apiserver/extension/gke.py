"""The kinds that every cluster of Google Kubernetes Engine comes with: what its load balancers are told beside Ingress and Service.

They are definitions like those of users, made when they are missing. Here: their schemas. Not here: what becomes of them.

Source: https://cloud.google.com/kubernetes-engine/docs/how-to/ingress-configuration (BackendConfig, FrontendConfig),
.../how-to/managed-certs, https://cloud.google.com/kubernetes-engine/docs/how-to/standalone-neg and the types of
https://github.com/kubernetes/ingress-gce/tree/master/pkg/apis
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_TRUTH: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "integer", "format": "int64"}
_OPEN: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _object(*needed: str, **fields: Schema) -> Schema:
    return {"type": "object", "properties": fields} | ({"required": list(needed)} if needed else {})


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


_HEADERS = _object(headers=_TEXTS)

BACKEND_CONFIG = _object(
    cdn=_object(
        "enabled",
        bypassCacheOnRequestHeaders=_list(_object(headerName=_TEXT)),
        cacheMode=_TEXT,
        cachePolicy=_object(
            includeHost=_TRUTH, includeProtocol=_TRUTH, includeQueryString=_TRUTH, queryStringBlacklist=_TEXTS, queryStringWhitelist=_TEXTS
        ),
        clientTtl=_NUMBER,
        defaultTtl=_NUMBER,
        enabled=_TRUTH,
        maxTtl=_NUMBER,
        negativeCaching=_TRUTH,
        negativeCachingPolicy=_list(_object(code=_NUMBER, ttl=_NUMBER)),
        requestCoalescing=_TRUTH,
        serveWhileStale=_NUMBER,
        signedUrlCacheMaxAgeSec=_NUMBER,
        signedUrlKeys=_list(_object(keyName=_TEXT, keyValue=_TEXT, secretName=_TEXT)),
    )
    | {"nullable": True},
    connectionDraining=_object(drainingTimeoutSec=_NUMBER),
    customRequestHeaders=_HEADERS,
    customResponseHeaders=_HEADERS,
    healthCheck=_object(
        checkIntervalSec=_NUMBER,
        healthyThreshold=_NUMBER,
        port=_NUMBER,
        requestPath=_TEXT,
        timeoutSec=_NUMBER,
        type=_TEXT,
        unhealthyThreshold=_NUMBER,
    ),
    iap=_object("enabled", enabled=_TRUTH, oauthclientCredentials=_object(clientID=_TEXT, clientSecret=_TEXT, secretName=_TEXT)),
    logging=_object(enable=_TRUTH, sampleRate={"type": "number", "format": "double"}),
    securityPolicy=_object("name", name=_TEXT),
    sessionAffinity=_object(affinityCookieTtlSec=_NUMBER, affinityType=_TEXT),
    timeoutSec=_NUMBER,
)
FRONTEND_CONFIG = _object(
    redirectToHttps=_object("enabled", enabled=_TRUTH, responseCodeName=_TEXT),
    sslPolicy=_TEXT,
)
MANAGED_CERTIFICATE = _object(domains={"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 63}})
MANAGED_CERTIFICATE_STATUS = _object(
    certificateName=_TEXT,
    certificateStatus=_TEXT,
    domainStatus=_list(_object("domain", "status", domain=_TEXT, status=_TEXT)),
    expireTime={"type": "string", "format": "date-time"},
)
_CONDITION = _object(
    "lastTransitionTime",
    "message",
    "reason",
    "status",
    "type",
    lastTransitionTime={"type": "string", "format": "date-time"},
    message=_TEXT,
    observedGeneration=_NUMBER,
    reason=_TEXT,
    status={"type": "string", "enum": ["True", "False", "Unknown"]},
    type=_TEXT,
)
ENDPOINT_GROUP_STATUS = _object(
    conditions={**_list(_CONDITION), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    lastSyncTime={"type": "string", "format": "date-time"},
    networkEndpointGroups=_list(
        _object(id=_TEXT, networkEndpointType=_TEXT, selfLink=_TEXT, state=_TEXT, subnetURL=_TEXT),
    ),
)


def _definition(group: str, version: str, plural: str, kind: str, short: list[str], spec: Schema, status: Schema, **more: Any) -> Schema:
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _object(spec=spec, status=status)},
        **more,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List", "shortNames": short},
            "versions": [served],
        },
    }


_AGE: Schema = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}

DEFINITIONS = (
    _definition("cloud.google.com", "v1", "backendconfigs", "BackendConfig", ["bc"], BACKEND_CONFIG, _OPEN),
    _definition("networking.gke.io", "v1beta1", "frontendconfigs", "FrontendConfig", ["fc"], FRONTEND_CONFIG, _OPEN),
    _definition(
        "networking.gke.io",
        "v1",
        "managedcertificates",
        "ManagedCertificate",
        ["mcrt"],
        MANAGED_CERTIFICATE,
        MANAGED_CERTIFICATE_STATUS,
        additionalPrinterColumns=[
            _AGE,
            {
                "name": "Status",
                "type": "string",
                "jsonPath": ".status.certificateStatus",
                "description": "Status of the managed certificate",
            },
        ],
    ),
    _definition(
        "networking.gke.io",
        "v1beta1",
        "servicenetworkendpointgroups",
        "ServiceNetworkEndpointGroup",
        ["svcneg"],
        _OPEN,
        ENDPOINT_GROUP_STATUS,
        additionalPrinterColumns=[_AGE],
    ),
)
