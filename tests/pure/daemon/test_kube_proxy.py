"""kube-proxy's configuration file is read as this project's own."""

from __future__ import annotations

from pathlib import Path

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


def test_what_changes_nothing_here_is_known_and_named() -> None:
    assert config.decode(HEAD.encode()).ignored == ()
    given = HEAD + "featureGates: {Some: true}\nipvs: {scheduler: rr}\nlogging: {verbosity: 0}\noomScoreAdj: -999\n"
    assert config.decode(given.encode()).ignored == ("featureGates", "ipvs", "oomScoreAdj")
    local = HEAD + "mode: iptables\niptables: {localhostNodePorts: true}\n"
    assert config.decode(local.encode()).ignored == ("iptables.localhostNodePorts",)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("modus: x\n", "line 3: modus: unknown field"),
        ("conntrack:\n  min: 1\n  mini: 1\n", "line 5: conntrack.mini: unknown field"),
        ("conntrack:\n  min: many\n", "line 4: conntrack.min: Expected `int | null`, got `str`"),
        ("conntrack:\n  udpTimeout: 3x\n", "line 4: conntrack.udpTimeout: '3x' is no duration as 1h30m, 15s or 100ms"),
        ("conntrack:\n  min: -1\n", "line 4: conntrack.min: must not be negative, got -1"),
        ("mode: ipvs\n", "line 3: mode: 'ipvs' is not offered here, only nftables and iptables"),
        ("mode: nftables\ndetectLocalMode: NodeCIDR\n", "line 4: detectLocalMode: 'NodeCIDR' is not offered here, only ClusterCIDR"),
        ("clusterCIDR: 10.4.0.0/33\n", "line 3: clusterCIDR: '10.4.0.0/33' is not a range"),
        ("nodePortAddresses: [here]\n", "line 3: nodePortAddresses: 'here' is neither a range nor"),
        ("healthzBindAddress: here:1\n", "line 3: healthzBindAddress: 'here:1' is no ADDRESS:PORT"),
        ("nftables:\n  masqueradeBit: 32\n", "line 4: nftables.masqueradeBit: must be from 0 to 31"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(body: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").write_text(HEAD + body)
    with pytest.raises(ConfigError) as error:
        config.load(tmp_path / "proxy.yaml")
    assert f"proxy.yaml: {words}" in str(error.value)


def test_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"line 1: apiVersion: 'kubeproxy\.config\.k8s\.io/v1' is not known here"):
        config.decode(HEAD.replace("v1alpha1", "v1").encode())
