"""Entries of a container's log: ``TIME STREAM TAG TEXT``, one a line. Pure.

TIME is RFC 3339 with nanoseconds in UTC, STREAM ``stdout`` or ``stderr``, TAG ``F`` for a whole line and ``P`` for a part of one, which
the next entry of the same stream goes on with. A line longer than ``LONGEST`` is cut into parts; what a container wrote last without
ending the line is a part, too.

Source: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

Stream = Literal["stdout", "stderr"]

LONGEST: Final = 16 * 1024
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
_TIME_LENGTH: Final = 30


@dataclass(frozen=True, slots=True)
class Entry:
    """``time_ns``: since 1970. ``whole``: the line ends here."""

    time_ns: int
    stream: str
    whole: bool
    text: bytes


def moment(time_ns: int) -> bytes:
    """A time with all nine digits, as ``kubectl logs --timestamps`` prints it."""
    second, rest = divmod(time_ns, 1_000_000_000)
    return b"%s.%09dZ" % (datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode(), rest)


def encode(entry: Entry) -> bytes:
    """The bytes of an entry. Its text has no newline."""
    return b"%s %s %s %s\n" % (moment(entry.time_ns), entry.stream.encode(), b"F" if entry.whole else b"P", entry.text)


def fields(line: bytes) -> tuple[bytes, bytes, bool, bytes] | None:
    """TIME with nine digits, STREAM, whether the line ends here, TEXT; None for what is no entry. The newline may be there."""
    match line.removesuffix(b"\n").split(b" ", 3):
        case [time_text, (b"stdout" | b"stderr") as stream, tag, *text] if tag[:1] in (b"F", b"P") and time_text.endswith(b"Z"):
            if len(time_text) != _TIME_LENGTH:  # another writer's, with fewer digits
                whole_seconds, _, digits = time_text[:-1].partition(b".")
                time_text = b"%s.%sZ" % (whole_seconds, digits.ljust(9, b"0"))
            return time_text, stream, tag.startswith(b"F"), text[0] if text else b""
    return None


def decode(line: bytes) -> Entry | None:
    """Read an entry; None for what is none."""
    found = fields(line)
    if found is None or not _TIME.fullmatch(found[0]):
        return None
    second = int(datetime.fromisoformat(found[0][:19].decode() + "+00:00").timestamp())
    return Entry(second * 1_000_000_000 + int(found[0][20:29]), found[1].decode(), found[2], found[3])


class Splitter:
    """Cuts what one stream wrote into entries; the rest of an unfinished line waits for its end."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._rest = b""

    def feed(self, data: bytes, time_ns: int) -> bytes:
        """The entries that are whole now, as bytes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        made: list[bytes] = []
        for text in whole:
            while len(text) > LONGEST:
                made.append(encode(Entry(time_ns, self.stream, False, text[:LONGEST])))
                text = text[LONGEST:]
            made.append(encode(Entry(time_ns, self.stream, True, text)))
        while len(self._rest) > LONGEST:
            made.append(encode(Entry(time_ns, self.stream, False, self._rest[:LONGEST])))
            self._rest = self._rest[LONGEST:]
        return b"".join(made)

    def flush(self, time_ns: int) -> bytes:
        """What is left of a line that was not ended, as a part."""
        text, self._rest = self._rest, b""
        return encode(Entry(time_ns, self.stream, False, text)) if text else b""
