"""The API server's process: configuration, store, sockets, signals.

Serves on listening sockets that it is given as descriptors; it makes none of its own. ``READY=1`` goes to the supervisor when requests
are served. On SIGTERM it takes no more connections, ends the watches, finishes what it is at and closes the store.

Only this process opens the database; a second one is refused by the file's lock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import random
import socket
import ssl
import sys
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import uvicorn
import uvloop
from cryptography import x509

from podwire.apiserver import aggregating, bootstrap, companions, expiry, keys, policy_status, range_objects
from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.answers import decode
from podwire.apiserver.api import Api
from podwire.apiserver.app import Application
from podwire.apiserver.auth.audit import Audit
from podwire.apiserver.auth.jwt import Key
from podwire.apiserver.config import ApiServerConfig, InvalidConfig, read
from podwire.apiserver.extension.serving import Definitions
from podwire.apiserver.kind import Kind
from podwire.apiserver.protocol import Protocol
from podwire.apiserver.registry import REGISTRY, Registry
from podwire.apiserver.streaming.upstream import Upstream
from podwire.daemon import memory
from podwire.daemon.notify import Notifier
from podwire.daemon.watchdog import Watchdog
from podwire.store import Change, LayoutMismatch, Store, StoreInUse

_LOG = logging.getLogger("podwire.apiserver")
_GRACE_S = 2
_FAREWELL_S = 0.1
_ALLOCATED = ("ServiceCIDR", "Service", "IPAddress", "Address")  # kinds that concern the allocator; the first says what there is
_BACKLOG = 1024
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which has no name in ssl


class _Server(uvicorn.Server):
    """uvicorn's server with our beginning and end: it says when it serves, and ends watches before it waits for requests."""

    def __init__(self, config: uvicorn.Config, api: Api, notifier: Notifier) -> None:
        super().__init__(config)
        self._api = api
        self._notifier = notifier

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._notifier.send(READY="1", STATUS="serving")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._notifier.send(STOPPING="1")
        self._api.close_streams()
        dropping = asyncio.create_task(self._drop_finished())
        try:
            await super().shutdown(sockets)
        finally:
            dropping.cancel()

    async def _drop_finished(self) -> None:
        """End connections that have nothing more to say and whose clients do not take leave of TLS: nobody waits for those."""
        finished: set[object] = set()
        while True:
            for connection in list(self.server_state.connections):
                if connection.cycle is None or connection.cycle.response_complete:  # type: ignore[union-attr]
                    if connection in finished:
                        connection.transport.abort()
                    finished.add(connection)
            await asyncio.sleep(_FAREWELL_S)


def tls_context(config: ApiServerConfig) -> ssl.SSLContext:
    """Make the server's side of TLS: its certificate; clients may have one, which is checked. Raises OSError, ssl.SSLError.

    A client certificate's time is not: ``app.py`` looks at it with each request, and answers where TLS could only hang up.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.certificate, config.key)
    context.load_verify_locations(config.client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= _NO_CHECK_TIME
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # no client here resumes sessions
    return context


def authority_until(config: ApiServerConfig) -> float:
    """Say when the authority of client certificates expires, in seconds since 1970. Raises OSError, InvalidConfig."""
    try:
        authorities = x509.load_pem_x509_certificates(Path(config.client_ca).read_bytes())
    except ValueError as error:
        raise InvalidConfig(f"{config.client_ca}: {error}") from error
    return min(authority.not_valid_after_utc.timestamp() for authority in authorities)


def open_api(config: ApiServerConfig) -> Api:
    """Open the store and set the allocator up from it. Raises LayoutMismatch, StoreInUse, sqlite3.Error."""
    store = Store.open(config.database)
    external = ip_network(config.external_range)
    ranges = Ranges(tuple(map(ip_network, config.service_ranges)), config.node_port_range, (external,), (external[1],))
    allocator = Allocator(ranges, random.SystemRandom())
    for kind in sorted((kind for kind in REGISTRY if kind.kind in _ALLOCATED), key=lambda kind: _ALLOCATED.index(kind.kind)):
        for record in store.range(keys.prefix(kind)):
            for problem in allocator.load(kind, decode(record.value)):
                _LOG.error("%s", problem)
        store.observe(kind.resource, partial(_follow, allocator, kind))
    key = Key.read(config.service_account_key) if config.service_account_key else Key.fresh()
    return Api(store, allocator, Registry(REGISTRY), token_key=key)


def _follow(allocator: Allocator, kind: Kind, change: Change) -> None:
    """An object was stored or is gone. What is stored of most kinds the allocator has given itself."""
    if change.record is None and change.previous is not None:
        allocator.follow(kind, decode(change.previous.value), None)
    elif change.record is not None and kind.kind == "ServiceCIDR":
        allocator.follow(kind, None, decode(change.record.value))


async def serve(config: ApiServerConfig, sockets: Sequence[socket.socket], notifier: Notifier) -> None:
    """Serve until SIGTERM or SIGINT. Raises what ``open_api``, ``tls_context`` and ``bootstrap.ensure`` raise."""
    api = open_api(config)
    try:
        await bootstrap.ensure(api, config)
        await bootstrap.ensure_policy(api)
        definitions = Definitions(api)
        audit = Audit(api.authorizer, config.audit_log, config.audit_level) if config.audit_log else None
        upstream = Upstream(config.kubelet_certificate, config.kubelet_key, config.client_ca)
        url = f"https://{config.control_address}:{config.control_port}"
        application = Application(api, config.version, url, audit=audit, upstream=upstream, authority_until=authority_until(config))
        settings = uvicorn.Config(
            application,
            http=Protocol,
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=180,
            timeout_graceful_shutdown=_GRACE_S,
        )
        settings.load()
        settings.ssl = tls_context(config)
        gc.collect()
        gc.freeze()  # what was read stays: the collector need not walk it
        tasks = [
            asyncio.create_task(task)
            for task in (
                Watchdog(_LOG).run(),
                bootstrap.keep(api, config),
                companions.keep(api),
                range_objects.keep(api),
                expiry.keep(api),
                aggregating.keep(api),
                definitions.run(),
                api.admission.quotas.run(),
                policy_status.Checks(api).run(),
            )
        ]
        try:
            await _Server(settings, api, notifier).serve(list(sockets))
        finally:
            for task in tasks:
                task.cancel()
            await api.calls.close()
            await upstream.close()
    finally:
        await api.store.close()


def main(arguments: list[str]) -> None:
    """Run ``podwire apiserver --config FILE --fd N [--fd M]``. Exits 1 with one line when it cannot begin."""
    parser = argparse.ArgumentParser(prog="podwire apiserver", description="Serve the Kubernetes API on given sockets.")
    parser.add_argument("--config", required=True, metavar="FILE", help="configuration, JSON")
    parser.add_argument("--fd", type=int, action="append", required=True, metavar="N", help="descriptor of a listening socket (repeatable)")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    gc.set_threshold(20_000, 20, 50)
    memory.keep_freed()
    try:
        config = read(parsed.config)
        sockets = [socket.socket(fileno=descriptor) for descriptor in parsed.fd]
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve(config, sockets, Notifier()))
    except (InvalidConfig, LayoutMismatch, StoreInUse, OSError) as error:
        sys.exit(f"podwire apiserver: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
