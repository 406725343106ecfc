"""service-upstream: kube-proxy's layouts of v1.35 and v1.37, loaded and updated with ``nft -f`` as kube-proxy does, beside ours.

The layouts are generated here from what is published about them: one table, verdict maps from address and port to a chain per Service
port. Up to v1.35 that chain chooses among a chain for every endpoint, which marks hairpin traffic and translates; since v1.36 it translates
by one anonymous map from a random number, and hairpins are a set. ``ratio_v135``, ``ratio_v137``: how many times longer they take than
ours to load 2,000 Services of 10 endpoints, in the same run; ``update_v13x_ms``: one endpoint of one Service changes. Proof: what the
kernel lists.

Sources: https://kubernetes.io/blog/2025/02/28/nftables-kube-proxy/,
https://github.com/kubernetes/enhancements/tree/master/keps/sig-network/3866-nftables-proxy
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator

from bench.isolated import in_child
from bench.report import Limit, Report, median
from bench.service_objects import cluster_ip, endpoints, piece, pod_ip
from bench.service_sync import direct, load

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SERVICES, COUNT, UPDATES = 2_000, 10, 20
SPARE = 2_000_000

_BASE = """\
add table ip kube-proxy
add set ip kube-proxy cluster-ips {{ type ipv4_addr ; }}
add set ip kube-proxy nodeport-ips {{ type ipv4_addr ; }}
add map ip kube-proxy service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map ip kube-proxy service-nodeports {{ type inet_proto . inet_service : verdict ; }}
add map ip kube-proxy no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map ip kube-proxy no-endpoint-nodeports {{ type inet_proto . inet_service : verdict ; }}
add map ip kube-proxy firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
{hairpins}
add chain ip kube-proxy mark-for-masquerade
add rule ip kube-proxy mark-for-masquerade meta mark set meta mark or 0x4000
add chain ip kube-proxy masquerading
add rule ip kube-proxy masquerading meta mark and 0x4000 == 0 return
add rule ip kube-proxy masquerading meta mark set meta mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add chain ip kube-proxy reject-chain
add rule ip kube-proxy reject-chain reject
add chain ip kube-proxy services
add chain ip kube-proxy cluster-ips-check
add chain ip kube-proxy service-endpoints-check
add chain ip kube-proxy nodeport-endpoints-check
add chain ip kube-proxy firewall-check
add chain ip kube-proxy filter-prerouting {{ type filter hook prerouting priority -110 ; }}
add chain ip kube-proxy filter-input {{ type filter hook input priority -110 ; }}
add chain ip kube-proxy filter-forward {{ type filter hook forward priority -110 ; }}
add chain ip kube-proxy filter-output {{ type filter hook output priority -110 ; }}
add chain ip kube-proxy filter-output-post-dnat {{ type filter hook output priority -90 ; }}
add chain ip kube-proxy nat-prerouting {{ type nat hook prerouting priority -100 ; }}
add chain ip kube-proxy nat-output {{ type nat hook output priority -100 ; }}
add chain ip kube-proxy nat-postrouting {{ type nat hook postrouting priority 100 ; }}
add rule ip kube-proxy filter-prerouting ct state new jump firewall-check
add rule ip kube-proxy filter-input ct state new jump nodeport-endpoints-check
add rule ip kube-proxy filter-input ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output ct state new jump firewall-check
add rule ip kube-proxy filter-output-post-dnat ct state new jump cluster-ips-check
add rule ip kube-proxy nat-prerouting jump services
add rule ip kube-proxy nat-output jump services
add rule ip kube-proxy nat-postrouting jump masquerading
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject
add rule ip kube-proxy cluster-ips-check ip daddr 10.32.0.0/14 drop
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add rule ip kube-proxy nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add rule ip kube-proxy firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips
"""


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8].upper()


def _service_chain(number: int) -> str:
    name = f"bench/service-{number}/tcp/http"
    return f"service-{_hashed(name)}-{name}"


def _endpoint_chain(number: int, address: str) -> str:
    name = f"bench/service-{number}/tcp/http__{address}/8080"
    return f"endpoint-{_hashed(name)}-{name}"


def _masquerade(number: int) -> str:
    return f"ip daddr {cluster_ip(number)} tcp dport 80 ip saddr != 10.64.0.0/10 jump mark-for-masquerade"


def rules_v135(number: int, addresses: list[str], *, fresh: bool, gone: tuple[str, ...] = ()) -> Iterator[str]:
    """The service's chain and a chain for every endpoint. ``gone``: endpoints whose chains are emptied."""
    chain = _service_chain(number)
    for address in addresses if fresh else addresses[-1:]:
        own = _endpoint_chain(number, address)
        yield f"add chain ip kube-proxy {own}"
        yield f"flush chain ip kube-proxy {own}"
        yield f"add rule ip kube-proxy {own} ip saddr {address} jump mark-for-masquerade"
        yield f"add rule ip kube-proxy {own} meta l4proto tcp dnat to {address}:8080"
    yield f"add chain ip kube-proxy {chain}"
    yield f"flush chain ip kube-proxy {chain}"
    yield f"add rule ip kube-proxy {chain} {_masquerade(number)}"
    choices = " , ".join(f"{slot} : goto {_endpoint_chain(number, address)}" for slot, address in enumerate(addresses))
    yield f"add rule ip kube-proxy {chain} numgen random mod {len(addresses)} vmap {{ {choices} }}"
    for address in gone:
        yield f"flush chain ip kube-proxy {_endpoint_chain(number, address)}"


