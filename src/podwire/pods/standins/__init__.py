"""Stand-ins: one process for each node plays every container whose image cannot be run.

``process`` is that process, ``client`` is how the node's agent talks to it in the words of ``messages``; ``stage`` opens
the ports, ``connection`` and the sessions speak on them.
"""
