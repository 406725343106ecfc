"""Rows of the group discovery.k8s.io, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
"""

from __future__ import annotations

from podwire.apiserver.kind import Kind

ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, "io.k8s.api.discovery.v1.EndpointSlice")

KINDS = (ENDPOINT_SLICE,)
