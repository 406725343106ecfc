"""PodSecurity where a namespace is written: its labels must be right, and who raises its level hears of Pods that are there and violate it.

They stay: only new Pods are refused. Many are looked at in slices, between which others are served; so the namespace is looked at again
afterwards, as after a webhook.

Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/#pod-security-admission-labels-for-namespaces
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from podwire.apiserver import keys, status
from podwire.apiserver.admission import pod_security
from podwire.apiserver.admission.attributes import Attributes
from podwire.apiserver.answers import Tree, decode
from podwire.apiserver.api import Api
from podwire.apiserver.kinds.core import NAMESPACE, POD
from podwire.store import Record

_SLICE = 100  # Pods


async def changed(api: Api, asked: Attributes) -> bool:
    """Look at the labels of a namespace as it is to be; say whether others may have written meanwhile. Raises Failure (422)."""
    if asked.kind is not NAMESPACE or asked.subresource or asked.tree is None:
        return False
    new, old = (pod_security.policy((tree or {"metadata": {}})["metadata"].get("labels", {})) for tree in (asked.tree, asked.old))
    if errors := pod_security.errors_of_change(new, old):
        raise status.invalid(asked.own, asked.name, errors)
    if asked.old is None or not pod_security.is_rising(new, old):
        return False
    records = api.store.latest_range(keys.prefix(POD, asked.name))
    controllers = [pod_security.controller(pod) async for pod in _decoded(records)]
    looked = [records[place] for place in pod_security.in_turn(controllers)[: pod_security.MOST]]
    found = [(pod["metadata"]["name"], pod_security.in_short(new.enforce, pod)) async for pod in _decoded(looked)]
    asked.warnings += pod_security.of_existing(asked.name, new.enforce, found, len(looked), len(records))
    return True


async def _decoded(records: Iterable[Record]) -> AsyncIterator[Tree]:
    for number, record in enumerate(records, 1):
        yield decode(record.value)
        if number % _SLICE == 0:
            await asyncio.sleep(0)
