"""docs/cli.md has every command; that its texts are real is checked with those of all documents."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from attnprof.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_every_command_is_on_the_page() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = re.findall(r"^\$ attnprof (\w+) --help$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(commands)


def test_every_command_and_option_says_what_it_is_for() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        for parameter in command.params:
            hidden = getattr(parameter, "hidden", False)  # is there to be refused in a sentence
            assert hidden or getattr(parameter, "help", None), f"{name} {parameter.opts}"
