"""What admission is asked: may this be done, and as it is?

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from podwire.apiserver.authentication import User
from podwire.apiserver.kind import Kind

Tree = dict[str, Any]

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"
_OPTIONS = {CREATE: "CreateOptions", UPDATE: "UpdateOptions", DELETE: "DeleteOptions"}


@dataclass(slots=True)
class Attributes:
    """One request. ``tree`` is the object as it is to be (None: deleted), ``old`` as it was (None: created).

    ``warnings`` go to the client, ``annotations`` into the audit log. ``spoken`` is the kind that the client speaks of, where ``kind`` is
    another of the same objects.
    """

    operation: str
    kind: Kind
    namespace: str
    name: str
    tree: Tree | None
    old: Tree | None
    user: User
    subresource: str = ""
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    spoken: Kind | None = None

    @property
    def own(self) -> Kind:
        """The kind that the client speaks of."""
        return self.spoken or self.kind

    @property
    def options(self) -> Tree:
        """The options of the request, as a review shows them."""
        shown: Tree = {"apiVersion": "meta.k8s.io/v1", "kind": _OPTIONS[self.operation]}
        return shown | {"dryRun": ["All"]} if self.dry_run else shown

    def review(self, uid: str) -> Tree:
        """Give the request as an AdmissionReview has it, and expressions see it."""
        kind, resource = _named(self.kind)
        own, own_resource = _named(self.own)
        user: Tree = {"username": self.user.name, "groups": list(self.user.groups)}
        if self.user.uid:
            user["uid"] = self.user.uid
        if self.user.extra:
            user["extra"] = {key: list(values) for key, values in self.user.extra}
        shown: Tree = {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            "requestKind": own,
            "requestResource": own_resource,
            "name": self.name,
            "operation": self.operation,
            "userInfo": user,
            "object": self.tree,
            "oldObject": self.old,
            "dryRun": self.dry_run,
            "options": self.options,
        }
        if self.namespace:
            shown["namespace"] = self.namespace
        if self.subresource:
            shown |= {"subResource": self.subresource, "requestSubResource": self.subresource}
        return shown


def _named(kind: Kind) -> tuple[Tree, Tree]:
    """Name a kind and its resource as reviews do."""
    place = {"group": kind.group, "version": kind.version}
    return {**place, "kind": kind.kind}, {**place, "resource": kind.plural}
