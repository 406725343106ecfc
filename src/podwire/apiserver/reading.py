"""Get and list.

A list shows one revision, whatever is written meanwhile: the records are taken at once, as references. It may be asked for page by page;
the token of the next page holds the revision and the last key, and pages that come later see the same revision as the first.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping

import orjson

from podwire.apiserver import conversion, keys, shapes, status
from podwire.apiserver.answers import Answer, Stream, Tree
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.requests import Request
from podwire.apiserver.selectors import Selection, selection
from podwire.apiserver.validation import FieldError, Path, forbidden, unsupported
from podwire.store import Compacted, Record

_ANY = -1  # in a token: whatever revision there is
_LOOKED_AT = 500  # objects looked at by a selector before others are served

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue "
    "parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided "
    "token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was "
    "returned and now may show up in the list."
)


async def get(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer with one object."""
    target = request.target
    record = api.store.get(keys.key(kind, target.namespace, target.name))
    if record is None:
        raise status.not_found(kind, target.name)
    if "resourceVersion" in request.query:
        _not_too_new(api, revision(request))
    if kind.versions is not None:
        (record,) = await conversion.shown(kind, [record])
    return shapes.one(api, request, kind, record.value)


def revision(request: Request) -> int:
    """Read the revision that a request speaks of, 0 for any. Raises Failure (400)."""
    text = request.query.get("resourceVersion", "")
    if text and not (text.isascii() and text.isdecimal()):
        raise status.bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text or 0)


def _not_too_new(api: Api, asked: int) -> None:
    if asked > api.store.revision:
        raise status.too_new(asked, api.store.revision)


def select(request: Request, kind: Kind) -> Selection:
    """Read the selectors of a request. A name in the path of a watch counts as one. Raises Failure (400)."""
    fields = request.query.get("fieldSelector", "")
    if request.target.name:
        fields += f",metadata.name={request.target.name}"
    return selection(kind, request.query.get("labelSelector", ""), fields)


async def list_all(api: Api, request: Request, kind: Kind) -> Answer | Stream:
    """Answer with a list: what is selected, page by page when a limit is set."""
    chosen = select(request, kind)
    limit = request.number("limit")
    at, after = _start(api, request)
    shown = at or api.store.revision
    prefix = keys.prefix(kind, request.target.namespace)
    try:
        if chosen.only_name and (request.target.namespace or not kind.namespaced):
            wanted = keys.key(kind, request.target.namespace, chosen.only_name)
            records = [record for record in api.store.range(wanted, at=at) if record.key == wanted and record.key > after]
        else:
            records = api.store.range(prefix, after=after, at=at, limit=0 if chosen or not limit else limit + 1)
    except Compacted as error:
        if not after:
            raise status.expired(str(error)) from None
        # Who can do with a list of several states goes on with this one.
        raise status.expired(_EXPIRED, _token(_ANY, after)) from None
    total = api.store.count(prefix) if limit and not chosen and not after and not at else 0
    if chosen:
        records = await _chosen(kind, records, chosen, limit + 1 if limit else 0)
    metadata: Tree = {"resourceVersion": str(shown)}
    if limit and len(records) > limit:
        records = records[:limit]
        metadata["continue"] = _token(shown, records[-1].key)
        if total:
            metadata["remainingItemCount"] = total - limit
    if not chosen:
        records = await conversion.shown(kind, records)
    return shapes.many(api, request, kind, records, metadata)


async def _chosen(kind: Kind, records: list[Record], chosen: Callable[[Record], bool], limit: int) -> list[Record]:
    """Give the records that are chosen, as the request sees them, at most ``limit`` (0: all). Raises Failure."""
    found: list[Record] = []
    for start in range(0, len(records), _LOOKED_AT):
        if start:
            await asyncio.sleep(0)
        found += filter(chosen, await conversion.shown(kind, records[start : start + _LOOKED_AT]))
        if limit and len(found) >= limit:
            return found[:limit]
    return found


def _start(api: Api, request: Request) -> tuple[int, str]:
    """Read where a list begins: the revision to show (0: the newest) and the key after which. Raises Failure (400, 504)."""
    asked = revision(request)
    match = request.query.get("resourceVersionMatch", "")
    token = request.query.get("continue", "")
    _check_words(request.query)
    if token:
        if asked:
            raise status.bad_request("specifying resource version is not allowed when using continue")
        return _read_token(token)
    _not_too_new(api, asked)
    exact = match == "Exact" or (not match and asked and request.number("limit"))
    return (asked if exact else 0), ""


def _check_words(query: Mapping[str, str]) -> None:
    """Refuse words of a list that do not go together. Raises Failure (422)."""
    path, match = Path("resourceVersionMatch"), query.get("resourceVersionMatch", "")
    error: FieldError | None = None
    if "sendInitialEvents" in query:
        error = forbidden(Path("sendInitialEvents"), "sendInitialEvents is forbidden for list")
    elif match and not query.get("resourceVersion"):
        error = forbidden(path, "resourceVersionMatch is forbidden unless resourceVersion is provided")
    elif match and query.get("continue"):
        error = forbidden(path, "resourceVersionMatch is forbidden when continue is provided")
    elif match not in ("", "Exact", "NotOlderThan"):
        error = unsupported(path, match, ("Exact", "NotOlderThan"))
    elif match == "Exact" and query.get("resourceVersion") == "0":
        error = forbidden(path, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if error is not None:
        raise status.invalid_options("ListOptions", error)


def _token(shown: int, last: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": shown, "start": last})).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, str]:
    try:
        tree = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        shown, last = tree["rv"], tree["start"]
        if type(shown) is int and type(last) is str and (shown > 0 or shown == _ANY):
            return max(shown, 0), last
    except (binascii.Error, ValueError, KeyError, TypeError):
        pass
    raise status.bad_request("continue key is not valid")
