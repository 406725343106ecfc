"""Places by the words that a person uses: ``internet``, ``vpc``, ``control``, ``node/NAME``, ``pod/NAMESPACE/NAME``.

A Pod's record is the file that its node's process keeps (``nodes/NODE/pods/UID.json``); its namespace is held by that node's
first process.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from podwire.cluster.paths import Paths

ROOT_PLACES = ("internet", "vpc", "control")


class Unknown(LookupError):
    """There is no such place; the text names some that are like it."""


@dataclass(frozen=True)
class Where:
    """A place: ``held`` is the name of its network namespace at the first process of ``node`` ("" for the cluster's)."""

    held: str
    node: str = ""
    pod_uid: str = ""


@dataclass(frozen=True)
class PodRecord:
    namespace: str
    name: str
    uid: str
    node: str

    @property
    def word(self) -> str:
        return f"pod/{self.namespace}/{self.name}"


def find(word: str, nodes: Sequence[str], paths: Paths) -> Where:
    """Find a place by its word. Raises Unknown."""
    kind, _, rest = word.partition("/")
    if word in ROOT_PLACES:
        return Where(f"place/{word}")
    if kind == "node" and rest in nodes:
        return Where(f"place/{word}", rest)
    if kind == "pod":
        for pod in pods(nodes, paths):
            if pod.word == word:
                return Where(f"netns/pod/{pod.uid}", pod.node, pod.uid)
    everything = [*ROOT_PLACES, *(f"node/{node}" for node in nodes), *(pod.word for pod in pods(nodes, paths))]
    raise Unknown(f"there is no place {word!r}; there are: {', '.join(_near(word, everything))}")


def _near(word: str, words: Sequence[str]) -> list[str]:
    kind = word.partition("/")[0]
    same = [other for other in words if "/" in word and other.partition("/")[0] == kind]
    return difflib.get_close_matches(word, same, n=5, cutoff=0.5) or same[:10] or [*ROOT_PLACES, "node/NAME", "pod/NAMESPACE/NAME"]


def pods(nodes: Sequence[str], paths: Paths) -> Iterator[PodRecord]:
    """Yield the Pods that have a sandbox on a node, as their nodes' processes have written them down."""
    for node in nodes:
        folder = f"{paths.node(node)}/pods"
        try:
            files = sorted(os.listdir(folder))
        except FileNotFoundError:
            continue
        for file in files:
            if file.endswith(".json"):
                record = _read(f"{folder}/{file}", node)
                if record:
                    yield record


def _read(file: str, node: str) -> PodRecord | None:
    try:
        with open(file, encoding="utf-8") as stream:
            tree = json.load(stream)
        return PodRecord(tree["namespace"], tree["name"], tree["uid"], node)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # being written or removed this moment
