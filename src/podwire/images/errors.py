"""Why an image is not taken."""

from __future__ import annotations


class ImageRefused(Exception):
    """An image or a name that cannot be used; the text names what is wrong with what, for people."""
