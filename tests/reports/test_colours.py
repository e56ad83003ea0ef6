"""Colours say nothing of their own: without them the text is the same, and they end where they began."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import attnprof
from attnprof.reports.colours import coloured, styled, wanted
from attnprof.reports.forms import FORMS
from attnprof.reports.text import cells
from attnprof.reports.view import ROWS, View

VARIABLES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "TERM")


@pytest.fixture(scope="module")
def report() -> attnprof.Report:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    return attnprof.run(model, (torch.ones(4, 8),), optimizer="adamw", device="h100-sxm,mi300x", time=2)


@pytest.mark.parametrize("by", ROWS)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_colours_move_nothing(report: attnprof.Report, by: str, width: int) -> None:
    view = View.of(by=by)
    plain = FORMS["table"].of(report, view, width)
    shown = FORMS["table"].of(report, replace(view, colour=True), width)
    assert "\x1b" not in plain
    assert "\x1b[1m" in shown
    assert re.sub(r"\x1b\[\d+m", "", shown) == plain
    for line in shown.splitlines():  # no style goes over the end of a line, and none begins in another
        assert re.fullmatch(r"(?:[^\x1b]|\x1b\[[1-9]\d*m[^\x1b]+\x1b\[0m)*", line)
    assert max(map(cells, plain.splitlines())) <= width


@pytest.mark.parametrize("form", FORMS)
def test_only_what_people_read_has_colours(report: attnprof.Report, form: str) -> None:
    view = replace(View.of(), colour=True)
    assert ("\x1b" in FORMS[form].of(report, view)) is FORMS[form].for_people
    assert "\x1b" not in FORMS[form].in_file(report, view)


def test_an_exception_leaves_no_colour() -> None:
    with coloured(True):
        assert styled("x", "heading") == "\x1b[1mx\x1b[0m"
    with pytest.raises(KeyError), coloured(True):
        styled("x", "no such style")
    assert styled("x", "heading") == "x"
    with coloured(True), coloured(False):
        assert styled("x", "heading") == "x"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "terminal", "pipe"),
    [
        ({"TERM": "xterm"}, True, False),
        ({}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"NO_COLOR": "0"}, False, False),  # whatever it is, as no-color.org has it
        ({"CLICOLOR": "0"}, False, False),
        ({"CLICOLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"CLICOLOR_FORCE": "1"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_who_wants_colours(
    variables: dict[str, str], terminal: bool, pipe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wanted(Terminal()) is terminal
    assert wanted(io.StringIO()) is pipe