def rules_v137(number: int, addresses: list[str], *, fresh: bool, gone: tuple[str, ...] = ()) -> Iterator[str]:
    """The service's chain, which translates by an anonymous map; hairpins in a set."""
    chain = _service_chain(number)
    yield f"add chain ip kube-proxy {chain}"
    yield f"flush chain ip kube-proxy {chain}"
    yield f"add rule ip kube-proxy {chain} {_masquerade(number)}"
    choices = " , ".join(f"{slot} : {address} . 8080" for slot, address in enumerate(addresses))
    random = f"numgen random mod {len(addresses)} map {{ {choices} }}"
    yield f"add rule ip kube-proxy {chain} meta l4proto tcp dnat ip addr . port to {random}"
    for address in addresses if fresh else addresses[-1:]:
        yield f"add element ip kube-proxy hairpin-connections {{ {address} . {address} }}"
    for address in gone:
        yield f"delete element ip kube-proxy hairpin-connections {{ {address} . {address} }}"


LAYOUTS: dict[str, tuple[Callable[..., Iterator[str]], str]] = {
    "v135": (rules_v135, ""),
    "v137": (
        rules_v137,
        "add set ip kube-proxy hairpin-connections { type ipv4_addr . ipv4_addr ; }\n"
        "add chain ip kube-proxy hairpins\n"
        "add rule ip kube-proxy hairpins ip saddr . ip daddr @hairpin-connections masquerade fully-random",
    ),
}


AT_ONCE = SERVICES if os.geteuid() == 0 else 10  # in one transaction: an ordinary user's nft may not send more at once


def _texts(kind: str) -> Iterator[str]:
    rules, hairpins = LAYOUTS[kind]
    lines = [_BASE.format(hairpins=hairpins)]
    for number in range(SERVICES):
        lines += rules(number, endpoints(number, COUNT), fresh=True)
        lines.append(f"add element ip kube-proxy cluster-ips {{ {cluster_ip(number)} }}")
        lines.append(f"add element ip kube-proxy service-ips {{ {cluster_ip(number)} . tcp . 80 : goto {_service_chain(number)} }}")
        if number % AT_ONCE == AT_ONCE - 1:
            yield "\n".join(lines) + "\n"
            lines = []


def _nft(text: str) -> float:
    began = time.perf_counter()
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    return time.perf_counter() - began


def upstream(kind: str) -> list[float]:
    """Load a layout, change endpoints; the seconds of the load and the median of a change."""
    loaded = sum(map(_nft, list(_texts(kind))))
    rules, _ = LAYOUTS[kind]
    taken = []
    for update in range(UPDATES):
        number = update * 97 % SERVICES
        old, *kept = endpoints(number, COUNT)
        taken.append(_nft("\n".join(rules(number, [*kept, pod_ip(SPARE + update)], fresh=False, gone=(old,))) + "\n"))
    listed = subprocess.run(
        ["nft", "-n", "list", "map", "ip", "kube-proxy", "service-ips"], capture_output=True, text=True, check=True
    ).stdout
    if listed.count(" : goto ") != SERVICES:
        raise SystemExit(f"{kind}: the kernel lists {listed.count(' : goto ')} Services")
    return [loaded, median(taken)]


def ours() -> list[float]:
    """The same with ours: seconds of the load and the median of a change."""
    loaded = in_child(load, SERVICES, COUNT)["s"]
    return [loaded, in_child(_update_ours)]


def _update_ours() -> float:
    from bench.service_objects import objects

    proxy = direct()
    proxy.load(*objects(SERVICES, COUNT))
    taken = []
    for update in range(UPDATES):
        number = update * 97 % SERVICES
        decoded = piece(number, [*endpoints(number, COUNT)[1:], pod_ip(SPARE + update)])
        began = time.perf_counter()
        proxy.put_slice(decoded)
        taken.append(time.perf_counter() - began)
        proxy.expire()
    return median(taken)


def run() -> Report:
    """Run the benchmark."""
    samples: dict[str, list[float]] = {
        name: [] for name in ("ours_s", "v137_s", "v135_s", "update_ours_ms", "update_v137_ms", "update_v135_ms")
    }
    for _ in range(ROUNDS):
        for kind, work, arguments in (("ours", ours, ()), ("v137", upstream, ("v137",)), ("v135", upstream, ("v135",))):
            loaded, changed = in_child(work, *arguments, fresh_network=True)
            samples[f"{kind}_s"].append(loaded)
            samples[f"update_{kind}_ms"].append(1000 * changed)
    figures = {name: median(values) for name, values in samples.items()}
    figures["ratio_v137"] = figures["v137_s"] / figures["ours_s"]
    figures["ratio_v135"] = figures["v135_s"] / figures["ours_s"]
    limits = {"ratio_v137": Limit(least=1), "ratio_v135": Limit(least=1)}
    size = {"services": SERVICES, "endpoints": COUNT, "rounds": ROUNDS, "services_a_transaction": AT_ONCE}
    return Report("service-upstream", figures, samples, size, limits)
