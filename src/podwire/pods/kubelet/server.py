"""The kubelet's socket: HTTPS on the node's address, in the node's network, with the node's certificate.

Clients may show a certificate, which must be of the cluster's CA; who they are and what they may is for ``access``.

Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator

import uvicorn
from uvicorn.server import ServerState

from podwire.daemon import memory
from podwire.daemon.config import AgentConfig, ConfigError
from podwire.daemon.http_server import CertifiedProtocol
from podwire.pods.kubelet.app import Kubelet


def tls_context(config: AgentConfig) -> ssl.SSLContext:
    """The server's side of TLS. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.kubelet_certificate, config.kubelet_key)
        context.load_verify_locations(config.kubelet_client_ca)
    except OSError as error:
        raise ConfigError(f"kubelet_certificate, kubelet_key and kubelet_client_ca: {error}") from error
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    return context


@contextlib.asynccontextmanager
async def serving(kubelet: Kubelet, config: AgentConfig) -> AsyncIterator[None]:
    """Serve on the node's address until the end. Without a certificate in the configuration there is nothing to serve with."""
    if not config.kubelet_certificate:
        yield
        return
    memory.keep_freed()
    settings = uvicorn.Config(kubelet, http=CertifiedProtocol, ws="none", lifespan="off", access_log=False, log_config=None)
    settings.load()
    state = ServerState()
    protocol = functools.partial(CertifiedProtocol, config=settings, server_state=state, app_state={})
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, list(config.node_ips), config.kubelet_port, ssl=tls_context(config), backlog=512)
    try:
        yield
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        kubelet.watches.close()
