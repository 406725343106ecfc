"""Pods on a node: their network, their containers, their probes, their status, and the node's own object."""
