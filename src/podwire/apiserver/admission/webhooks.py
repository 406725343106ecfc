"""Webhooks: programs of users that are asked about writes, over HTTPS.

Mutating ones are asked one after the other, in the order of their names, and each sees what those before it changed; one that asks for it
is asked again when a later one changed something. Validating ones are asked all at once. What one answers is told in the API's words.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from podwire.apiserver import status
from podwire.apiserver.admission.attributes import Attributes
from podwire.apiserver.admission.matching import EXEMPT, Conditions, LabelsOf, rules_match, selected
from podwire.apiserver.answers import decode
from podwire.apiserver.cel.values import Fault
from podwire.apiserver.patch import PatchError, json_patch
from podwire.client.http import aiohttp
from podwire.store import Store

Tree = dict[str, Any]
Shape = Callable[[Attributes, Tree], Tree]
_LARGEST = 3 * 1024 * 1024  # bytes of an answer


class NoAnswer(Exception):
    """A webhook that could not be asked, or answered what is no answer."""


@dataclass(eq=False)
class Webhook:
    """One webhook of a configuration, with what is compiled of it."""

    configuration: str
    said: Tree
    conditions: Conditions
    context: ssl.SSLContext | None = field(default=None)

    @property
    def name(self) -> str:
        return str(self.said["name"])

    @property
    def must_answer(self) -> bool:
        return bool(self.said["failurePolicy"] == "Fail")


def of_configuration(tree: Tree) -> list[Webhook]:
    """Compile the webhooks of a configuration. Raises Rejected."""
    name = tree["metadata"]["name"]
    return [Webhook(name, one, Conditions(one.get("matchConditions", ()))) for one in tree.get("webhooks", ())]


class Caller:
    """Asks webhooks. ``labels`` gives those of a namespace, ``versions`` those of a kind that are served."""

    def __init__(self, store: Store, labels: LabelsOf, versions: Callable[[str, str], Sequence[str]]) -> None:
        self._store = store
        self._labels = labels
        self._versions = versions
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def concerned(self, webhooks: Sequence[Webhook], asked: Attributes) -> list[Webhook]:
        """Give the webhooks that a request concerns by its kind and labels."""
        if asked.kind.resource in EXEMPT:
            return []
        return [one for one in webhooks if self._means(one, asked) and selected(one.said, asked, self._labels)]

    def _means(self, webhook: Webhook, asked: Attributes) -> bool:
        versions = [asked.kind.version]
        if webhook.said.get("matchPolicy") == "Equivalent":
            versions = list(self._versions(asked.kind.group, asked.kind.plural)) or versions
        return rules_match(webhook.said.get("rules", ()), asked, versions)

    async def mutate(self, webhooks: Sequence[Webhook], asked: Attributes, shape: Shape) -> None:
        """Let webhooks change ``asked.tree``. ``shape`` brings what they made into its kind's shape. Raises Failure."""
        last_change = -1
        for step, webhook in enumerate(webhooks):
            if await self._change(webhook, asked, shape):
                last_change = step
        for step, webhook in enumerate(webhooks):
            if step < last_change and webhook.said.get("reinvocationPolicy") == "IfNeeded":
                await self._change(webhook, asked, shape)

    async def _change(self, webhook: Webhook, asked: Attributes, shape: Shape) -> bool:
        response = await self._ask(webhook, asked)
        if response is None or not response.get("patch"):
            return False
        assert asked.tree is not None
        try:
            if response.get("patchType") != "JSONPatch":
                raise NoAnswer(f'unsupported patch type "{response.get("patchType", "")}"')
            operations = orjson.loads(base64.b64decode(response["patch"], validate=True))
            tree = shape(asked, json_patch(asked.tree, operations))
        except (PatchError, ValueError, binascii.Error, NoAnswer) as error:
            raise status.internal(f'failed calling webhook "{webhook.name}": {error}') from None
        changed = tree != asked.tree
        asked.tree = tree
        return changed

    async def validate(self, webhooks: Sequence[Webhook], asked: Attributes) -> None:
        """Ask webhooks, all at once. Raises the Failure of the first that refuses."""
        found = await asyncio.gather(*(self._ask(webhook, asked) for webhook in webhooks), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one

    async def _ask(self, webhook: Webhook, asked: Attributes) -> Tree | None:
        """Ask one webhook; give its answer, None when it need not be asked or its silence is ignored. Raises Failure."""
        uid = str(uuid4())
        review = asked.review(uid)
        try:
            if webhook.conditions:
                values = {"object": asked.tree, "oldObject": asked.old, "request": review}
                if not webhook.conditions.hold(values):
                    return None
            response = await self._post(webhook, review, uid)
        except Fault as fault:
            if not webhook.must_answer:
                return None
            raise status.forbidden(asked.kind, asked.name, str(fault)) from None
        except (NoAnswer, TimeoutError, aiohttp.ClientError, OSError) as error:
            if not webhook.must_answer:
                return None
            told = str(error) or "context deadline exceeded"
            raise status.internal(f'failed calling webhook "{webhook.name}": failed to call webhook: {told}') from None
        asked.warnings += [str(one) for one in response.get("warnings") or ()]
        if response.get("allowed") is not True:
            raise _denied(webhook, response.get("status") or {})
        return response

    async def _post(self, webhook: Webhook, review: Tree, uid: str) -> Tree:
        said = webhook.said
        version = next(one for one in said["admissionReviewVersions"] if one in ("v1", "v1beta1"))
        body = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": review}
        url, host, name = self._place(said["clientConfig"])
        if webhook.context is None:
            webhook.context = _context(said["clientConfig"])
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        limit = aiohttp.ClientTimeout(total=said["timeoutSeconds"])
        headers = {"content-type": "application/json", "accept": "application/json"} | ({"host": host} if host else {})
        query = f"{'&' if '?' in url else '?'}timeout={said['timeoutSeconds']}s"
        async with self._session.post(
            url + query,
            data=orjson.dumps(body),
            headers=headers,
            timeout=limit,
            ssl=webhook.context,
            server_hostname=name,
            allow_redirects=False,
        ) as answer:
            text = await answer.content.read(_LARGEST + 1)
            while len(text) <= _LARGEST and not answer.content.at_eof():
                text += await answer.content.read(_LARGEST + 1 - len(text))
        if answer.status != 200:
            raise NoAnswer(f"the server responded with the status code {answer.status}")
        return _response(text, uid, version)

    def _place(self, client: Tree) -> tuple[str, str, str | None]:
        """Give the URL of a webhook, the name for its requests and for TLS. Raises NoAnswer."""
        if "url" in client:
            return client["url"], "", None
        service = client["service"]
        name = f"{service['name']}.{service['namespace']}.svc"
        address, port = self._endpoint(service)
        address = f"[{address}]" if ":" in address else address
        path = service.get("path", "/")
        return f"https://{address}:{port}{path}", f"{name}:{service['port']}", name

    def _endpoint(self, service: Tree) -> tuple[str, int]:
        """Choose a ready endpoint of a Service. The control plane has no service proxy: it goes to the Pod."""
        namespace, name, port = service["namespace"], service["name"], service["port"]
        record = self._store.get(f"services/{namespace}/{name}")
        if record is None:
            raise NoAnswer(f'service "{name}" not found')
        named = next((one.get("name", "") for one in decode(record.value)["spec"].get("ports", ()) if one["port"] == port), None)
        if named is None:
            raise NoAnswer(f'no service port {port} found for service "{name}"')
        ready: list[tuple[str, int]] = []
        for one in self._store.range(f"endpointslices.discovery.k8s.io/{namespace}/"):
            tree = decode(one.value)
            if tree["metadata"].get("labels", {}).get("kubernetes.io/service-name") != name:
                continue
            ports = [found["port"] for found in tree.get("ports") or () if (found.get("name") or "") == named and found.get("port")]
            for endpoint in tree.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is not False:
                    ready += [(address, port) for address in endpoint["addresses"] for port in ports]
        if not ready:
            raise NoAnswer(f'no endpoints available for service "{name}"')
        return random.choice(ready)


def _context(client: Tree) -> ssl.SSLContext:
    """Trust who the webhook's configuration says. Raises NoAnswer."""
    context = ssl.create_default_context()
    if bundle := client.get("caBundle"):
        try:
            context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
        except (ssl.SSLError, ValueError) as error:
            raise NoAnswer(f"unable to load root certificates: {error}") from None
    return context


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
    told = said.get("message") or said.get("reason") or ""
    text = f'admission webhook "{webhook.name}" denied the request' + (f": {told}" if told else " without explanation")
    code = said.get("code") if isinstance(said.get("code"), int) else 0
    failure = status.Failure(max(code or 0, 400), str(said.get("reason") or ""), text, said.get("details") or {})
    failure.metadata = said.get("metadata") or {}
    return failure
