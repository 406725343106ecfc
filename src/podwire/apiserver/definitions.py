"""The schemas of all kinds, as JSON Schema with Kubernetes' extensions (merge keys, list types, kinds).

Here: where they come from and how one is looked up. Kubernetes' own are a packaged resource that ``tools/schemas`` makes; ``WRITTEN``
are those that are written by hand: ours (``podwire.compute.schemas``) and those that Kubernetes has no longer. Not here: what is done with
them (``schema.py``, ``openapi.py``, ``patch_strategic.py``).
"""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import Any

import orjson

from podwire.apiserver.kinds.ingress_v1beta1_schema import DEFINITIONS as INGRESS_V1BETA1
from podwire.compute.schemas import DEFINITIONS as COMPUTE

RESOURCE = Path(__file__).with_name("schemas.json.gz")
PREFIX = "#/$defs/"

INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
JSON, JSON_SCHEMA = _EXTENSIONS + "JSON", _EXTENSIONS + "JSONSchemaProps"
# A schema, or a value of another type.
JSON_SCHEMA_OR = {JSON_SCHEMA + "OrBool": (bool,), JSON_SCHEMA + "OrArray": (list,), JSON_SCHEMA + "OrStringArray": (list,)}
TIME, MICRO_TIME = META + "Time", META + "MicroTime"

Schema = dict[str, Any]

WRITTEN: dict[str, Schema] = {**INGRESS_V1BETA1, **COMPUTE}


class Missing(Exception):
    """The packaged schemas are absent or lack a definition: the program was not set up or built to the end."""


@functools.cache
def _packaged() -> dict[str, Any]:
    try:
        body: dict[str, Any] = orjson.loads(gzip.decompress(RESOURCE.read_bytes()))
    except FileNotFoundError as error:
        raise Missing(f"{RESOURCE} is missing: run `make setup`") from error
    return body


@functools.cache
def definitions() -> dict[str, Schema]:
    """Give all definitions by name. Loaded once; nobody changes them."""
    return {**_packaged()["definitions"], **WRITTEN}


def kubernetes_version() -> str:
    """Name the version of Kubernetes whose schemas are served, as ``1.37.0``."""
    return str(_packaged()["version"])


def definition(name: str) -> Schema:
    """Look up one definition. Raises Missing."""
    try:
        return definitions()[name]
    except KeyError:
        raise Missing(f"there is no schema {name}: run `make setup`") from None


def referenced(schema: Schema) -> str:
    """Name the definition that a schema points to, ``""`` when it points nowhere."""
    return str(schema.get("$ref", "")).removeprefix(PREFIX)


def plain_type(schema: Schema) -> str:
    """Name the type of a schema without ``null``: ``object``, ``array``, ``string``, ``integer``, ``number``, ``boolean`` or ``""``."""
    kind = schema.get("type", "")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), "")
    return str(kind)
