"""What containers of images may do among processes that are not theirs."""

from __future__ import annotations

from podwire.objects.core import Container, ContainerSecurityContext, Pod, PodSpec
from podwire.pods.oci.profile import ALL_CAPABILITIES, capabilities, numbers, withheld

PRIVILEGED = Container(name="image", image="shop/tool", security_context=ContainerSecurityContext(privileged=True))
MACHINE = Container(name="machine", image="podwire.dev/machine")
OTHER = Container(name="other", image="shop/other")


def held(*beside: Container, container: Container = PRIVILEGED, host_pid: bool = False, share_process_namespace: bool = False) -> set[str]:
    spec = PodSpec(containers=(container, *beside), host_pid=host_pid, share_process_namespace=share_process_namespace)
    assert container.security_context is not None
    return set(capabilities(container.security_context, withheld(Pod(spec=spec), container)))


def test_who_sees_the_nodes_processes_never_traces_nor_mounts() -> None:
    assert held() == set(ALL_CAPABILITIES)
    assert set(ALL_CAPABILITIES) - held(host_pid=True) == {"SYS_ADMIN", "SYS_PTRACE"}


def test_who_sees_a_program_of_the_machine_never_mounts() -> None:
    assert held(MACHINE) == set(ALL_CAPABILITIES)
    assert held(OTHER, share_process_namespace=True) == set(ALL_CAPABILITIES)
    assert set(ALL_CAPABILITIES) - held(MACHINE, share_process_namespace=True) == {"SYS_ADMIN"}


def test_numbers_are_the_kernels() -> None:
    assert numbers(("SYS_PTRACE", "CHOWN", "SYS_ADMIN")) == (0, 19, 21)
