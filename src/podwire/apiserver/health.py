"""The health pages: ``/livez``, ``/readyz``, ``/healthz`` as a whole, with ``?verbose`` check by check, and each check by its own path.

    /readyz                  ok
    /readyz?verbose          [+]ping ok ... readyz check passed
    /readyz?exclude=etcd     without that check
    /livez/ping              one check

``etcd`` is the storage, whose name upstream is what probes and people ask for. Pure: what is well is a parameter.

Source: https://kubernetes.io/docs/reference/using-api/health-checks/
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

PAGES: Mapping[str, tuple[str, ...]] = {
    "healthz": ("ping", "etcd"),
    "livez": ("ping", "etcd"),
    "readyz": ("ping", "etcd", "shutdown"),
}


def page(path: str, query: str, well: Mapping[str, bool]) -> tuple[int, str] | None:
    """Give the code and text for a path; None when it is no health page. ``well`` says of each check whether it passes."""
    name, _, single = path.removeprefix("/").partition("/")
    checks = PAGES.get(name, ())
    if single:
        if single not in checks:
            return None
        return (200, "ok") if well[single] else (500, f"internal server error: {single} failed: reason withheld\n")
    if not checks:
        return None
    words = parse_qs(query, keep_blank_values=True)
    excluded = words.get("exclude", [])
    lines = [_line(check, check in excluded, well[check]) for check in checks]
    if unknown := [one for one in excluded if one not in checks]:
        listed = ", ".join(f'"{one}"' for one in unknown)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {listed}")
    if not all(well[check] for check in checks if check not in excluded):
        return 500, "\n".join([*lines, f"{name} check failed", ""])
    return 200, "\n".join([*lines, f"{name} check passed", ""]) if "verbose" in words else "ok"


def _line(check: str, excluded: bool, passes: bool) -> str:
    if excluded:
        return f"[+]{check} excluded: ok"
    return f"[+]{check} ok" if passes else f"[-]{check} failed: reason withheld"
