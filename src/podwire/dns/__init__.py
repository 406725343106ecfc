"""Cluster DNS: names for Services and their endpoints."""
