"""What a kind of object is: a row of a table.

Here: the shape of a row, and the order in which its functions run. Not here: any kind (``kinds/``), the table (``registry.py``),
storage, HTTP, the clock. Adding a kind to the API is writing one more ``Kind``; everything else serves it from its row.

A write goes through, in this order (the words of the API's own pipeline):

    create: schema.prune_and_check -> kind.fill(tree) -> owners -> admission -> kind.prepare(tree) -> allocation -> kind.check(tree, None)
    update: schema.prune_and_check -> kind.for_update(tree, old, subresource) -> allocation -> kind.check(tree, old, subresource)

``tree`` is a plain JSON tree and is changed in place; ``old`` is the stored tree and is never changed.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ and
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from podwire.apiserver.cells import age
from podwire.apiserver.validation import FieldError, Path, dns_subdomain, metadata_errors, metadata_update_errors

Tree = dict[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Subresource:
    """A part of an object with a path of its own. ``kind`` empty means: the body is the object itself.

    ``streamed``: what is sent and answered is no object (``streaming``).
    """

    name: str
    kind: str = ""
    group: str = ""
    version: str = ""
    verbs: tuple[str, ...] = ("get", "patch", "update")
    streamed: bool = False


STATUS = Subresource("status")
SCALE = Subresource("scale", "Scale", "autoscaling", "v1")


@dataclass(frozen=True)
class Column:
    """A column of a Table. ``priority`` above 0 is shown by ``-o wide`` only."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


NAME = Column("Name", format="name")
AGE = Column("Age")


def _nothing(_tree: Tree) -> None:
    return None


def _nothing_changed(_tree: Tree, _old: Tree) -> None:
    return None


def _no_errors(_tree: Tree, _old: Tree | None) -> list[FieldError]:
    return []


def _no_warnings(_tree: Tree, _old: Tree | None) -> list[str]:
    return []


def _name_and_age(tree: Tree, now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], age(tree["metadata"].get("creationTimestamp"), now)]


@dataclass(frozen=True, eq=False)
class Conversion:
    """How a kind of one version is kept as one of another, there and back.

    Both functions take a whole tree and give a new one; apiVersion and kind are not their affair. ``fields`` translates names of
    selectable fields; ``words`` translates parts of messages, from the stored version's to this one's.
    """

    stored: Kind
    to_stored: Callable[[Tree], Tree]
    from_stored: Callable[[Tree], Tree]
    fields: Mapping[str, str] = field(default_factory=dict)
    words: tuple[tuple[str, str], ...] = ()


@dataclass(eq=False)
class Versions:
    """The versions of a kind that is stored in the version in which it was written (``conversion.py``).

    ``rows`` holds a row for each version, served or not, by apiVersion; new objects are stored as ``storage`` has them. ``convert`` takes
    trees of any versions and gives new ones of one version, in order; apiVersion included, pruning not. It raises Failure.
    """

    rows: dict[str, Kind]
    stored_as: str
    convert: Callable[[list[Tree], Kind], Awaitable[list[Tree]]]

    @property
    def storage(self) -> Kind:
        return self.rows[self.stored_as]


@dataclass(frozen=True)
class ScalePaths:
    """Where an object says what its Scale shows: paths of fields, ``selector`` empty for none."""

    wanted: tuple[str, ...]
    found: tuple[str, ...]
    selector: tuple[str, ...] = ()


@dataclass(frozen=True)
class Use:
    """Objects of another kind of the same group and version keep one from being deleted. ``uses`` takes one of those, then the object."""

    plural: str
    uses: Callable[[Tree, Tree], bool]


