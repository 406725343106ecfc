"""Rows of the questions that the API answers and does not store (authentication.k8s.io and authorization.k8s.io, version v1).

Here: their rows. Not here: the answers (``../reviews.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from __future__ import annotations

from podwire.apiserver.kind import Kind


def _row(package: str, name: str, *, namespaced: bool = False) -> Kind:
    definition = f"io.k8s.api.{package}.v1.{name}"
    return Kind(f"{package}.k8s.io", "v1", f"{name.lower()}s", name, namespaced, definition, verbs=("create",), generations=False)


SELF_SUBJECT = _row("authentication", "SelfSubjectReview")
TOKEN = _row("authentication", "TokenReview")
LOCAL_ACCESS = _row("authorization", "LocalSubjectAccessReview", namespaced=True)
SELF_ACCESS = _row("authorization", "SelfSubjectAccessReview")
SELF_RULES = _row("authorization", "SelfSubjectRulesReview")
ACCESS = _row("authorization", "SubjectAccessReview")

KINDS = (SELF_SUBJECT, TOKEN, LOCAL_ACCESS, SELF_ACCESS, SELF_RULES, ACCESS)
