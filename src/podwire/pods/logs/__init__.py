"""What containers write to stdout and stderr: kept in files as container runtimes keep it, and read as the kubelet reads it.

``lines``: one entry as bytes (pure). ``file``: a run's file and its rotation. ``reader``: what of it somebody wants to see, and what is
still to come. ``writer``: the program that takes it from the containers. ``link``: how the node's agent speaks to that program.
"""
