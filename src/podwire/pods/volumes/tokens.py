"""Tokens of ServiceAccounts, asked for on behalf of one Pod and asked for anew before they end.

A token is bound to its Pod: it ends with it. It is replaced when four fifths of its time are over, and after a day at the latest.

Source: https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from podwire.client.api import Client
from podwire.client.errors import ApiError, Unreachable
from podwire.objects.core import Pod
from podwire.objects.resources import SERVICE_ACCOUNTS
from podwire.objects.volumes import ServiceAccountTokenProjection
from podwire.pods.environment import Unavailable
from podwire.pods.volumes.payload import account

_LONGEST_S = 24 * 3600.0
_SPENT = 0.8
_AGAIN_S = 10.0


@dataclass(frozen=True)
class Token:
    """Times are wall-clock seconds."""

    text: str
    renew_at: float


def renew_at(now: float, expires_at: float) -> float:
    """When a token that was given now is to be replaced."""
    return now + min(_LONGEST_S, _SPENT * max(0.0, expires_at - now))


class PodTokens:
    """The tokens of one Pod. ``now`` is wall-clock seconds."""

    def __init__(self, client: Client, now: Callable[[], float]) -> None:
        self._client, self._now = client, now
        self._held: dict[ServiceAccountTokenProjection, Token] = {}

    def held(self) -> dict[ServiceAccountTokenProjection, str]:
        return {wanted: token.text for wanted, token in self._held.items()}

    def next_renewal(self) -> float | None:
        """When the first of them is to be replaced; None: there are none."""
        return min((token.renew_at for token in self._held.values()), default=None)

    async def refresh(self, pod: Pod, wanted: Iterable[ServiceAccountTokenProjection]) -> None:
        """Ask for the tokens that are not there or are to be replaced. Raises Unavailable for one that there is none of at all."""
        for projection in wanted:
            token = self._held.get(projection)
            if token is None or token.renew_at <= self._now():
                try:
                    self._held[projection] = await self._ask(pod, projection)
                except (ApiError, Unreachable) as error:
                    if token is None:
                        raise Unavailable(f"failed to fetch token: {error}") from error
                    self._held[projection] = Token(token.text, self._now() + _AGAIN_S)

    async def _ask(self, pod: Pod, projection: ServiceAccountTokenProjection) -> Token:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.metadata.uid}
        spec: dict[str, Any] = {"expirationSeconds": projection.expiration_seconds, "boundObjectRef": bound}
        spec["audiences"] = [projection.audience] if projection.audience else []
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        tree = await self._client.create_subresource(SERVICE_ACCOUNTS, account(pod), pod.namespace, "token", body)
        answer = tree["status"]
        expires = datetime.fromisoformat(answer["expirationTimestamp"]).timestamp()
        return Token(answer["token"], renew_at(self._now(), expires))
