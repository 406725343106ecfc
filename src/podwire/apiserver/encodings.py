"""How an answer is written for who asked: as the JSON that it is, as YAML, packed with gzip.

JSON goes out as it came. YAML is for who prefers it; a client that takes gzip is given a long answer packed, as fast as it goes rather than
as small. What takes long is done beside the event loop; of YAML, which holds the interpreter, one answer at a time. A watch is neither.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources and #compression
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from podwire.apiserver import yaml_text
from podwire.apiserver.answers import Answer, Stream
from podwire.apiserver.requests import accepted
from podwire.apiserver.status import Failure

PACKED_FROM = 128 * 1024  # bytes: a shorter answer is not worth it
_LEVEL = 1
_GZIP = 31  # zlib's window bits for a gzip header
_SHORT = 32 * 1024  # bytes that are written as YAML at once
_PACKED = ((b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding"))
_YAML, _JSON = b"application/yaml", b"application/json"


class Encodings:
    """``written`` gives an answer as its client wants it."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def written(self, found: Answer | Stream, path: str, headers: Mapping[bytes, bytes]) -> Answer | Stream:
        """Write an answer for the one who sent ``headers``."""
        if found.content_type != _JSON or not path.startswith("/api") or (isinstance(found, Stream) and found.stop is not None):
            return found
        if b"yaml" in headers.get(b"accept", b"") and _prefers_yaml(headers[b"accept"]):
            found = await self._as_yaml(found)
        if b"gzip" in headers.get(b"accept-encoding", b"") and takes_gzip(headers[b"accept-encoding"]):
            return await _packed(found)
        return found

    async def _as_yaml(self, found: Answer | Stream) -> Answer:
        body = found.body if isinstance(found, Answer) else await _gathered(found)
        if len(body) <= _SHORT:
            text = _yaml(body)
        else:
            async with self._turn:
                text = await asyncio.to_thread(_yaml, body)
        if isinstance(found, Answer):
            return replace(found, body=text, content_type=_YAML)
        return Answer(found.code, text, content_type=_YAML)


async def _gathered(stream: Stream) -> bytes:
    try:
        return b"".join([piece async for piece in stream.pieces])
    finally:
        stream.release()


def _prefers_yaml(accept: bytes) -> bool:
    try:
        return accepted(accept).yaml
    except Failure:  # it takes nothing that there is, and is told so
        return False


def takes_gzip(accept_encoding: bytes) -> bool:
    """Say whether a client takes gzip, as upstream reads it: the word alone, without a weight."""
    return any(word.strip() == b"gzip" for word in accept_encoding.split(b","))


def _yaml(body: bytes) -> bytes:
    tree: Any = orjson.loads(body)
    return yaml_text.written(tree)


async def _packed(found: Answer | Stream) -> Answer | Stream:
    if isinstance(found, Stream):
        found.pieces, found.headers = _pieces(found.pieces), (*found.headers, *_PACKED)
        return found
    if len(found.body) <= PACKED_FROM:
        return found
    return replace(found, body=await asyncio.to_thread(_whole, found.body), headers=(*found.headers, *_PACKED))


def _whole(body: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


async def _pieces(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    async for piece in pieces:
        if packed := await asyncio.to_thread(packer.compress, piece):
            yield packed
    yield packer.flush()
