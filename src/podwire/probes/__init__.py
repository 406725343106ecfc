"""Probes as the kubelet sends them: HTTP, TCP, gRPC and exec, and what a container's prober remembers between two of them.

What belongs here: one probe (``http``, ``tcp``, ``grpc``, ``execute``), its words, and the pure state with thresholds
(``prober``). What must not: Pods, containers, who acts on a result. A probe is sent from the network namespace that the
process is in; for a node's Pods that is the node.
"""

from __future__ import annotations

from podwire.probes.exec_action import execute
from podwire.probes.grpc_health import grpc
from podwire.probes.http_get import http
from podwire.probes.result import ProbeResult
from podwire.probes.tcp_socket import tcp

__all__ = ["ProbeResult", "execute", "grpc", "http", "tcp"]
