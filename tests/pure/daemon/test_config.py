from __future__ import annotations

from pathlib import Path

import pytest

from podwire.daemon import config
from podwire.daemon.config import AgentConfig, ConfigError


def test_defaults() -> None:
    assert config.load(None) == AgentConfig()
    assert AgentConfig().cluster_domain == "cluster.local"
    assert AgentConfig().max_pods == 110


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"pod_ranges": ["10.4.0.0/14"], "node_ips": ["10.128.0.2"]}')
    (tmp_path / "a.yaml").write_text("pod_ranges: [10.4.0.0/14]\nnode_ips: [10.128.0.2]\n")
    assert (
        config.load(tmp_path / "a.json")
        == config.load(tmp_path / "a.yaml")
        == AgentConfig(pod_ranges=("10.4.0.0/14",), node_ips=("10.128.0.2",))
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"max_pods": "many"}', "max_pods"),
        (b'{"max_pods": 0}', "max_pods: must be at least 1"),
        (b'{"max_podz": 1}', "max_podz"),
        (b'{"pod_ranges": ["10.4.0.0/33"]}', "pod_ranges: '10.4.0.0/33' is not a range"),
        (b'{"node_ips": ["ten"]}', "node_ips: 'ten' is not an address"),
        (b'{"log_level": "loud"}', "log_level: 'loud' is none of debug, info"),
        (b"{", "neither JSON nor YAML"),
        (b'["a"]', "Expected `object`"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_bytes(body)
    with pytest.raises(ConfigError) as error:
        config.load(tmp_path / "agent.json")
    assert words in str(error.value)
    assert "agent.json" in str(error.value)
