"""Eviction: deletion of a Pod that asks its PodDisruptionBudget first.

Here: the decision, and the grant, which is written to the budget in the same step as the deletion to the Pod, so that two evictions never
take the same allowance. Not here: how many may go (the controller of budgets counts that and writes it to their status).

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/,
https://kubernetes.io/docs/tasks/run-application/configure-pdb/
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from podwire.apiserver import bodies, deletion, keys, status
from podwire.apiserver.answers import Answer, Tree, answer, decode
from podwire.apiserver.api import Api, latest_tree, put, remove
from podwire.apiserver.auth import guards
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.limits import POD_DISRUPTION_BUDGET
from podwire.apiserver.kinds.workload_validation import matches
from podwire.apiserver.requests import Request
from podwire.apiserver.writing import is_finished

REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
PROCESSING_S = 10
DISRUPTED_LIMIT = 2000


def decide(pod: Tree, budgets: Sequence[Tree]) -> tuple[Tree | None, status.Failure | None]:
    """Say whether a Pod may be evicted: the budget that gives an allowance for it, and why not.

    ``budgets`` are those of the Pod's namespace. Nobody's allowance is needed for a Pod that runs not, or ends.
    """
    state, metadata = pod.get("status", {}), pod["metadata"]
    if metadata.get("deletionTimestamp") or state.get("phase") in ("Pending", "Succeeded", "Failed"):
        return None, None
    about = [budget for budget in budgets if _is_about(budget, metadata.get("labels", {}))]
    if not about:
        return None, None
    if len(about) > 1:
        return None, status.internal("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
    [budget] = about
    have, ready = (
        budget.get("status", {}),
        any(one.get("type") == "Ready" and one.get("status") == "True" for one in state.get("conditions", ())),
    )
    if not ready:
        policy = budget.get("spec", {}).get("unhealthyPodEvictionPolicy", "IfHealthyBudget")
        enough = have.get("currentHealthy", 0) >= have.get("desiredHealthy", 0) > 0
        if policy == "AlwaysAllow" or enough:
            return None, None
    return budget, _refusal(budget)


def _is_about(budget: Tree, labels: dict[str, str]) -> bool:
    selector = budget.get("spec", {}).get("selector")
    return selector is not None and matches(selector, labels)


def _refusal(budget: Tree) -> status.Failure | None:
    name, have = budget["metadata"]["name"], budget.get("status", {})
    if have.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        return _too_many(f"The disruption budget {name} is still being processed by the server.", PROCESSING_S)
    if len(have.get("disruptedPods") or {}) > DISRUPTED_LIMIT:
        return status.forbidden(
            POD_DISRUPTION_BUDGET, name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        )
    if have.get("disruptionsAllowed", 0) > 0:
        return None
    needs, has = have.get("desiredHealthy", 0), have.get("currentHealthy", 0)
    return _too_many(f"The disruption budget {name} needs {needs} healthy pods and has {has} currently")


def _too_many(cause: str, retry_s: int = 0) -> status.Failure:
    details: Tree = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if retry_s:
        details["retryAfterSeconds"] = retry_s
        headers = ((b"retry-after", str(retry_s).encode()),)
    return status.Failure(429, "TooManyRequests", REFUSED, details, headers)


async def evict(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to POST of an Eviction. Raises Failure (429 when the budget has no allowance left)."""
    sent, target = bodies.tree(request), request.target
    named = (sent.get("metadata") or {}).get("name", "")
    if named and named != target.name:
        raise status.bad_request("name in URL does not match name in Eviction object")
    wanted = deletion.read_options(request, sent.get("deleteOptions") or {})
    pod = latest_tree(api, kind, target.namespace, target.name)
    if pod is None:
        raise status.not_found(kind, target.name)
    guards.check_delete(request.user, kind, pod, "eviction")
    deletion.check(kind, pod, wanted)
    budget, refusal = decide(pod, _budgets(api, target.namespace))
    if refusal is not None:
        raise refusal
    marked = deletion.mark(api, kind, pod, wanted)
    gone = is_finished(kind, pod)
    if not wanted.dry_run and (marked or gone):
        transaction = api.store.transaction()
        if budget is not None:
            have = budget["status"]
            have["disruptionsAllowed"] -= 1
            have["disruptedPods"] = {**(have.get("disruptedPods") or {}), target.name: api.timestamp()}
            put(transaction, POD_DISRUPTION_BUDGET, budget)
        (remove if gone else put)(transaction, kind, pod)
        await asyncio.shield(api.store.commit(transaction))
    return answer(status.success(code=201), 201)


def _budgets(api: Api, namespace: str) -> list[Tree]:
    """Give the budgets of a namespace as they are with the writes under way."""
    found = [api.store.latest(record.key) for record in api.store.range(keys.prefix(POD_DISRUPTION_BUDGET, namespace))]
    return [decode(record.value) for record in found if record is not None]
