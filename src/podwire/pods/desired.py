"""What a Pod is on its node, from its object, the Services that select it, and the node. Pure.

Here: which program plays a container, on which ports stand-ins listen, a Pod's names and the files that resolve names in it.
Not here: addresses (``addresses``), wires (``wiring``), status (``status``), what containers find in their environment
(``environment``).

Sources: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/, .../concepts/workloads/pods/init-containers/
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from podwire.objects.core import Container, ContainerPort, Pod, Probe, Service
from podwire.objects.meta import selects
from podwire.pods.standins import personalities
from podwire.pods.standins.directions import Directions
from podwire.pods.standins.messages import Character, Port, Role

MACHINE_IMAGE = "podwire.dev/machine"
HOSTNAME_LIMIT = 63
KERNEL_LIMIT = 64
"""Characters of a name that the kernel keeps (HOST_NAME_MAX)."""
NAMESERVERS, SEARCHES, SEARCH_LENGTH = 3, 32, 2048
"""What of a resolv.conf resolvers read, and the kubelet writes."""


class NameTooLong(ValueError):
    """A Pod's name that the kernel would cut; the text is the kubelet's."""


@dataclass(frozen=True)
class NodeFacts:
    """What Pods must know of the node that they are on. ``ips``: one for each family; ``resolv_conf`` is the node's own file."""

    name: str
    ips: tuple[str, ...] = ()
    zone: str = ""
    cluster: str = ""
    cluster_domain: str = "cluster.local"
    cluster_dns: tuple[str, ...] = ()
    resolv_conf: str = ""

    @property
    def ip(self) -> str:
        """The node's address of the primary family; "" before it has one."""
        return self.ips[0] if self.ips else ""


class Player(enum.Enum):
    """Who plays a container. The image decides alone."""

    MACHINE = "machine"
    IMAGE = "image"
    STAND_IN = "stand-in"


def player(container: Container, images: Collection[str] = ()) -> Player:
    """The image ``podwire.dev/machine``, with any tag or digest, is a program of the machine; the containers named by ``images`` are run
    from theirs, which is in the store; every other one is stood in for.
    """
    if container.name in images:
        return Player.IMAGE
    rest = container.image.removeprefix(MACHINE_IMAGE)
    is_machine = container.image.startswith(MACHINE_IMAGE) and (not rest or rest[0] in ":@")
    return Player.MACHINE if is_machine else Player.STAND_IN


def is_sidecar(container: Container) -> bool:
    """An init container that goes on running beside the others."""
    return container.restart_policy == "Always"


def runs_again(pod: Pod, container: Container, exit_code: int) -> bool:
    """Whether a container is started again after it ended so: by its first rule that says so, its own policy, or the Pod's."""
    for rule in container.restart_policy_rules:
        if rule.action == "Restart" and rule.exit_codes is not None:
            found = exit_code in rule.exit_codes.values
            if found == (rule.exit_codes.operator == "In"):
                return True
    policy = container.restart_policy or pod.spec.restart_policy
    if container in pod.spec.ephemeral_containers:
        policy = "Never"
    elif container in pod.spec.init_containers and not is_sidecar(container) and policy == "Always":
        policy = "OnFailure"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


# Ports -----------------------------------------------------------------------------------------------------------------


def resolve_port(port: int | str, container: Container) -> int | None:
    """The number of a port of that container; None for a name that it does not declare, or a number out of range."""
    if isinstance(port, str):
        if not port.isdigit():
            return next((declared.container_port for declared in container.ports if declared.name == port), None)
        port = int(port)
    return port if 0 < port < 65536 else None


def standin_ports(pod: Pod, services: Iterable[Service], down: Collection[str] = (), images: Collection[str] = ()) -> tuple[Port, ...]:
    """Where the Pod's stand-ins listen: declared ports, the ports of their probes, their personalities' own, and the target ports of
    Services that select it. Containers that are ``down`` listen nowhere.

    A target port that no container declares goes to the first container, unless a program of the machine is in the Pod: then
    it may be that program's; and unless no container of it listens elsewhere than its personality says.
    """
    running = [container for container in pod.spec.init_containers if is_sidecar(container)] + list(pod.spec.containers)
    standins = [container for container in running if player(container, images) is Player.STAND_IN]
    up = [container for container in standins if container.name not in down]
    if not up:
        return ()
    found: dict[tuple[str, int], str] = {}
    for container in up:
        for protocol, number in _own_ports(container):
            found.setdefault((protocol, number), container.name)
    for container in up:
        for protocol, number in _usual_ports(container):
            found.setdefault((protocol, number), container.name)
    loose = next((container.name for container in up if not _is_exact(container)), "")
    declared = [(port, container) for container in running for port in container.ports]
    mixed = len(standins) < len(running)
    for service in services:
        if not selects(service.spec.selector, pod.metadata.labels) or service.namespace != pod.namespace:
            continue
        for wanted in service.spec.ports:
            target = wanted.target_port or wanted.port
            key = _target(target, wanted.protocol, declared)
            if key is not None and loose and not mixed:
                found.setdefault(key, loose if _kind(loose, up) else "")
    return tuple(Port(protocol, number, name) for (protocol, number), name in sorted(found.items()))


