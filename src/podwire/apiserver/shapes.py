"""The forms in which objects are shown: whole, as rows of a Table, or their metadata alone; one or many.

Lists are put together from the stored bytes: a whole object is never decoded. Where cells or metadata are asked for, objects are decoded in
small groups, and others are served in between.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import orjson

from podwire.apiserver import status, tables
from podwire.apiserver.answers import SLICE, Answer, Stream, Tree, decode
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.requests import Form, Request
from podwire.store import Record

_DECODED = 100  # objects decoded before others are served
_COUNTED = 2000  # a list of more objects goes out in pieces, whatever its size
_FIRST_STEP = 64  # objects in the first piece of a list
_INCLUDE = ("Metadata", "Object", "None")


def include(request: Request) -> str:
    """Read what a Table's rows hold beside their cells. Raises Failure (400)."""
    word = request.query.get("includeObject", "") or "Metadata"
    if word not in _INCLUDE:
        raise status.bad_request(f"unrecognized includeObject value: {word}")
    return word


def one(api: Api, request: Request, kind: Kind, value: bytes, code: int = 200) -> Answer:
    """Answer with one object. Raises Failure (406)."""
    form = request.form
    if form is Form.OBJECT:
        return Answer(code, value)
    tree = decode(value)
    if form is Form.METADATA:
        return Answer(code, orjson.dumps(tables.partial(tree)))
    metadata = {"resourceVersion": tree["metadata"].get("resourceVersion", "")}
    return Answer(code, orjson.dumps(tables.table(kind, [tree], api.clock(), include=include(request), metadata=metadata)))


def many(api: Api, request: Request, kind: Kind, records: Sequence[Record], metadata: Tree) -> Answer | Stream:
    """Answer with a list."""
    form = request.form
    if form is Form.OBJECT:
        head = b'{"kind":%b,"apiVersion":%b,"metadata":%b,"items":[' % (
            orjson.dumps(kind.list_kind),
            orjson.dumps(kind.api_version),
            orjson.dumps(metadata),
        )
        if len(records) <= _COUNTED and sum(len(record.value) for record in records) <= SLICE:
            return Answer(200, b"%b%b]}" % (head, b",".join([record.value for record in records])))
        return Stream(200, _joined(head, records))
    if form is Form.METADATA:
        head = b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":%b,"items":[' % orjson.dumps(metadata)
        return (
            Stream(200, _converted(head, records, kind, form, api.clock(), ""))
            if len(records) > _DECODED
            else Answer(200, head + b",".join(_parts(records, kind, form, api.clock(), "")) + b"]}")
        )
    shown = include(request)
    head = b'{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":%b,"columnDefinitions":%b,"rows":[' % (
        orjson.dumps(metadata),
        orjson.dumps(tables.columns(kind)),
    )
    if len(records) <= _DECODED:
        return Answer(200, head + b",".join(_parts(records, kind, form, api.clock(), shown)) + b"]}")
    return Stream(200, _converted(head, records, kind, form, api.clock(), shown))


def _parts(records: Sequence[Record], kind: Kind, form: Form, now: datetime, shown: str) -> list[bytes]:
    if form is Form.METADATA:
        return [orjson.dumps(tables.partial(decode(record.value))) for record in records]
    return [orjson.dumps(tables.row(kind, decode(record.value), now, shown)) for record in records]


async def _joined(head: bytes, records: Sequence[Record]) -> AsyncIterator[bytes]:
    """Give a list in pieces of about ``SLICE`` bytes, each joined in one step of about as many objects as the last ones needed."""
    yield head
    at, step = 0, _FIRST_STEP
    while at < len(records):
        values = [record.value for record in records[at : at + step]]
        size = sum(map(len, values))
        if size > 2 * SLICE and step > 1:
            step = max(1, step * SLICE // size)
            continue
        if at:
            values.insert(0, b"")  # a comma between this piece and the last
        yield b",".join(values)
        at += step
        step = max(1, min(2 * step, step * SLICE // size))
        await asyncio.sleep(0)
    yield b"]}"


async def _converted(head: bytes, records: Sequence[Record], kind: Kind, form: Form, now: datetime, shown: str) -> AsyncIterator[bytes]:
    lead = head
    for start in range(0, len(records), _DECODED):
        yield lead + b",".join(_parts(records[start : start + _DECODED], kind, form, now, shown))
        lead = b","
        await asyncio.sleep(0)
    yield b"]}"
