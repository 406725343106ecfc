"""Watches namespaces, their certificates, accounts and Secrets; makes what is missing, deletes tokens whose account is gone."""

from __future__ import annotations

from typing import Any

from podwire.client.errors import ApiError
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.core import ConfigMap, Namespace, Secret, ServiceAccount
from podwire.objects.resources import CONFIG_MAPS, NAMESPACES, SECRETS, SERVICE_ACCOUNTS
from podwire.workloads import work
from podwire.workloads.accounts import desired
from podwire.workloads.kinds import Tree


class Accounts:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._authority = context.client.configuration.authority
        self._namespaces = context.informer(NAMESPACES)
        self._accounts = context.informer(SERVICE_ACCOUNTS)
        self._certificates = context.informer(CONFIG_MAPS, fields=f"metadata.name={desired.ROOT_CERTIFICATES}")
        self._secrets = context.informer(SECRETS, fields=f"type={desired.TOKEN_TYPE}", indexes={"account": _account})
        self._namespace_work = work.reconciler(context, "accounts", self._namespace_round)
        self._token_work = work.reconciler(context, "tokens", self._token_round)
        self._namespaces.subscribe(self._namespace_changed)
        self._accounts.subscribe(self._account_changed)
        self._certificates.subscribe(self._certificates_changed)
        self._secrets.subscribe(self._secret_changed)

    async def start(self) -> None:
        informers: list[Informer[Any]] = [self._namespaces, self._accounts, self._certificates, self._secrets]
        await work.start(self._context, self._namespace_work, "accounts", informers)
        await work.start(self._context, self._token_work, "tokens", informers)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and old is None:
            self._namespace_work.mark(new.name)

    def _account_changed(self, old: ServiceAccount | None, new: ServiceAccount | None) -> None:
        value = new or old
        if value is not None:
            self._token_work.mark(value.key)
            if new is None and value.name == desired.DEFAULT:
                self._namespace_work.mark(value.namespace)

    def _certificates_changed(self, old: ConfigMap | None, new: ConfigMap | None) -> None:
        value = new or old
        if value is not None:
            self._namespace_work.mark(value.namespace)

    def _secret_changed(self, old: Secret | None, new: Secret | None) -> None:
        for value in (old, new):
            if value is not None:
                for key in _account(value):
                    self._token_work.mark(key)

    async def _namespace_round(self, name: str) -> None:
        namespace = self._namespaces.table.get(name)
        account = self._accounts.table.get(f"{name}/{desired.DEFAULT}")
        if namespace is not None and desired.needs_default(namespace, account):
            await self._made(SERVICE_ACCOUNTS, desired.default_account(name))
        found = self._certificates.table.get(f"{name}/{desired.ROOT_CERTIFICATES}")
        if namespace is not None and desired.needs_certificates(namespace, found, self._authority):
            await self._certified(name, found)

    async def _token_round(self, key: str) -> None:
        account = self._accounts.table.get(key)
        there = self._secrets.table.by("account", key)
        for secret in there:
            if account is None or not desired.belongs(secret, account):
                await self._deleted(secret)
        if account is None or account.metadata.deletion_timestamp is not None:
            return
        namespace = self._namespaces.table.get(account.namespace)
        if namespace is None or namespace.metadata.deletion_timestamp is not None:
            return
        for secret in there:
            if desired.belongs(secret, account) and not desired.is_complete(secret, account, self._authority):
                token = "" if secret.data.get("token") else await self._token(secret, account)
                patch = desired.completion(secret, account, token, self._authority)
                await self._client.patch(SECRETS, secret.name, secret.namespace, patch)

    async def _token(self, secret: Secret, account: ServiceAccount) -> str:
        request = desired.token_request(secret)
        made = await self._client.create_subresource(SERVICE_ACCOUNTS, account.name, account.namespace, "token", request)
        return str(made["status"]["token"])

    async def _made(self, resource: Any, tree: Tree) -> None:
        try:
            await self._client.create(resource, tree)
        except ApiError as error:
            if not error.already_exists:
                raise

    async def _certified(self, namespace: str, found: ConfigMap | None) -> None:
        tree = desired.certificates(namespace, self._authority)
        if found is None:
            await self._made(CONFIG_MAPS, tree)
        else:
            tree["metadata"]["resourceVersion"] = found.metadata.resource_version
            await self._client.update(CONFIG_MAPS, tree)

    async def _deleted(self, secret: Secret) -> None:
        try:
            await self._client.delete(SECRETS, secret.name, secret.namespace, uid=secret.metadata.uid)
        except ApiError as error:
            if not error.not_found:
                raise


def _account(secret: Secret) -> list[str]:
    name = secret.metadata.annotations.get(desired.ACCOUNT_NAME, "")
    return [f"{secret.namespace}/{name}"] if secret.type == desired.TOKEN_TYPE and name else []