@dataclass(frozen=True, eq=False)
class Custom:
    """What a CustomResourceDefinition says of its kind, where other kinds have a packaged schema.

    ``shape`` is asked instead of the schema: it drops what the kind does not know and names it. ``merging`` is the type by which
    configurations merge (``merge_types.Type``), ``openapi`` the schema of the OpenAPI document.
    """

    shape: Callable[[Tree], list[str]]
    merging: Any
    openapi: Mapping[str, Any]
    scale: ScalePaths | None = None


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind in one version.

    ``definition`` names its schema (the name in the OpenAPI document). ``default`` fills what the writer left out.
    ``prepare_create`` and ``prepare_update`` are the kind's own changes to a write, beside the general ones (status and spec are
    kept apart, generation counts changes of the spec). ``validate`` gives every error at once, in the API's words.
    ``row`` gives the cells of ``columns``. ``selectable_fields`` are what ``--field-selector`` may ask for, beside
    metadata.name and metadata.namespace.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    definition: str
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    columns: tuple[Column, ...] = (NAME, AGE)
    row: Callable[[Tree, datetime], list[Any]] = _name_and_age
    selectable_fields: Mapping[str, Callable[[Tree], str]] = field(default_factory=dict)
    name_errors: Callable[[str, bool], list[str]] = dns_subdomain
    default: Callable[[Tree], None] = _nothing
    prepare_create: Callable[[Tree], None] = _nothing
    prepare_update: Callable[[Tree, Tree], None] = _nothing_changed
    validate: Callable[[Tree, Tree | None], list[FieldError]] = _no_errors
    validate_status: Callable[[Tree, Tree | None], list[FieldError]] = _no_errors
    warnings: Callable[[Tree, Tree | None], list[str]] = _no_warnings
    graceful: bool = False
    """Deletion leaves time: the object stays with a deletionTimestamp until its keeper lets go (Pods)."""
    generations: bool = True
    """metadata.generation counts the changes of what the writer wants. Off for kinds without a spec."""
    create_on_update: bool = False
    """A PUT of an object that does not exist creates it."""
    created_with_status: bool = False
    """Who creates the object may say its status at once (nodes, which register themselves)."""
    unconditional_update: bool = True
    """An update may leave out metadata.resourceVersion."""
    conversion: Conversion | None = None
    """Objects are stored in another version: every request is translated to it, every answer back (``versions.py``)."""
    versions: Versions | None = None
    """There are several versions of it in the store: objects are converted when they are read and written."""
    companions: Callable[[Tree], list[tuple[Kind, Tree]]] | None = None
    """Cluster-scoped objects that are there exactly as long as this one says so, and are written together with it."""
    kept_by: Use | None = None
    """Who keeps an object from being deleted: a resource of the cloud that another one uses stays."""
    deprecation: str = ""
    """A warning for whoever uses this version."""
    mark: Callable[[Tree], None] = _nothing
    """What is written into an object when it is marked as being deleted."""
    custom: Custom | None = None
    """It was defined through the API (``extension/``)."""

    def __post_init__(self) -> None:
        if not self.singular:
            object.__setattr__(self, "singular", self.kind.lower())

    @functools.cached_property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        return self.kind + "List"

    @functools.cached_property
    def stored(self) -> Kind:
        """The version in which objects are stored."""
        return self if self.conversion is None else self.conversion.stored

    @property
    def listed(self) -> bool:
        """Whether there are objects of it to list. What is only asked has none."""
        return "list" in self.verbs

    @functools.cached_property
    def resource(self) -> str:
        """``deployments.apps``, or ``pods`` in the core group: as messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def subresource(self, name: str) -> Subresource | None:
        return next((part for part in self.subresources if part.name == name), None)

    @functools.cached_property
    def has_status(self) -> bool:
        return STATUS in self.subresources

    def for_create(self, tree: Tree) -> None:
        """Make a new object of what was sent: defaults, no status of the writer's, generation 1."""
        self.fill(tree)
        self.prepare(tree)

    def fill(self, tree: Tree) -> None:
        """The first half of ``for_create``: then the tree holds what its writer answers for."""
        self.default(tree)
        if self.has_status and not self.created_with_status:
            tree.pop("status", None)

    def prepare(self, tree: Tree) -> None:
        """The second half of ``for_create``: what the server adds by itself."""
        if self.has_status and self.custom is None:
            tree.setdefault("status", {})  # clients of typed languages always find one
        self.prepare_create(tree)
        self.count_first(tree)

    def count_first(self, tree: Tree) -> None:
        """Set the generation of a new object."""
        if self.generations:
            tree["metadata"]["generation"] = 1
        else:
            tree["metadata"].pop("generation", None)

    def for_update(self, tree: Tree, old: Tree, subresource: str = "") -> None:
        """Make the next state of what was sent and what is stored.

        A write of the object leaves the status alone; a write of the status leaves all else alone but
        metadata that belongs to both (managedFields). Other subresources count as writes of the object.
        """
        _carry(tree["metadata"], old["metadata"])
        if subresource == "status":
            self._keep_all_but_status(tree, old)
            self.default(tree)
            return
        self.default(tree)
        if self.has_status:
            _keep(tree, old, "status")
        self.prepare_update(tree, old)
        if self.generations:
            generation = old["metadata"].get("generation", 0)
            tree["metadata"]["generation"] = generation + 1 if _wanted(tree) != _wanted(old) else generation

    def _keep_all_but_status(self, tree: Tree, old: Tree) -> None:
        metadata, status = tree.get("metadata", {}), tree.get("status")
        for key in list(tree):
            if key not in ("apiVersion", "kind", "metadata"):
                del tree[key]
        for key, value in old.items():
            if key not in ("apiVersion", "kind", "metadata", "status"):
                tree[key] = value
        if status is not None:
            tree["status"] = status
        kept = dict(old["metadata"])
        for key in ("resourceVersion", "managedFields"):
            kept.pop(key, None)
            if key in metadata:
                kept[key] = metadata[key]
        if self.plural == "nodes":
            # The kubelet reports labels and annotations together with its status, through either path.
            for key in ("labels", "annotations"):
                if key in metadata:
                    kept[key] = metadata[key]
        tree["metadata"] = kept

    def check(self, tree: Tree, old: Tree | None, subresource: str = "") -> list[FieldError]:
        """Give every error of an object that is to be stored. An empty list means that it may be."""
        if subresource == "status" and old is not None:
            return self.validate_status(tree, old)
        if old is None:
            return self.check_metadata(tree) + self.validate(tree, None)
        return metadata_update_errors(tree["metadata"], old["metadata"], Path("metadata")) + self.validate(tree, old)

    def check_metadata(self, tree: Tree) -> list[FieldError]:
        """Give every error of a new object's metadata."""
        return metadata_errors(tree["metadata"], self.namespaced, self.name_errors, Path("metadata"))


def _carry(metadata: Tree, old: Tree) -> None:
    """Fill what a writer may leave out and never changes. What deletion has set stays set."""
    for key in ("uid", "creationTimestamp", "name", "namespace"):
        if not metadata.get(key) and key in old:
            metadata[key] = old[key]
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        if key in old:
            metadata[key] = old[key]
    if "generation" in old:
        metadata["generation"] = old["generation"]
    if old.get("selfLink") is None:
        metadata.pop("selfLink", None)


def _keep(tree: Tree, old: Tree, key: str) -> None:
    if key in old:
        tree[key] = old[key]
    else:
        tree.pop(key, None)


def _wanted(tree: Tree) -> Tree:
    return {key: value for key, value in tree.items() if key not in ("apiVersion", "kind", "metadata", "status")}
