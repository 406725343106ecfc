"""Containers that are run from their image, by an OCI runtime.

``execution`` says how an image and a container's own words meet, ``bundle`` writes what the runtime reads, ``profile`` what a container
may do; all are pure. ``player`` decides whose images are run, and prepares a container.

Not here: the store of images (``podwire.images``), and what becomes of a container that runs (``podwire.pods.container``).
"""
