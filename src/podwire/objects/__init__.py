"""Kubernetes and Compute objects as frozen typed values.

What belongs here: one struct per object or part of one, holding only the fields that some agent reads (msgspec skips the
rest), selectors, and the rows that tie a kind to its place in the API. What must not: defaults that the API server owns,
any I/O, any clock.

Names: the Kubernetes field in snake case (``clusterIP`` is ``cluster_ip``, ``podCIDRs`` is ``pod_cidrs``). Lists are tuples,
so values hash and compare; an absent list is ``()``, an absent map ``{}``, an absent string ``""``, an absent number what the
field's documentation says or ``None`` where absence has a meaning of its own.
"""
