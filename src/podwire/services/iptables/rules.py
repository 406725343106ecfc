"""The rules of one node in iptables' words, in the shape that kube-proxy made known: KUBE-SERVICES, KUBE-SVC-..., KUBE-SEP-...

What belongs here: from what Services ask for (desired.py) to chains and their lines, each exactly as ``iptables-save`` prints it. What must
not: running a program, knowing what is in a kernel (tables.py).

    nat     KUBE-SERVICES      a line for each address and port: to KUBE-SVC (all endpoints), KUBE-SVL (those here), KUBE-EXT, KUBE-FW
            KUBE-NODEPORTS     a line for each node port: to KUBE-EXT
            KUBE-EXT-...       how what comes from outside is treated: masqueraded, or under a Local policy not
            KUBE-FW-...        source ranges of a load balancer's address
            KUBE-SVC-..., KUBE-SVL-...   the choice of an endpoint, each with its probability
            KUBE-SEP-...       one endpoint: hairpin, affinity, DNAT
            KUBE-MARK-MASQ, KUBE-POSTROUTING   who is masqueraded
    filter  KUBE-SERVICES, KUBE-EXTERNAL-SERVICES   what has no endpoints, ports and addresses that no Service has
            KUBE-PROXY-FIREWALL, KUBE-FORWARD

Names of chains end in a hash of ``namespace/name:port``, protocol and, for an endpoint, its address: the same on every node.
Probabilities are written as the kernel keeps them, in 2^-31.

Pure. Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-mode-iptables; iptables-extensions(8).
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.layout import Family, merged, narrowed
from podwire.views.backends import Backend, Endpoints

NAT, FILTER = "nat", "filter"
MARK = "0x4000"
Chain = tuple[str, str]  # table, name
Lines = tuple[str, ...]

PREFIX = "KUBE-"
_OF_PORTS = tuple(f"{PREFIX}{kind}-" for kind in ("SVC", "SVL", "SEP", "EXT", "FW", "XLB"))  # the last as older ones wrote it
_CONSTANT = {
    NAT: ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-MARK-MASQ-OUTSIDE"),
    FILTER: ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL", "KUBE-FORWARD"),
}
_BUILT_IN: dict[Chain, Lines] = {
    (NAT, "PREROUTING"): ('-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',),
    (NAT, "OUTPUT"): ('-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',),
    (NAT, "POSTROUTING"): ('-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',),
    (FILTER, "INPUT"): (
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
    ),
    (FILTER, "FORWARD"): (
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
        '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
    ),
    (FILTER, "OUTPUT"): (
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
    ),
}
JUMPS: Mapping[Chain, Lines] = _BUILT_IN


def is_ours(chain: Chain) -> bool:
    """Say whether a chain is a service proxy's, by its name, which is the same whoever wrote it.

    Others have chains that begin so, too: a kubelet (KUBE-FIREWALL, KUBE-KUBELET-CANARY), network policies (KUBE-POD-FW-...).
    """
    table, name = chain
    return name in _CONSTANT.get(table, ()) or (table == NAT and name.startswith(_OF_PORTS))


def depth(chain: Chain) -> tuple[int, str]:
    """Order chains so that each comes after those that it leads to."""
    _, name = chain
    if name in ("KUBE-NODEPORTS", "KUBE-SERVICES"):
        return 5, name
    kind = name.removeprefix(PREFIX).partition("-")[0]
    return {"SEP": 1, "SVC": 2, "SVL": 2, "XLB": 3, "EXT": 3, "FW": 4}.get(kind, 0), name


Claim = tuple[str, str, int]  # address ("" for a node port), protocol in lower case, port


@dataclass
class PortChains:
    """One Service port: its own chains, and the lines of other chains, each under the address and port that it claims."""

    chains: dict[Chain, Lines] = field(default_factory=dict)
    services: dict[Claim, Lines] = field(default_factory=dict)  # nat KUBE-SERVICES
    node_ports: dict[Claim, Lines] = field(default_factory=dict)  # nat KUBE-NODEPORTS
    refused: dict[Claim, Lines] = field(default_factory=dict)  # filter KUBE-SERVICES: cluster addresses
    refused_outside: dict[Claim, Lines] = field(default_factory=dict)  # filter KUBE-EXTERNAL-SERVICES
    guarded: dict[Claim, Lines] = field(default_factory=dict)  # filter KUBE-PROXY-FIREWALL


def _hash(*words: str) -> str:
    return base64.b32encode(hashlib.sha256("".join(words).encode()).digest()).decode()[:16]


def port_name(service: ServiceProgram, port: PortProgram) -> str:
    """Give ``namespace/name:port``, or ``namespace/name`` for a port without a name."""
    return f"{service.key}:{port.name}" if port.name else service.key


@functools.lru_cache(maxsize=1 << 14)
def chain_name(kind: str, port: str, protocol: str, endpoint: str = "") -> str:
    """Give the name of a chain: ``kind`` is SVC, SVL, EXT, FW or SEP."""
    return f"{PREFIX}{kind}-{_hash(port, protocol.lower(), endpoint)}"


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def _probability(count: int) -> str:
    return f"{round(2**31 / count) / 2**31:.11f}"


def _within(option: str, network: str) -> str:
    """Match a range. That of all addresses is not printed."""
    return "" if network.endswith("/0") else f"{option} {network} "


def _host(address: str) -> str:
    return f"{address}/128" if ":" in address else f"{address}/32"


class Rules:
    """Lines for one family and node. All ranges are of any family, those of this one are taken."""

    def __init__(
        self,
        family: Family,
        pod_ranges: Iterable[str],
        service_ranges: Iterable[str],
        node_port_ranges: Iterable[str] = (),
        *,
        node: str = "",
        masquerade_all: bool = False,
        mark: str = MARK,
    ) -> None:
        self.family, self._node, self._mark, self._masquerade_all = family, node, mark, masquerade_all
        self._pods, self._services = self._mine(pod_ranges), self._mine(service_ranges)
        self._node_port_ranges = narrowed(family, node_port_ranges)

    def _mine(self, ranges: Iterable[str]) -> tuple[str, ...]:
        return merged(self.family, ranges)

    # One Service port ----------------------------------------------------------------------------------------------------

    def port(self, service: ServiceProgram, port: PortProgram) -> PortChains:
        """Give all lines of one port of a Service."""
        found = PortChains()
        name, protocol = port_name(service, port), port.protocol.lower()
        cluster = self._choice(service, port, "SVC", port.cluster, found)
        here = port.internal if port.internal is not None else port.external
        local = self._choice(service, port, "SVL", here, found) if here is not None else ""
        if cluster:
            masquerade = [
                f"-d {_host(ip)} -p {protocol} {_comment(f'{name} cluster IP')} -m {protocol} --dport {port.port} -j KUBE-MARK-MASQ"
                for ip in service.cluster_ips
            ]
            for chain in {cluster, local} if self._masquerade_all and port.internal is not None and local else {cluster}:
                found.chains[NAT, chain] = (*self._from_outside(masquerade), *found.chains[NAT, chain])
        inside = cluster if port.internal is None else local
        for ip in service.cluster_ips:
            self._lead(found, (ip, protocol, port.port), f"{name} cluster IP", inside)
            if not inside:
                self._refuse(found.refused, (ip, protocol, port.port), name, port.internal, cluster)
        if service.external_ips or port.node_port:
            self._outside(service, port, cluster, local if port.external is not None else "", found)
        return found

    def _choice(self, service: ServiceProgram, port: PortProgram, kind: str, backends: Endpoints, found: PortChains) -> str:
        """Add a chain that chooses one of the endpoints; "" if there is none."""
        if not backends:
            return ""
        name = port_name(service, port)
        chain = chain_name(kind, name, port.protocol)
        kept, chosen = [], []
        for place, backend in enumerate(backends):
            endpoint = self._endpoint(service, port, backend, found)
            words = _comment(f"{name} -> {_socket(backend)}")
            if service.affinity_s:
                recent = f"-m recent --rcheck --seconds {service.affinity_s} --reap --name {endpoint} --mask {self._mask} --rsource"
                kept.append(f"{words} {recent} -j {endpoint}")
            left = len(backends) - place
            share = f" -m statistic --mode random --probability {_probability(left)}" if left > 1 else ""
            chosen.append(f"{words}{share} -j {endpoint}")
        found.chains[NAT, chain] = (*kept, *chosen)
        return chain

    @property
    def _mask(self) -> str:
        return "255.255.255.255" if self.family.number == 4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

    def _endpoint(self, service: ServiceProgram, port: PortProgram, backend: Backend, found: PortChains) -> str:
        name, protocol, target = port_name(service, port), port.protocol.lower(), _socket(backend)
        chain = chain_name("SEP", name, port.protocol, target)
        recent = f"-m recent --set --name {chain} --mask {self._mask} --rsource " if service.affinity_s else ""
        words = _comment(name)
        found.chains[NAT, chain] = (
            f"-s {_host(backend.address)} {words} -j KUBE-MARK-MASQ",
            *self._answered(service, port, backend),
            f"-p {protocol} {words} {recent}-m {protocol} -j DNAT --to-destination {target}",
        )
        return chain

    def _answered(self, service: ServiceProgram, port: PortProgram, backend: Backend) -> Iterator[str]:
        """Masquerade a Pod that a Local policy let through by a node port to an endpoint of another node: if it is of another node itself,
        it would be answered past us. By other addresses none of another node comes, as each node translates for its own.

        kube-proxy does not: in KUBE-EXT, before an endpoint is chosen, it takes every Pod for one of its node's.
        """
        if port.external is None or not port.node_port or backend.node == self._node:
            return
        words = _comment(f"masquerade pod traffic for {port_name(service, port)} external destinations")
        alike = (*service.cluster_ips, *service.external_ips) if port.port == port.node_port else ()
        used = f"-m conntrack --ctorigdstport {port.node_port} " + "".join(f"-m conntrack ! --ctorigdst {ip} " for ip in alike)
        for pods in self._pods:
            yield f"{_within('-s', pods)}{words} {used}-j KUBE-MARK-MASQ"

    def _from_outside(self, lines: list[str]) -> list[str]:
        """Narrow lines to packets that no Pod sent; to none, if it is not known who is one, or everybody is."""
        if self._masquerade_all:
            return lines
        if not self._pods or any(one.endswith("/0") for one in self._pods):
            return []
        if len(self._pods) == 1:
            return [f"! -s {self._pods[0]} {line}" for line in lines]
        return [line.replace("-j KUBE-MARK-MASQ", "-j KUBE-MARK-MASQ-OUTSIDE") for line in lines]

    def _outside(self, service: ServiceProgram, port: PortProgram, cluster: str, local: str, found: PortChains) -> None:
        """Add what is reached from outside: external addresses, load balancers, node ports."""
        name, protocol = port_name(service, port), port.protocol.lower()
        chain = chain_name("EXT", name, port.protocol)
        if cluster:
            found.chains[NAT, chain] = self._external(name, cluster, local, is_local=port.external is not None)
        guard = chain_name("FW", name, port.protocol) if service.source_ranges is not None else ""
        if guard and cluster:
            words = _comment(f"{name} loadbalancer IP")
            found.chains[NAT, guard] = tuple(f"{one}{words} -j {chain}" for one in self._allowed(service))
        for ip in service.external_ips:
            is_vip = ip in service.vips
            claim = (ip, protocol, port.port)
            kind = "loadbalancer IP" if is_vip else "external IP"
            everybody = port.external is None or bool(local)
            self._lead(found, claim, f"{name} {kind}", (guard if guard and is_vip else chain) if cluster else "")
            if (guard and is_vip) or not cluster or not everybody:
                found.services[claim] += (self._settled(claim, name),)
            found.refused_outside[claim] = reached = self._reached(claim, name, port, everybody=everybody)
            if is_vip and guard:
                found.guarded[claim] = tuple(self._guards(name, guard, claim, service, unchanged=not cluster or bool(reached)))
            if not cluster or not everybody:
                self._refuse(found.refused_outside, claim, name, port.external, cluster)
        if port.node_port:
            claim = ("", protocol, port.node_port)
            if cluster:
                found.node_ports[claim] = (f"-p {protocol} {_comment(name)} -m {protocol} --dport {port.node_port} -j {chain}",)
            if not cluster or (port.external is not None and not local):
                found.refused_outside[claim] = self._reached(claim, name, port, everybody=False)
                self._refuse(found.refused_outside, claim, name, port.external, cluster)

    def _reached(self, claim: Claim, name: str, port: PortProgram, *, everybody: bool) -> Lines:
        """Let through what was led to an endpoint that is the very address and port: it looks like what was not. Few Services have one.

        Unless ``everybody`` was, Pods and the node itself were: a Local policy is for clients outside.
        """
        ip, protocol, number = claim
        found = []
        for one in (*port.cluster, *(port.external or ())):
            if one.port != number or (ip and one.address != ip):
                continue
            to = f"-d {_host(one.address)} -p {protocol} {_comment(f'{name} is its own endpoint')}"
            match = f"-m {protocol} --dport {number} -j RETURN"
            if everybody:
                found.append(f"{to} {match}")
            else:
                found += [f"{_within('-s', pods)}{to} {match}" for pods in self._pods]
                found.append(f"{to} -m addrtype --src-type LOCAL {match}")
        return tuple(dict.fromkeys(found))

    def _allowed(self, service: ServiceProgram) -> list[str]:
        """Give the matches of the sources that may come to a guarded load balancer's address."""
        own = service.vips if service.node_may_come else ()
        return [*(_within("-s", one) for one in self._mine(service.source_ranges or ())), *(f"-s {_host(vip)} " for vip in own)]

    def _guards(self, name: str, guard: str, claim: Claim, service: ServiceProgram, *, unchanged: bool) -> Iterator[str]:
        """What may not come is dropped. What may has another destination by now; where it is ``unchanged``, as what is refused since there
        is no endpoint, it is let through."""
        ip, protocol, port = claim
        to = f"-d {_host(ip)} -p {protocol}"
        if unchanged:
            for one in self._allowed(service):
                yield f"{one}{to} {_comment(f'{name} loadbalancer IP')} -m {protocol} --dport {port} -j RETURN"
        yield f"{to} {_comment(f'{name} traffic not accepted by {guard}')} -m {protocol} --dport {port} -j DROP"

    def _external(self, name: str, cluster: str, local: str, *, is_local: bool) -> Lines:
        if not is_local:
            return (f"{_comment(f'masquerade traffic for {name} external destinations')} -j KUBE-MARK-MASQ", f"-j {cluster}")
        words = f"LOCAL traffic for {name} external destinations"
        return (
            *(f"{_within('-s', one)}{_comment(f'pod traffic for {name} external destinations')} -j {cluster}" for one in self._pods),
            f"{_comment('masquerade ' + words)} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ",
            f"{_comment('route ' + words)} -m addrtype --src-type LOCAL -j {cluster}",
            *([f"-j {local}"] if local else []),
        )

    @staticmethod
    def _lead(found: PortChains, claim: tuple[str, str, int], words: str, chain: str) -> None:
        ip, protocol, port = claim
        line = f"-d {_host(ip)} -p {protocol} {_comment(words)} -m {protocol} --dport {port} -j {chain}"
        found.services[claim] = (line,) if chain else ()

    @staticmethod
    def _settled(claim: Claim, name: str) -> str:
        """What this port of an address does not lead to an endpoint is refused or dropped; an equal node port has no part in it."""
        ip, protocol, port = claim
        return f"-d {_host(ip)} -p {protocol} {_comment(f'{name} is no node port here')} -m {protocol} --dport {port} -j RETURN"

    def _refuse(self, where: dict[Claim, Lines], claim: Claim, name: str, local: Endpoints | None, cluster: str) -> None:
        """Without any endpoint a client is told so; without one here, under a Local policy, it is not."""
        ip, protocol, port = claim
        dropped = bool(cluster) and local is not None
        words = _comment(f"{name} has no {'local endpoints' if dropped else 'endpoints'}")
        target = "DROP" if dropped else reject(protocol, self.family.number)
        if ip:
            lines = [f"-d {_host(ip)} -p {protocol} {words} -m {protocol} --dport {port} -j {target}"]
        else:
            match = f"-m addrtype --dst-type LOCAL -m {protocol} --dport {port}"
            lines = [f"{to} -p {protocol} {words} {match} -j {target}" for to in self._on_node()]
        where[claim] = (*where.get(claim, ()), *lines)

    def _on_node(self) -> list[str]:
        """Give the matches of the destinations on which node ports are served, beside that they are addresses of the node."""
        if self._node_port_ranges is None:
            return [f"! -d {'127.0.0.0/8' if self.family.number == 4 else '::1/128'}"]
        return [f"-d {one}" for one in self._node_port_ranges]

    # The whole -----------------------------------------------------------------------------------------------------------

    def constant(self) -> dict[Chain, Lines]:
        """Give the chains that no Service changes."""
        accept = _comment("kubernetes forwarding rules")
        found: dict[Chain, Lines] = {
            (NAT, "KUBE-MARK-MASQ"): (f"-j MARK --set-xmark {self._mark}/{self._mark}",),
            (NAT, "KUBE-POSTROUTING"): (
                f"-m mark ! --mark {self._mark}/{self._mark} -j RETURN",
                f"-j MARK --set-xmark {self._mark}/0x0",
                f"{_comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully",
            ),
            (FILTER, "KUBE-FORWARD"): (
                f"{accept} -m mark --mark {self._mark}/{self._mark} -j ACCEPT",
                f"{accept} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ),
        }
        if len(self._pods) > 1:
            found[NAT, "KUBE-MARK-MASQ-OUTSIDE"] = (*(f"-s {one} -j RETURN" for one in self._pods), "-j KUBE-MARK-MASQ")
        return found

    def dispatch(self, ports: Mapping[str, tuple[ServiceProgram, tuple[PortChains, ...]]]) -> dict[Chain, Lines]:
        """Give the chains that lead to those of the Services. Of those who claim an address and port, the first has it: a cluster
        address is its own Service's, of others the oldest Service has it, and of two ports of one Service the first. Lines for addresses
        come before those for node ports."""
        order = sorted(ports.values(), key=lambda one: (one[0].created, one[0].key))
        owners: dict[Claim, PortChains] = {}
        for own in (True, False):
            for service, chains in order:
                for port in chains:
                    for claim in (*port.services, *port.node_ports, *port.refused_outside):
                        if (claim[0] in service.cluster_ips) is own:
                            owners.setdefault(claim, port)

        def lines(field: str) -> list[str]:
            return [
                line
                for on_node in (False, True)
                for _, chains in order
                for port in chains
                for claim, those in getattr(port, field).items()
                if owners.get(claim) is port and (not claim[0]) is on_node
                for line in those
            ]

        words = _comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain")
        last = [f"{to} {words} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS" for to in self._on_node()]
        undefined = [
            f"-d {_host(ip)} {match}{_comment(f'{service.key} has no such port')} -j {reject(protocol, self.family.number)}"
            for service, _ in order
            for ip in service.cluster_ips
            for protocol, match in (("tcp", "-p tcp "), ("", ""))
        ]
        nobody = [f"{_within('-d', one)}{_comment('no Service has this address')} -j DROP" for one in self._services]
        return {
            (NAT, "KUBE-SERVICES"): (*lines("services"), *last),
            (NAT, "KUBE-NODEPORTS"): tuple(lines("node_ports")),
            (FILTER, "KUBE-SERVICES"): (*lines("refused"), *undefined, *nobody),
            (FILTER, "KUBE-EXTERNAL-SERVICES"): tuple(lines("refused_outside")),
            (FILTER, "KUBE-PROXY-FIREWALL"): tuple(lines("guarded")),
        }


def reject(protocol: str, family: int) -> str:
    """Give the target that refuses: a reset for TCP, else port unreachable."""
    if protocol == "tcp":
        return "REJECT --reject-with tcp-reset"
    return f"REJECT --reject-with {'icmp-port-unreachable' if family == 4 else 'icmp6-port-unreachable'}"


def _socket(backend: Backend) -> str:
    return f"[{backend.address}]:{backend.port}" if ":" in backend.address else f"{backend.address}:{backend.port}"
