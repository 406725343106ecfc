"""Data structures and loops that any system of watched objects needs.

What belongs here: the indexed snapshot table, the reconciler with its retries, pace, consistent hashing. What must not: any
word of networking or Kubernetes, any I/O. Clocks and randomness are parameters.
"""
