"""Webhooks: programs of users that are asked about writes, over HTTPS.

Mutating ones are asked one after the other, in the order of their names, and each sees what those before it changed; one that asks for it
is asked again when a later one changed something. Validating ones are asked all at once. Each is shown the object in the kind and version
that its rules name. What one answers is told in the API's words.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from podwire.apiserver import status
from podwire.apiserver.admission.attributes import Attributes
from podwire.apiserver.admission.matching import EXEMPT, Alike, Authority, Conditions, LabelsOf, meant, selected
from podwire.apiserver.admission.seeing import converted, seen_as
from podwire.apiserver.calls import Callee, Calls, NoAnswer
from podwire.apiserver.cel.values import Fault
from podwire.apiserver.kind import Kind
from podwire.apiserver.patch import PatchError, json_patch

Tree = dict[str, Any]
Shape = Callable[[Attributes, Tree], Tree]
_LARGEST = 3 * 1024 * 1024  # bytes of an answer


@dataclass(eq=False)
class Webhook:
    """One webhook of a configuration, with what is compiled of it."""

    configuration: str
    said: Tree
    conditions: Conditions
    callee: Callee

    @property
    def name(self) -> str:
        return str(self.said["name"])

    @property
    def may_be_asked_again(self) -> bool:
        return self.said.get("reinvocationPolicy") == "IfNeeded"

    @property
    def must_answer(self) -> bool:
        return bool(self.said["failurePolicy"] == "Fail")


def of_configuration(tree: Tree) -> list[Webhook]:
    """Compile the webhooks of a configuration. Raises Rejected."""
    name = tree["metadata"]["name"]
    return [Webhook(name, one, Conditions(one.get("matchConditions", ())), Callee(one["clientConfig"])) for one in tree.get("webhooks", ())]


@dataclass(frozen=True, slots=True)
class Invocation:
    """A webhook that is to be asked, and the kind in which it is shown the object: the one that its rules name."""

    webhook: Webhook
    kind: Kind


class Caller:
    """Asks webhooks. ``labels`` gives those of a namespace, ``alike`` the kinds in which the objects of one are served,
    ``authority`` who may do what.
    """

    def __init__(self, calls: Calls, labels: LabelsOf, alike: Alike, authority: Authority) -> None:
        self._calls = calls
        self._labels = labels
        self._alike = alike
        self._authority = authority

    def concerned(self, webhooks: Sequence[Webhook], asked: Attributes) -> list[Invocation]:
        """Give the webhooks that a request concerns by its kind and labels."""
        if asked.kind.resource in EXEMPT:
            return []
        found: list[Invocation] = []
        for one in webhooks:
            kind = meant(one.said.get("rules", ()), one.said.get("matchPolicy", ""), asked, self._alike)
            if kind is not None and selected(one.said, asked, self._labels):
                found.append(Invocation(one, kind))
        return found

    async def mutate(self, invocations: Sequence[Invocation], asked: Attributes, shape: Shape) -> None:
        """Let webhooks change ``asked.tree``. ``shape`` brings what they made into its kind's shape. Raises Failure."""
        last_change = -1
        for step, one in enumerate(invocations):
            if await self._change(one, asked, shape):
                last_change = step
        for step, one in enumerate(invocations):
            if step < last_change and one.webhook.may_be_asked_again:
                await self._change(one, asked, shape)

    async def _change(self, invocation: Invocation, asked: Attributes, shape: Shape) -> bool:
        webhook, seen = invocation.webhook, await seen_as(asked, invocation.kind)
        response = await self._ask(webhook, seen)
        if response is None or not response.get("patch"):
            return False
        assert seen.tree is not None
        try:
            if response.get("patchType") != "JSONPatch":
                raise NoAnswer(f'unsupported patch type "{response.get("patchType", "")}"')
            operations = orjson.loads(base64.b64decode(response["patch"], validate=True))
            tree = shape(seen, json_patch(seen.tree, operations))
            if tree == seen.tree:
                return False
            asked.tree = tree if seen is asked else shape(asked, (await converted([tree], asked.kind))[0])
        except (PatchError, ValueError, binascii.Error, NoAnswer) as error:
            raise status.internal(f'failed calling webhook "{webhook.name}": {error}') from None
        return True

    async def validate(self, invocations: Sequence[Invocation], asked: Attributes) -> None:
        """Ask webhooks, all at once. Raises the Failure of the first that refuses."""
        seen = {kind: await seen_as(asked, kind) for kind in dict.fromkeys(one.kind for one in invocations)}
        found = await asyncio.gather(*(self._ask(one.webhook, seen[one.kind]) for one in invocations), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one

    async def _ask(self, webhook: Webhook, asked: Attributes) -> Tree | None:
        """Ask one webhook; give its answer, None when it need not be asked or its silence is ignored. Raises Failure."""
        uid = str(uuid4())
        review = asked.review(uid)
        try:
            if webhook.conditions:
                values = {"object": asked.tree, "oldObject": asked.old, "request": review, **self._authority(asked)}
                if not webhook.conditions.hold(values):
                    return None
            response = await self._post(webhook, review, uid)
        except Fault as fault:
            if not webhook.must_answer:
                return None
            raise status.forbidden(asked.own, asked.name, str(fault)) from None
        except NoAnswer as error:
            if not webhook.must_answer:
                return None
            raise status.internal(f'failed calling webhook "{webhook.name}": failed to call webhook: {error}') from None
        asked.warnings += [str(one) for one in response.get("warnings") or ()]
        asked.annotations.update({f"{webhook.name}/{key}": str(one) for key, one in (response.get("auditAnnotations") or {}).items()})
        if response.get("allowed") is not True:
            raise _denied(webhook, response.get("status") or {})
        return response

    async def _post(self, webhook: Webhook, review: Tree, uid: str) -> Tree:
        said = webhook.said
        version = next(one for one in said["admissionReviewVersions"] if one in ("v1", "v1beta1"))
        body = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": review}
        text = await self._calls.post(webhook.callee, orjson.dumps(body), said["timeoutSeconds"], _LARGEST)
        return _response(text, uid, version)


def _response(text: bytes, uid: str, version: str) -> Tree:
    """Read an answer. Raises NoAnswer."""
    try:
        review = orjson.loads(text)
        response: Any = review["response"]
    except (ValueError, KeyError, TypeError):
        raise NoAnswer("webhook response is no AdmissionReview with a response") from None
    if not isinstance(response, dict):
        raise NoAnswer("webhook response was absent")
    if version == "v1":
        if (review.get("apiVersion"), review.get("kind")) != ("admission.k8s.io/v1", "AdmissionReview"):
            found = f"{review.get('apiVersion', '')}, Kind={review.get('kind', '')}"
            raise NoAnswer(f"expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {found}")
        if response.get("uid") != uid:
            raise NoAnswer(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    return response


def _denied(webhook: Webhook, said: Tree) -> status.Failure:
    why = said.get("message") or said.get("reason") or ""
    text = f'admission webhook "{webhook.name}" denied the request' + (f": {why}" if why else " without explanation")
    code = said.get("code") if isinstance(said.get("code"), int) else 0
    failure = status.Failure(max(code or 0, 400), str(said.get("reason") or ""), text, said.get("details") or {})
    failure.metadata = said.get("metadata") or {}
    return failure
