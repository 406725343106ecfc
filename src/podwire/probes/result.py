"""What a probe says, and the words that all probes share.

The words are those that users know from ``kubectl describe``: Go's, in lower case, as the kubelet passes them on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class ProbeResult:
    """``ok`` counts towards the thresholds; ``message`` is empty on a plain success; ``warning`` marks a success worth an Event."""

    ok: bool
    message: str = ""
    warning: bool = False

    @property
    def nobody_listens(self) -> bool:
        """The connection was refused: no program has seen this probe."""
        return self.message.endswith("connect: connection refused")


def join_host_port(host: str, port: int) -> str:
    """Write an address and a port as one: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def words_of(error: OSError) -> str:
    """Give the kernel's reason in Go's words: ``connection refused``."""
    return os.strerror(error.errno).lower() if error.errno else str(error) or "EOF"


def seconds(value: float) -> str:
    """Print a duration as Go does for whole seconds and fractions of one: ``1s``, ``1.5s``, ``200ms``."""
    return f"{value:g}s" if value >= 1 else f"{value * 1000:g}ms"
