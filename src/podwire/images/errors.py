"""Why an image is not taken."""

from __future__ import annotations


class ImageRefused(Exception):
    """An image or a name that cannot be used; the text names what is wrong with what, for people.

    What others made up is in it, so what is no printable text is escaped: it may be sent to a terminal, and written as UTF-8.
    """

    def __init__(self, text: str) -> None:
        super().__init__("".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text))
