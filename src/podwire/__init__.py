"""Podwire: the network of a Kubernetes cluster, as Google Kubernetes Engine lays it out, with real packets."""

__version__ = "0.1.0"
