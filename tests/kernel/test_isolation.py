"""The isolation that every kernel test relies on."""

import os
import socket


def test_a_kernel_test_sees_only_its_own_loopback() -> None:
    assert os.getpid() == 1
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
