"""``--strict-prediction``: the table first, then a sentence and exit code 2 where theory does not account for a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attnprof.cli import main

MODEL = """
import torch
from torch import nn

class Known(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 6)
    def forward(self, x):
        return self.linear(x).relu()

class Product(Known):
    def forward(self, x):
        y = self.linear(x)
        return y @ y.T

def known(): return Known(), (torch.ones(4, 8),)
def product(): return Product(), (torch.ones(4, 8),)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "strictly.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    sys.modules.pop("strictly", None)
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--strict-prediction"])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_what_theory_accounts_for_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "run", "strictly.py:known", "--backward")
    assert (code, err) == (0, "")
    assert "residual 0" in out


def test_anything_else_is_an_error_after_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The product is 2 * 4 * 6 * 4 FLOPs; a saved run fails alike."""
    for command in (("run", "strictly.py:product", "-o", "run.json"), ("report", "run.json")):
        code, out, err = called(capsys, *command)
        assert code == 2
        assert "not predicted: 192 in mm x1" in out
        assert err == (
            f"attnprof: the model has {2 * 4 * 8 * 6 + 192} forward matmul FLOPs, of which no formula covers "
            f"{2 * 4 * 6 * 4}: aten.mm.default x1 of the model; attnprof.predicts gives a class a formula.\n"
        )
    assert (folder / "run.json").exists()
