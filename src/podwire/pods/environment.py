"""What a container finds in its environment: variables, and its command with them filled in. Pure.

Order, later over earlier: the variables of Services, ``envFrom``, ``env``. ``$(NAME)`` refers to what came before it,
``$$(NAME)`` stands for itself, an unknown name is left as it is.

Sources: https://kubernetes.io/docs/tasks/inject-data-application/, .../concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from podwire.objects.core import ConfigMap, Container, EnvSourceReference, EnvVar, Pod, Secret, Service
from podwire.objects.volumes import ServiceAccountTokenProjection
from podwire.pods import downward

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class Unavailable(Exception):
    """Something that a container needs and that cannot be had now; the text says what, in the kubelet's words."""


@dataclass(frozen=True)
class Sources:
    """What variables and volumes may be taken from: by name, objects of the Pod's namespace; an absent one is not there.

    ``allocatable``: what the node has for Pods, by resource.
    """

    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    tokens: Mapping[ServiceAccountTokenProjection, str] = field(default_factory=dict)
    allocatable: downward.Amounts = field(default_factory=dict)


def references(container: Container) -> tuple[set[str], set[str]]:
    """The names of the ConfigMaps and of the Secrets that the container's variables are taken from."""
    config_maps = {source.config_map_ref.name for source in container.env_from if source.config_map_ref}
    secrets = {source.secret_ref.name for source in container.env_from if source.secret_ref}
    for variable in container.env:
        if variable.value_from is not None and variable.value_from.config_map_key_ref:
            config_maps.add(variable.value_from.config_map_key_ref.name)
        if variable.value_from is not None and variable.value_from.secret_key_ref:
            secrets.add(variable.value_from.secret_key_ref.name)
    return config_maps, secrets


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Fill in ``$(NAME)``."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        return variables.get(name, match[0])

    return _REFERENCE.sub(value, text)


def command(container: Container, variables: Mapping[str, str]) -> list[str]:
    """What to execute: command and args with their references filled in."""
    return [expand(word, variables) for word in (*container.command, *container.args)]


def service_variables(pod: Pod, services: Iterable[Service]) -> dict[str, str]:
    """``NAME_SERVICE_HOST`` and its kind, for ``kubernetes`` always and, with service links, for the Services of the namespace."""
    variables: dict[str, str] = {}
    for service in services:
        api = service.namespace == "default" and service.name == "kubernetes"
        linked = pod.spec.enable_service_links and service.namespace == pod.namespace
        if not (api or linked) or service.spec.cluster_ip in {"", "None"} or not service.spec.ports:
            continue
        variables |= _links(service)
    return variables


def _links(service: Service) -> dict[str, str]:
    prefix = service.name.upper().replace("-", "_")
    host, first = service.spec.cluster_ip, service.spec.ports[0]
    variables = {f"{prefix}_SERVICE_HOST": host, f"{prefix}_SERVICE_PORT": str(first.port)}
    for port in service.spec.ports:
        if port.name:
            variables[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    literal = f"[{host}]" if ":" in host else host
    variables[f"{prefix}_PORT"] = f"{first.protocol.lower()}://{literal}:{first.port}"
    for port in service.spec.ports:
        name = f"{prefix}_PORT_{port.port}_{port.protocol}"
        variables[name] = f"{port.protocol.lower()}://{literal}:{port.port}"
        variables |= {f"{name}_PROTO": port.protocol.lower(), f"{name}_PORT": str(port.port), f"{name}_ADDR": host}
    return variables


def variables_of(
    pod: Pod, container: Container, services: Iterable[Service], sources: Sources, field_value: Callable[[str], str | None]
) -> dict[str, str]:
    """All variables of a container. ``field_value`` gives what a ``fieldRef`` path stands for beyond the object (``status.podIP``).

    Raises:
        Unavailable: a ConfigMap, Secret or key that is not there and not optional, or a field that cannot be referred to.
    """
    variables = service_variables(pod, services)
    for source in container.env_from:
        data, found, what, optional = _bulk(source.config_map_ref, source.secret_ref, sources)
        if not found and not optional:
            raise Unavailable(f"{what} not found")
        variables |= {source.prefix + key: value for key, value in data.items() if _VARIABLE.fullmatch(source.prefix + key)}
    for variable in container.env:
        value = _value(pod, container, variable, sources, field_value, variables)
        if value is not None:
            variables[variable.name] = value
    return variables


def _bulk(
    config_map: EnvSourceReference | None, secret: EnvSourceReference | None, sources: Sources
) -> tuple[dict[str, str], bool, str, bool]:
    if config_map is not None:
        held = sources.config_maps.get(config_map.name)
        return dict(held.data) if held else {}, held is not None, f'configmap "{config_map.name}"', config_map.optional
    if secret is not None:
        kept = sources.secrets.get(secret.name)
        return _decoded(kept) if kept else {}, kept is not None, f'secret "{secret.name}"', secret.optional
    return {}, True, "", True


def _value(
    pod: Pod,
    container: Container,
    variable: EnvVar,
    sources: Sources,
    field_value: Callable[[str], str | None],
    before: Mapping[str, str],
) -> str | None:
    origin = variable.value_from
    if origin is None:
        return expand(variable.value, before)
    try:
        if origin.field_ref is not None:
            return downward.field(pod, origin.field_ref.field_path, field_value)
        if origin.resource_field_ref is not None:
            return downward.resource(pod, container, origin.resource_field_ref, sources.allocatable)
    except downward.NoSuchField as unknown:
        raise Unavailable(str(unknown)) from unknown
    if origin.config_map_key_ref is not None:
        wanted, kind = origin.config_map_key_ref, "configmap"
        held = sources.config_maps.get(wanted.name)
        data = None if held is None else held.data
    elif origin.secret_key_ref is not None:
        wanted, kind = origin.secret_key_ref, "secret"
        kept = sources.secrets.get(wanted.name)
        data = None if kept is None else _decoded(kept)
    else:
        return ""
    if data is not None and wanted.key in data:
        return data[wanted.key]
    if wanted.optional:
        return None
    if data is None:
        raise Unavailable(f'{kind} "{wanted.name}" not found')
    raise Unavailable(f"couldn't find key {wanted.key} in {kind} {pod.namespace}/{wanted.name}")


def _decoded(secret: Secret) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, text in secret.data.items():
        try:
            found[key] = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue  # not text: no variable can hold it
    return found
