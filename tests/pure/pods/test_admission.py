"""Which settings of the kernel a node refuses, and why."""

from __future__ import annotations

import pytest

from podwire.objects.core import Pod, PodSecurityContext, PodSpec, Sysctl
from podwire.pods.admission import SAFE_SYSCTLS, ipc_sysctls, refusal


def pod(*names: str, host_ipc: bool = False, host_network: bool = False) -> Pod:
    asked = PodSecurityContext(sysctls=tuple(Sysctl(name=name, value="1") for name in names))
    return Pod(spec=PodSpec(security_context=asked, host_ipc=host_ipc, host_network=host_network))


@pytest.mark.parametrize("name", sorted(SAFE_SYSCTLS))
def test_a_safe_one_is_had_where_the_kernel_grants_it(name: str) -> None:
    assert refusal(pod(name)) is None
    refused = refusal(pod(name), SAFE_SYSCTLS - {name})
    assert refused is not None
    assert (refused.reason, refused.message) == ("SysctlForbidden", f'forbidden sysctl: "{name}" not allowlisted')


def test_one_of_a_namespace_that_is_the_nodes_is_refused() -> None:
    shared, network = "kernel.shm_rmid_forced", "net.ipv4.tcp_syncookies"
    refused = refusal(pod(shared, host_ipc=True))
    assert refused is not None
    assert refused.message == f'forbidden sysctl: "{shared}" not allowed with host ipc enabled'
    refused = refusal(pod(network, host_network=True))
    assert refused is not None
    assert refused.message == f'forbidden sysctl: "{network}" not allowed with host net enabled'
    assert refusal(pod(shared, host_network=True)) is None
    assert refusal(pod(network, host_ipc=True)) is None
    assert ipc_sysctls(pod(shared, network)) == {shared: "1"}
