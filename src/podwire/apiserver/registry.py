"""The table of kinds that the API serves.

Here: which rows there are and how they are found. Not here: what a row holds (``kind.py``) or says (``kinds/``, ``compute/kinds.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from podwire.apiserver.kind import AGE, ALL_VERBS, NAME, SCALE, STATUS, Column, Kind, Subresource, Tree
from podwire.apiserver.kinds import (
    admission,
    apps,
    autoscaling_v1,
    batch,
    certificates,
    coordination,
    core,
    custom,
    discovery,
    events,
    ingress_v1beta1,
    limits,
    metrics,
    networking,
    rbac,
    reviews,
    runtime,
    volumes,
)
from podwire.compute import kinds as compute

__all__ = ["AGE", "ALL_VERBS", "NAME", "REGISTRY", "SCALE", "STATUS", "Column", "Kind", "Registry", "Subresource", "Tree"]


Made = TypeVar("Made")


class Registry:
    """Kinds by path, by name, by group: what discovery, routing and the collector of garbage ask. Keeps the order of its rows.

    ``extend`` says which kinds there are beside those that it began with; ``generation`` counts how often.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.generation = 0
        self._own = tuple(kinds)
        self._set(self._own)

    def extend(self, kinds: Iterable[Kind]) -> None:
        """Serve these kinds too, and none that an earlier call named. Raises ValueError when two are the same."""
        self._set((*self._own, *kinds))
        self.generation += 1

    def _set(self, kinds: tuple[Kind, ...]) -> None:
        self._made: dict[Any, Any] = {}
        self._kinds = kinds
        self._by_plural = {(kind.group, kind.version, kind.plural): kind for kind in self._kinds}
        self._by_kind = {(kind.api_version, kind.kind): kind for kind in self._kinds}
        if len(self._by_plural) != len(self._kinds) or len(self._by_kind) != len(self._kinds):
            raise ValueError("two rows have the same group, version and name")

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """Find the kind at ``/apis/GROUP/VERSION/PLURAL`` (``/api/VERSION/PLURAL`` for group ``""``)."""
        return self._by_plural.get((group, version, plural))

    def find_kind(self, api_version: str, kind: str) -> Kind | None:
        """Find a kind by what an object says of itself: ``apps/v1`` and ``Deployment``."""
        return self._by_kind.get((api_version, kind))

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """Give what ``make`` makes of these kinds; it is made once as long as they stay."""
        made = self._made
        if key not in made:
            made[key] = make()
        found: Made = made[key]
        return found

    def alike(self, kind: Kind) -> tuple[Kind, ...]:
        """Give the kinds in which the objects of one are served, of whatever groups and versions, itself among them."""
        return self.once(
            ("alike", kind.stored.resource), lambda: tuple(one for one in self._kinds if one.stored.resource == kind.stored.resource)
        )

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Give the groups, core first, and their versions, preferred first."""
        found: dict[str, dict[str, None]] = {}
        for kind in self._kinds:
            found.setdefault(kind.group, {})[kind.version] = None
        return {group: tuple(versions) for group, versions in found.items()}

    def kinds(self, group: str, version: str) -> tuple[Kind, ...]:
        """Give the kinds of one version of a group by their names: `kubectl get all` shows them in the order of discovery."""
        return tuple(sorted((kind for kind in self._kinds if (kind.group, kind.version) == (group, version)), key=lambda kind: kind.plural))


REGISTRY = Registry(
    (
        *core.KINDS,
        *volumes.CORE,
        *limits.CORE,
        *apps.KINDS,
        *limits.AUTOSCALING,
        *autoscaling_v1.KINDS,
        *batch.KINDS,
        *certificates.KINDS,
        *coordination.KINDS,
        *discovery.KINDS,
        *networking.KINDS,
        *ingress_v1beta1.KINDS,
        *events.KINDS,
        *limits.POLICY,
        *rbac.KINDS,
        *limits.SCHEDULING,
        *runtime.KINDS,
        *volumes.STORAGE,
        *admission.KINDS,
        *custom.KINDS,
        *reviews.KINDS,
        *compute.KINDS,
        *metrics.KINDS,
    )
)
