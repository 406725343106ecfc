"""The node's side of logs, exec, attach, port-forward and the node's own pages: HTTPS on the node's address, port 10250.

``server``: the socket and TLS. ``app``: paths. ``access``: who may. ``upgrade``: the handshakes. ``channels``: stdin, stdout, stderr,
sizes and the outcome of a command over WebSocket or SPDY. ``execution``, ``attachment``, ``forwarding``, ``output``: what is done.
``pages``: the rest.
"""
