"""Endpoints that people write, mirrored to EndpointSlices."""
