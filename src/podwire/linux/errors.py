"""What the kernel refuses, as types.

A refusal is an ``OSError`` (so ``errno`` and ``except FileExistsError``-like handling by number work) that also says what was asked, in
the words of the tool that a person would have used, and the kernel's own hint where it gave one.
"""

from __future__ import annotations

import errno as errors
import os


class KernelRefused(OSError):
    """The kernel did not do what was asked.

    ``what`` is the printed form of the request, ``hint`` the kernel's extended acknowledgement ("" if none).
    """

    def __init__(self, number: int, what: str, hint: str = "") -> None:
        super().__init__(number, os.strerror(number))
        self.what = what
        self.hint = hint

    def __reduce__(self) -> tuple[type[KernelRefused], tuple[int, str, str]]:
        return type(self), (self.errno or 0, self.what, self.hint)

    def __str__(self) -> str:
        code = errors.errorcode.get(self.errno or 0, str(self.errno))
        hint = f": {self.hint}" if self.hint else ""
        return f"{self.what}: {self.strerror} ({code}){hint}"


class NamespacesRefused(KernelRefused):
    """This user may not make the namespaces that a cluster lives in. ``hint`` says which setting forbids it and what to do."""


class ProgramNotStarted(KernelRefused):
    """A program could not be started. ``status`` is what a shell would have ended with: 127 not found, 126 not executable or not set up."""

    @property
    def status(self) -> int:
        """127 when there is no such program, else 126."""
        return 127 if self.errno == errors.ENOENT and self.step == "execute" else 126

    def __init__(self, number: int, what: str, hint: str = "", step: str = "execute") -> None:
        super().__init__(number, what, hint)
        self.step = step

    def __reduce__(self) -> tuple[type[ProgramNotStarted], tuple[int, str, str, str]]:  # type: ignore[override]
        return type(self), (self.errno or 0, self.what, self.hint, self.step)


class NamespaceGone(KernelRefused):
    """The descriptor is no (or no longer an) open network namespace."""
