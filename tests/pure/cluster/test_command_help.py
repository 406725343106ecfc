"""The help of every command: whole sentences, the words of the field for values, every name that may be given."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from podwire.cli import agent
from podwire.cli.main import COMMANDS, podwire


def _all() -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [()]
    for word, (_, _, hidden) in COMMANDS.items():
        if hidden:
            continue
        lines.append((word,))
        command = podwire.get_command(click.Context(podwire), word)  # type: ignore[attr-defined]
        if isinstance(command, click.Group):
            lines += [(word, under) for under in command.commands]
    return lines


@pytest.mark.parametrize("words", _all(), ids=" ".join)
def test_help_is_whole_and_in_the_words_of_the_field(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(podwire, [*words, "--help"])
    assert shown.exit_code == 0
    assert not re.search(r"\b(TEXT|INTEGER|RANGE|FLOAT)\b", shown.output), shown.output
    commands = shown.output.partition("Commands:")[2]
    assert "..." not in commands, commands


def test_help_of_agent_names_each() -> None:
    shown = CliRunner().invoke(podwire, ["agent", "--help"]).output
    assert set(agent.AGENTS) <= set(re.findall(r"[a-z]+", shown))
