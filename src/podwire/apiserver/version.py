"""The version of Kubernetes whose API is served: that of the packaged schemas (a test compares them)."""

from __future__ import annotations

KUBERNETES_VERSION = "v1.37.0"
