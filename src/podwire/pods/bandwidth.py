"""How fast a Pod may receive and send: what its annotations say, as rates of its interface. Pure.

``kubernetes.io/ingress-bandwidth`` and ``kubernetes.io/egress-bandwidth``, quantities in bits a second, read when the Pod's sandbox is
made. They do not hold for a Pod in the node's network.

A tenth of a second's worth may pass at once. (Container runtimes let 512 MiB pass, so that most Pods never feel the rate.)

Source: https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/network-plugins/#support-traffic-shaping
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from podwire.objects.quantities import Malformed, exact
from podwire.pods.cni.configuration import Rate

INGRESS = "kubernetes.io/ingress-bandwidth"
EGRESS = "kubernetes.io/egress-bandwidth"
_LEAST, _MOST = 10**3, 10**15
_LEAST_BURST = 8 * 16_384


class Unreasonable(ValueError):
    """An annotation that is no rate; the text names it."""


@dataclass(frozen=True)
class Rates:
    """None: as fast as may be. Seen from the Pod."""

    ingress: Rate | None = None
    egress: Rate | None = None

    def __bool__(self) -> bool:
        return self.ingress is not None or self.egress is not None


def rates(annotations: Mapping[str, str]) -> Rates:
    """What a Pod's annotations say. Raises Unreasonable."""
    return Rates(_rate(annotations, INGRESS), _rate(annotations, EGRESS))


def _rate(annotations: Mapping[str, str], name: str) -> Rate | None:
    text = annotations.get(name)
    if text is None:
        return None
    try:
        bits = -int(-exact(text) // 1)
    except Malformed:
        words = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        raise Unreasonable(f"annotation {name} {text!r}: {words}") from None
    if bits < _LEAST:
        raise Unreasonable(f"annotation {name} {text!r}: resource is unreasonably small (< 1kbit)")
    if bits > _MOST:
        raise Unreasonable(f"annotation {name} {text!r}: resource is unreasonably large (> 1Pbit)")
    return Rate(bits, max(bits // 10, _LEAST_BURST))
