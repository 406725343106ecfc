"""kube-proxy's configuration file is read as this project's own."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from podwire.daemon import config
from podwire.daemon.config import AgentConfig, ConfigError, Conntrack

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
# As kubeadm writes it: every field there is, most of them empty.
WHOLE = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.4.0.0/14,fd00:10:4::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: true
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: 2h30m
  udpStreamTimeout: 0s
  udpTimeout: 45s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ClusterCIDR
enableProfiling: false
healthzBindAddress: 127.0.0.1
hostnameOverride: node-7
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: 13
  minSyncPeriod: 1s
  syncPeriod: 30s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
metricsBindAddress: "[::1]:1024"
mode: iptables
nftables:
  masqueradeAll: true
  minSyncPeriod: 250ms
nodePortAddresses: [primary]
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
"""


def test_a_whole_file_is_read() -> None:
    expected = AgentConfig(
        kubeconfig="/var/lib/kube-proxy/kubeconfig.conf",
        node_name="node-7",
        proxy_mode="iptables",
        pod_ranges=("10.4.0.0/14", "fd00:10:4::/56"),
        node_port_addresses=("primary",),
        proxy_health_address="127.0.0.1:10256",
        proxy_metrics_address="[::1]:1024",
        proxy_min_sync_s=1.0,
        masquerade_bit=13,
        masquerade_pods=False,
        conntrack=Conntrack(max_per_core=32768, min=131072, tcp_established_s=9000, tcp_close_wait_s=3600, tcp_be_liberal=True, udp_s=45),
    )
    assert config.decode(WHOLE.encode()) == expected
    other = config.decode(WHOLE.replace("mode: iptables", 'mode: ""').encode())
    assert (other.proxy_mode, other.masquerade_all, other.proxy_min_sync_s, other.masquerade_bit) == ("nftables", True, 0.25, 14)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("clusterCIDR: fd00:10:4::/56,10.4.0.0/14\n", {"pod_ranges": ("fd00:10:4::/56", "10.4.0.0/14")}),
        ("clusterCIDR: 10.244.1.0/16\n", {"pod_ranges": ("10.244.0.0/16",)}),
        ("clusterCIDR: fd00:10:4::/56\nbindAddress: 10.128.0.2\n", {"pod_ranges": ("fd00:10:4::/56",), "proxy_node_address": "10.128.0.2"}),
        ("bindAddress: '::'\n", {"proxy_health_address": "[::]:10256", "proxy_metrics_address": "[::1]:10249", "proxy_node_address": ""}),
        ("bindAddress: 'fd00::2'\n", {"proxy_health_address": "[::]:10256", "proxy_node_address": "fd00::2"}),
        ("bindAddress: 10.128.0.2\n", {"proxy_health_address": "0.0.0.0:10256", "proxy_metrics_address": "127.0.0.1:10249"}),
        ("bindAddress: 127.0.0.1\n", {"proxy_health_address": "0.0.0.0:10256", "proxy_node_address": ""}),
        ("healthzBindAddress: 'fd00::2'\n", {"proxy_health_address": "[fd00::2]:10256"}),
        ("healthzBindAddress: '[fd00::2]:1024'\nmetricsBindAddress: '::'\n", {"proxy_health_address": "[fd00::2]:1024"}),
        ("metricsBindAddress: '::1:1024'\n", {"proxy_metrics_address": "[::1:1024]:10249"}),
        ("nodePortAddresses: [10.128.0.0/20]\n", {"node_port_addresses": ("10.128.0.0/20", "::/0")}),
        ("nodePortAddresses: ['fd00::/8']\n", {"node_port_addresses": ("fd00::/8", "0.0.0.0/0")}),
        ("nodePortAddresses: ['fd00::/8', 10.128.0.5/20]\n", {"node_port_addresses": ("fd00::/8", "10.128.0.0/20")}),
        ("nodePortAddresses: []\n", {"node_port_addresses": ()}),
        ("hostnameOverride: ' Node-7 '\n", {"node_name": "node-7"}),
        ("mode: nftables\n", {"node_port_addresses": ("primary",)}),
        ("mode: iptables\n", {"node_port_addresses": ()}),
    ],
)
def test_addresses_of_both_families_mean_what_they_mean_to_kube_proxy(body: str, expected: dict[str, object]) -> None:
    found = config.decode((HEAD + body).encode())
    assert {field: getattr(found, field) for field in expected} == expected


def test_what_changes_nothing_here_is_known_and_named() -> None:
    assert config.decode(HEAD.encode()).ignored == ()
    given = HEAD + "featureGates: {Some: true}\nipvs: {scheduler: rr}\nlogging: {verbosity: 0}\noomScoreAdj: -999\n"
    assert config.decode(given.encode()).ignored == ("featureGates", "ipvs", "oomScoreAdj")
    local = HEAD + "mode: iptables\niptables: {localhostNodePorts: true}\n"
    assert config.decode(local.encode()).ignored == ("iptables.localhostNodePorts",)


