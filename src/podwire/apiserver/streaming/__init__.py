"""Subresources behind which something else answers: a kubelet (log, exec, attach, portforward, a Node's proxy), a Pod or a Service (proxy).

``answer`` gives an ``Exchange``: all that can be refused has been, and whoever answers has been reached. ``exchanges``: the two kinds.
``kubelet``: where kubelets are. ``pods``: which container is meant. ``proxy``: where a proxy's path leads. ``upstream``: connections.
"""

from podwire.apiserver.streaming.dispatch import answer, takes
from podwire.apiserver.streaming.exchanges import Exchange

__all__ = ["Exchange", "answer", "takes"]
