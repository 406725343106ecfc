"""Names of signals: as Pods say them, and as images may."""

from __future__ import annotations

import signal

import pytest

from podwire.objects.signals import NAMES, named, number_of


def test_names_have_the_kernels_numbers() -> None:
    plain = {name for name in NAMES if "RT" not in name}
    assert {name: number_of(name) for name in plain} == {name: int(signal.Signals[name]) for name in plain}
    assert {number_of(name) for name in NAMES} == set(signal.valid_signals()) - set(range(32, signal.SIGRTMIN))
    assert [number_of(name) for name in ("SIGRTMIN", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX")] == [34, 49, 50, 64]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("SIGQUIT", "SIGQUIT"),
        ("quit", "SIGQUIT"),
        ("3", "SIGQUIT"),
        ("SIGRTMIN+3", "SIGRTMIN+3"),
        ("rtmin+3", "SIGRTMIN+3"),
        ("37", "SIGRTMIN+3"),
        ("63", "SIGRTMAX-1"),
        ("SIGCLD", "SIGCHLD"),
        ("0", ""),
        ("32", ""),
        ("65", ""),
        ("9" * 5000, ""),
        ("", ""),
        ("SIGNOT", ""),
        ("²", ""),
    ],
)
def test_images_name_them_in_their_way(said: str, name: str) -> None:
    assert named(said) == name
