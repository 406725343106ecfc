"""Bytes of an archive on their way: hashed, counted, decompressed.

What is read here was made by others. Nothing is ever held whole, and every reading has an end.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zlib
from typing import Any, Protocol, cast

import zstandard

from podwire.images.errors import ImageRefused

PIECE = 1 << 18
_WINDOW = 1 << 27
"""The most memory that a zstd stream may ask for: what ``zstd`` itself grants."""
BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What decompressing raises at bytes that are none of its kind."""
BROKEN_TAR = (tarfile.TarError, *BROKEN, ValueError, RecursionError, struct.error)
"""What reading a tar file raises at bytes that are none: numbers that are not, headers behind headers without end."""


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Hashed(io.RawIOBase):
    """Reads through, and knows the SHA-256 and the number of what was read. Raises ImageRefused past ``most`` bytes."""

    def __init__(self, source: Readable, most: int, what: str) -> None:
        super().__init__()
        self._source, self._most, self._what = source, most, what
        self._hash = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block = self._source.read(PIECE if size < 0 else size)
        self._hash.update(block)
        self.count += len(block)
        if self.count > self._most:
            raise ImageRefused(f"{self._what} is larger than {self._most} bytes, which is the most that is taken")
        return block

    def drain(self) -> None:
        """Read to the end."""
        while self.read(PIECE):
            pass

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def decompressed(source: Readable, compression: str) -> Readable:
    """``compression``: ``gzip``, ``zstd`` or none. Reading raises one of BROKEN."""
    if compression == "gzip":
        return cast("Readable", gzip.GzipFile(fileobj=cast("Any", source)))
    if compression == "zstd":
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        return decompressor.stream_reader(cast("Any", source), read_size=PIECE, read_across_frames=True)
    return source


def compression_of(beginning: bytes) -> str:
    """How a file is compressed that begins so."""
    if beginning.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if beginning.startswith(b"\x28\xb5\x2f\xfd") else ""