def _words(container: Container) -> tuple[str, ...]:
    return personalities.program(personalities.kind_of(container.image), container.command, container.args)


def _is_exact(container: Container) -> bool:
    return personalities.is_exact(personalities.kind_of(container.image), _words(container))


def _kind(name: str, containers: Iterable[Container]) -> str:
    return next(personalities.kind_of(container.image) for container in containers if container.name == name)


def _values(container: Container) -> dict[str, str]:
    """The variables whose values the manifest says."""
    return {variable.name: variable.value for variable in container.env if variable.value_from is None}


def _usual_ports(container: Container) -> tuple[tuple[str, int], ...]:
    return personalities.ports(personalities.kind_of(container.image), _words(container), _values(container))


def _own_ports(container: Container) -> Iterator[tuple[str, int]]:
    if _is_exact(container):
        return
    for port in container.ports:
        yield port.protocol, port.container_port
    for probe in (container.startup_probe, container.readiness_probe, container.liveness_probe):
        number = _probe_port(probe, container) if probe is not None else None
        if number is not None:
            yield "TCP", number


def _probe_port(probe: Probe, container: Container) -> int | None:
    """The port on the Pod that a probe goes to; None where it goes elsewhere or nowhere."""
    for action in (probe.http_get, probe.tcp_socket):
        if action is not None:
            return None if action.host else resolve_port(action.port, container)
    return probe.grpc.port if probe.grpc is not None else None


def _target(target: int | str, protocol: str, declared: list[tuple[ContainerPort, Container]]) -> tuple[str, int] | None:
    if isinstance(target, str) and not target.isdigit():
        names = (port.container_port for port, _ in declared if port.name == target and port.protocol == protocol)
        number = next(names, None)
        return None if number is None else (protocol, number)
    return protocol, int(target)


def ending(pod: Pod, container: Container, directions: Directions) -> tuple[int, float] | None:
    """The exit status of a stand-in that ends by itself, and the seconds that it runs; None for one that runs until it is ended.

    An init container has done at once, and so has one that need not run for ever (``restartPolicy``), has no port and nothing to wait with.
    """
    status, run_for = directions.exit_code(container.name), directions.run_for(container.name)
    if run_for is not None:
        return status, run_for
    if is_sidecar(container):
        return None
    if container in pod.spec.init_containers:
        return status, 0.0
    if pod.spec.restart_policy not in {"Never", "OnFailure"}:
        return None
    words = _words(container)
    seconds = personalities.sleeps(words)
    if seconds is not None:
        return status, seconds
    stays = container.stdin or container.tty or personalities.waits(personalities.kind_of(container.image), words)
    listens = bool(_usual_ports(container)) or next(_own_ports(container), None) is not None
    return None if stays or listens else (status, 0.0)


def character(container: Container, run: int) -> Character | None:
    """How a container is played that has a personality; ``run`` counts its restarts."""
    kind = personalities.kind_of(container.image)
    if not kind or player(container) is Player.MACHINE:
        return None
    tag = container.image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    return Character(container.name, kind, tag, run, _words(container), _values(container))


