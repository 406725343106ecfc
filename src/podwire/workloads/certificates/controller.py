"""Watches requests for certificates: signs those that are approved, removes those that are settled for long or that nobody decides about.

Without an authority in the configuration nothing is signed.
"""

from __future__ import annotations

import base64

from podwire.daemon.config import AgentConfig, ConfigError
from podwire.daemon.context import Context
from podwire.objects.certificates import CertificateSigningRequest
from podwire.objects.resources import CERTIFICATE_SIGNING_REQUESTS
from podwire.workloads import work
from podwire.workloads.certificates import desired, signing
from podwire.workloads.kinds import Tree
from podwire.workloads.times import stamp


def authority(config: AgentConfig) -> signing.Authority | None:
    """Read the authority that a configuration names. Raises ConfigError."""
    if not config.signing_certificate or not config.signing_key:
        return None
    try:
        return signing.Authority.read(config.signing_certificate, config.signing_key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"signing_certificate and signing_key: {error}") from error


class Certificates:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._authority = authority(context.config)
        self._requests = context.informer(CERTIFICATE_SIGNING_REQUESTS)
        self._work = work.reconciler(context, "certificates", self._operate)
        self._requests.subscribe(self._changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "certificates", [self._requests])

    def _changed(self, _old: CertificateSigningRequest | None, new: CertificateSigningRequest | None) -> None:
        if new is not None:
            self._work.mark(new.key)

    async def _operate(self, key: str) -> float | None:
        request = self._requests.table.get(key)
        if request is None:
            return None
        if self._authority is not None and desired.is_due(request):
            state = self._settled(request, self._authority)
            body = {"metadata": {"resourceVersion": request.metadata.resource_version}, "status": state}
            await self._client.patch(CERTIFICATE_SIGNING_REQUESTS, request.name, "", body, subresource="status")
            return None
        left_s = desired.kept_for(request, self._context.now()).total_seconds()
        if left_s > 0:
            return left_s
        await self._client.delete(CERTIFICATE_SIGNING_REQUESTS, request.name, uid=request.metadata.uid)
        return None

    def _settled(self, request: CertificateSigningRequest, signer: signing.Authority) -> Tree:
        """The status of a request that was signed or cannot be."""
        now = self._context.now()
        try:
            found = signing.read(request.spec.request)
            why = desired.refusal(request, signing.asked(found))
        except signing.Unreadable as error:
            found, why = None, str(error)
        if found is None or why:
            return desired.failed(request, why, stamp(now))
        certificate = signer.signed(found, request.spec.usages, desired.duration(request), now)
        return {"certificate": base64.b64encode(certificate).decode()}
