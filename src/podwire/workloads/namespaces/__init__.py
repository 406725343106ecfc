"""Namespaces that end: emptied, then let go."""
