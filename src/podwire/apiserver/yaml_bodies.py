"""YAML as clients send it: read only after it is known to be small and flat enough (lib.yaml_limits)."""

from __future__ import annotations

from typing import Any

from podwire.lib import yaml_limits


class Refused(ValueError):
    """Not YAML, or too much of it. The text says what is wrong."""


def read(body: bytes) -> Any:
    """Read one document. Raises Refused."""
    import yaml  # most clients send JSON

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        yaml_limits.check(body, loader)
        return yaml.load(body, Loader=loader)  # noqa: S506 (a safe loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refused(str(error)) from None
