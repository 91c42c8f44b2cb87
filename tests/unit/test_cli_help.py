"""`--help` of every command: it has examples, and they are such that the command takes them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer

from eyrie.cli.main import app


def commands(found: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(found, "commands"):
        for name, inner in found.commands.items():
            yield from commands(inner, (*words, name))
    else:
        yield words, found


COMMANDS = dict(commands(typer.main.get_command(app)))


def typed(words: tuple[str, ...]) -> list[list[str]]:
    """The lines of a command's help that are typed as they stand: what comes after its words."""
    lines = (line.strip() for line in (COMMANDS[words].help or "").splitlines())
    split = [shlex.split(line.split(" | ")[-1 if line.startswith("cat ") else 0]) for line in lines if "eyrie " in line]
    begin = ["eyrie", *words]
    return [line[len(begin) :] for line in split if line[: len(begin)] == begin]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_shows_examples_that_it_takes(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    if words == ("env",):
        assert 'eval "$(eyrie env)"' in COMMANDS[words].help
        return
    examples = typed(words)
    assert examples, f"eyrie {' '.join(words)} --help has no example"
    for arguments in examples:
        try:
            COMMANDS[words].make_context(" ".join(words), list(arguments))
        except click.ClickException as error:
            pytest.fail(f"eyrie {' '.join(words)} {shlex.join(arguments)}: {error.format_message()}")
