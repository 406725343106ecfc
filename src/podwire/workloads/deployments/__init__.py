"""Deployments: ReplicaSets that replace each other."""