def role(
    pod: Pod,
    facts: NodeFacts,
    ip: str,
    told: Mapping[str, str] | None = None,
    runs: Mapping[str, int] | None = None,
    logs: str = "",
    images: Collection[str] = (),
) -> Role:
    """Whom the stand-ins say they are, and how they behave.

    ``told``: what annotations tell; ``runs``: restarts by container; ``logs``: the folder of the node's Pods.
    """
    containers = [*(one for one in pod.spec.init_containers if is_sidecar(one)), *pod.spec.containers]
    found = [character(container, (runs or {}).get(container.name, 0)) for container in containers if container.name not in images]
    characters = tuple(one for one in found if one is not None)
    calls = any(one.kind in personalities.CALLING for one in characters)
    return Role(
        uid=pod.metadata.uid,
        name=pod.name,
        namespace=pod.namespace,
        ip=ip,
        node=facts.name,
        zone=facts.zone,
        service_account=pod.spec.service_account_name or "default",
        cluster=facts.cluster,
        hostname=kernel_hostname(pod, facts),
        characters=characters,
        told=dict(told or {}),
        logs=logs,
        runs={name: count for name, count in (runs or {}).items() if count},
        resolv_conf=resolv_conf(pod, facts) if calls else "",
        hosts=hosts(pod, facts, [ip]) if calls else "",
    )


# Names -----------------------------------------------------------------------------------------------------------------


def hostname(pod: Pod) -> str:
    """What ``hostname`` prints in the Pod: ``spec.hostname`` or the Pod's name, cut to 63 characters."""
    return (pod.spec.hostname or pod.name)[:HOSTNAME_LIMIT].rstrip("-.")


def full_name(pod: Pod, facts: NodeFacts) -> str:
    """The Pod's fully qualified name, which it has only with a subdomain; else empty."""
    if not pod.spec.subdomain:
        return ""
    return f"{hostname(pod)}.{pod.spec.subdomain}.{pod.namespace}.svc.{facts.cluster_domain}"


def kernel_hostname(pod: Pod, facts: NodeFacts) -> str:
    """The name that the kernel has for the Pod: the node's for one in its network. Raises NameTooLong."""
    if pod.spec.host_network:
        return facts.name
    if pod.spec.hostname_override:
        return pod.spec.hostname_override
    name = (full_name(pod, facts) if pod.spec.set_hostname_as_fqdn else "") or hostname(pod)
    if len(name) > KERNEL_LIMIT:
        words = f"FQDN {name} is too long ({KERNEL_LIMIT} is the max, {len(name)} characters requested)"
        raise NameTooLong(f"Failed to construct FQDN from pod hostname and cluster domain, {words}")
    return name


def resolv_conf(pod: Pod, facts: NodeFacts) -> str:
    """The Pod's /etc/resolv.conf, by its dnsPolicy and dnsConfig."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    nameservers: list[str] = []
    searches: list[str] = []
    options: dict[str, str | None] = {}
    if policy in {"ClusterFirst", "ClusterFirstWithHostNet"} and facts.cluster_dns:
        domain = facts.cluster_domain
        nameservers = list(facts.cluster_dns)
        searches = [f"{pod.namespace}.svc.{domain}", f"svc.{domain}", domain]
        options = {"ndots": "5"}
    elif policy != "None":
        nameservers, searches, options = _parsed(facts.resolv_conf)
    extra = pod.spec.dns_config
    if extra is not None:
        nameservers += extra.nameservers
        searches += extra.searches
        options |= {option.name: option.value for option in extra.options}
    lines = [f"nameserver {address}" for address in list(dict.fromkeys(nameservers))[:NAMESERVERS]]
    if search := _fitting(list(dict.fromkeys(searches))[:SEARCHES]):
        lines.insert(0, "search " + search)
    if options:
        lines.append("options " + " ".join(name if value is None else f"{name}:{value}" for name, value in options.items()))
    return "".join(line + "\n" for line in lines)


def _fitting(searches: list[str]) -> str:
    while len(" ".join(searches)) > SEARCH_LENGTH:
        searches.pop()
    return " ".join(searches)


def _parsed(text: str) -> tuple[list[str], list[str], dict[str, str | None]]:
    nameservers: list[str] = []
    searches: list[str] = []
    options: dict[str, str | None] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        match words:
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["search" | "domain", *domains]:
                searches = domains
            case ["options", *given]:
                for option in given:
                    name, colon, value = option.partition(":")
                    options[name] = value if colon else None
    return nameservers, searches, options


def hosts(pod: Pod, facts: NodeFacts, ips: Iterable[str]) -> str:
    """The Pod's /etc/hosts."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    names = [name for name in (full_name(pod, facts), hostname(pod)) if name]
    if pod.spec.host_network:
        names = [facts.name]
    lines += ["\t".join([ip, *names]) for ip in ips]
    if pod.spec.host_aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias.ip, *alias.hostnames]) for alias in pod.spec.host_aliases]
    return "\n".join(lines) + "\n"
