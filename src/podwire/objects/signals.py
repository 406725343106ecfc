"""Signals as Pods and images name them, on Linux. Pure.

A Pod names one in full (``SIGQUIT``, ``SIGRTMIN+3``, ``SIGRTMAX-2``); an image's ``STOPSIGNAL`` may leave ``SIG`` out, be in small
letters, or be a number. Of the real-time signals the first two are the C library's own, so that ``SIGRTMIN`` is 34.

Source: signal(7); https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination-stop-signals
"""

from __future__ import annotations

from typing import Final

TERMINATE: Final = "SIGTERM"
"""What asks a container to end for which nobody says another one."""
_NAMES: Final = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
    "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
)  # fmt: skip
_FIRST, _MIDDLE, _LAST = 34, 49, 64  # of the real-time signals: the lower half is counted from its first, the upper from its last
_ALSO: Final = {"SIGIOT": "SIGABRT", "SIGCLD": "SIGCHLD", "SIGPOLL": "SIGIO"}
_NUMBERS: Final = (
    {f"SIG{name}": number for number, name in enumerate(_NAMES, 1)}
    | {"SIGRTMIN": _FIRST, "SIGRTMAX": _LAST}
    | {f"SIGRTMIN+{number - _FIRST}": number for number in range(_FIRST + 1, _MIDDLE + 1)}
    | {f"SIGRTMAX-{_LAST - number}": number for number in range(_MIDDLE + 1, _LAST)}
)
_BY_NUMBER: Final = {number: name for name, number in _NUMBERS.items()}
NAMES: Final = frozenset({*_NUMBERS, *_ALSO})
"""What a Pod of Linux may name."""


def number_of(name: str) -> int:
    """The kernel's number of a signal that a Pod may name."""
    return _NUMBERS[_ALSO.get(name, name)]


def named(said: str) -> str:
    """The full name of a signal that an image names in its way; "" if there is none of this name or number."""
    if said.isascii() and said.isdigit():
        return _BY_NUMBER.get(int(said), "") if len(said) < 4 else ""
    name = said.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    return _ALSO.get(name, name) if name in NAMES else ""