@pytest.mark.parametrize(
    ("body", "rest", "ignored"),
    [
        ("modus: x\n", "", ["modus (unknown, line 3)"]),
        ("Mode: ipvs\nresourceContainer: null\n", "", ["Mode (unknown, line 3)", "resourceContainer (unknown, line 4)"]),
        ("conntrack:\n  min: 7\n  mini: 1\n", "conntrack: {min: 7}\n", ["conntrack.mini (unknown, line 5)"]),
        ("detectLocal:\n  clusterCIDRs: [10.0.0.0/8]\n", "", ["detectLocal", "detectLocal.clusterCIDRs (unknown, line 4)"]),
        ("mode: iptables\n1: 2\n", "mode: iptables\n", ["1 (unknown, line 4)"]),
        ("mode: ipvs\nmode: iptables\n", "mode: iptables\n", ["mode (line 3, given again in line 4)"]),
        (
            "conntrack:\n  min: 7\n  min: 8\nconntrack:\n  min: 9\n  min: 10\n",
            "conntrack: {min: 10}\n",
            ["conntrack (line 3, given again in line 6)", "conntrack.min (line 7, given again in line 8)"],
        ),
    ],
)
def test_what_is_unknown_or_given_again_is_named_with_its_line_and_gone_without(body: str, rest: str, ignored: list[str]) -> None:
    """As kube-proxy reads v1alpha1: what is not strictly right is told, and lenience goes on."""
    found = config.decode((HEAD + body).encode())
    assert list(found.ignored) == ignored
    assert msgspec.structs.replace(found, ignored=()) == config.decode((HEAD + rest).encode())


def test_what_is_misspelt_in_our_own_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown field `proxy_modus`"):
        config.decode(b"proxy_modus: iptables\n")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("conntrack:\n  min: many\n", "line 4: conntrack.min: Expected `int | null`, got `str`"),
        ("conntrack:\n  udpTimeout: 3x\n", "line 4: conntrack.udpTimeout: '3x' is no duration as 1h30m, 15s or 100ms"),
        ("conntrack:\n  min: -1\n", "line 4: conntrack.min: must not be negative, got -1"),
        ("mode: ipvs\n", "line 3: mode: 'ipvs' is not offered here, only nftables and iptables"),
        ("mode: nftables\ndetectLocalMode: NodeCIDR\n", "line 4: detectLocalMode: 'NodeCIDR' is not offered here, only ClusterCIDR"),
        ("clusterCIDR: 10.4.0.0/33\n", "line 3: clusterCIDR: '10.4.0.0/33' is not a range"),
        ("nodePortAddresses: [here]\n", "line 3: nodePortAddresses[0]: 'here' is neither a range nor"),
        ("healthzBindAddress: here:1\n", "line 3: healthzBindAddress: 'here:1' is no ADDRESS:PORT"),
        ("clusterCIDR: 10.0.0.0/9,10.128.0.0/9\n", "line 3: clusterCIDR: '10.0.0.0/9,10.128.0.0/9' has more than one range of a family"),
        ("clusterCIDR: 10.4.0.0/14,\n", "line 3: clusterCIDR: '10.4.0.0/14,' is not a range, nor one of each family"),
        ("clusterCIDR: '10.4.0.0/14, fd00::/56'\n", "line 3: clusterCIDR: '10.4.0.0/14, fd00::/56' is not a range"),
        ("clusterCIDR: 10.4.0.0\n", "line 3: clusterCIDR: '10.4.0.0' is not a range"),
        ("clusterCIDR: 10.4.0.0/255.252.0.0\n", "line 3: clusterCIDR: '10.4.0.0/255.252.0.0' is not a range"),
        ("bindAddress: '[::]'\n", "line 3: bindAddress: '[::]' is no IP address"),
        ("bindAddress: 'fe80::1%eth0'\n", "line 3: bindAddress: 'fe80::1%eth0' is no IP address: an address of one link alone"),
        ("metricsBindAddress: '[::1]'\n", "line 3: metricsBindAddress: '[::1]' is no ADDRESS:PORT, nor an address"),
        ("metricsBindAddress: ':10249'\n", "line 3: metricsBindAddress: ':10249' is no ADDRESS:PORT, nor an address"),
        ("metricsBindAddress: '[::1]:0'\n", "line 3: metricsBindAddress: '[::1]:0' is no ADDRESS:PORT, nor an address: the port must be"),
        (
            "nodePortAddresses:\n- 10.0.0.0/8\n- primary\n",
            "line 5: nodePortAddresses[1]: 'primary' stands alone, and there are other ranges",
        ),
        ("nodePortAddresses:\n- 10.0.0.0/8\n- 'fd00::'\n", "line 5: nodePortAddresses[1]: 'fd00::' is neither a range nor"),
        ("nodePortAddresses:\n- 10.0.0.0/8\n- null\n", "line 5: nodePortAddresses.1: Expected `str`, got `null`"),
        ("modus: x\nconntrack: 1\n", "line 4: conntrack: Expected `object`, got `int`"),
        ("nftables:\n  masqueradeBit: 32\n", "line 4: nftables.masqueradeBit: must be from 0 to 31"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(body: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").write_text(HEAD + body)
    with pytest.raises(ConfigError) as error:
        config.load(tmp_path / "proxy.yaml")
    assert f"proxy.yaml: {words}" in str(error.value)


def test_the_line_is_found_whatever_the_file_is_written_in() -> None:
    with pytest.raises(ConfigError, match=r"line 4: mode: 'ipvs' is not offered here"):
        config.decode(b'{\n\t"apiVersion": "kubeproxy.config.k8s.io/v1alpha1",\n\t"kind": "KubeProxyConfiguration",\n\t"mode": "ipvs"\n}')
    with pytest.raises(ConfigError, match=r"line 3: mode: 'ipvs' is not offered here"):
        config.decode((HEAD + "mode: ipvs\n").encode("utf-16"))
    found = config.decode(b'{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",\n"modus": "\x7f"}')
    assert found.ignored == ("modus (unknown, line 1)",), "JSON that is no YAML has no lines"


def test_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"line 1: apiVersion: 'kubeproxy\.config\.k8s\.io/v1' is not known here"):
        config.decode(HEAD.replace("v1alpha1", "v1").encode())
