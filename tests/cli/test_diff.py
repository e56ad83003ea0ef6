"""``attnprof diff``: what changed, by module and op, and when that is too much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import attnprof
from attnprof.cli import main


def linears(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 8))


def forward(width: int) -> int:
    """Four rows: products and biases of two layers, one comparison per element between them."""
    return 2 * 2 * 4 * 8 * width + 4 * width + 4 * 8 + 4 * width


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name, width in (("a.json", 16), ("b.json", 24), ("close.json", 17)):
        attnprof.run(linears(width), (torch.ones(4, 8),)).save(name)
    return tmp_path


def diff(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["diff", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_totals_modules_and_ops(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = diff(capsys, "a.json", "b.json")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    grown = f"+{(forward(24) - forward(16)) / forward(16) * 100:.1f}%"
    assert ["FLOPs", str(forward(16)), "FLOP", str(forward(24)), "FLOP", grown] in lines
    up = [2 * 4 * 8 * width + 4 * width for width in (16, 24)]
    assert (
        f"  0  forward  {up[0]} → {up[1]} FLOP (+50.0%)  aten.addmm.default float32 [24] [4,8] [8,24], was [16]" in out
    )
    assert ["aten.relu.default", "64", "→", "96", "FLOP", "(+50.0%)"] in [line[:6] for line in lines]


def test_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = diff(capsys, "a.json", "a.json", "--fail-on-increase", "0")
    assert (code, err) == (0, "")
    assert "Both runs cost the same: every module, in every phase." in out
    assert "→" not in out


@pytest.mark.parametrize(
    ("before", "after", "allowed", "code"),
    [
        ("a.json", "b.json", "0", 1),
        ("b.json", "a.json", "0", 0),  # less is no increase
        ("a.json", "b.json", "50%", 0),  # from 16 to 24 columns
        ("a.json", "close.json", "6.25%", 0),  # 1/16, which every number grew by at most
        ("a.json", "close.json", "5%", 1),
    ],
)
def test_fail_on_increase(capsys: pytest.CaptureFixture[str], before: str, after: str, allowed: str, code: int) -> None:
    found, out, err = diff(capsys, before, after, "--fail-on-increase", allowed)
    assert found == code
    assert ("attnprof: FLOPs grew: " in err) == bool(code)
    assert out.startswith(" ")  # the table comes first, whatever the verdict


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = diff(capsys, "a.json", "b.json", "--markdown")
    assert code == 0
    assert "| module | phase | before → after | op |\n| --- | --- | --- | --- |\n| 0 | forward | " in out
    assert "| aten.relu.default | 64 → 96 FLOP (+50.0%) | 512 → 768 B (+50.0%) |" in out
    assert "float32 \\[24\\] \\[4,8\\]" in out


def test_the_largest_changes_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    for name, width in (("many.json", 1), ("more.json", 2)):
        layers = nn.Sequential(*(nn.Linear(8, 8 + width * i) for i in range(1, 21)))

        class Apart(nn.Module):
            def __init__(self, layers: nn.Module) -> None:
                super().__init__()
                self.layers = layers

            def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
                return [layer(x) for layer in self.layers]

        attnprof.run(Apart(layers), (torch.ones(4, 8),)).save(name)
    _, out, _ = diff(capsys, "many.json", "more.json")
    assert "(the largest 12 of 20)" in out
    assert "and 8 more" in out
    _, out, _ = diff(capsys, "many.json", "more.json", "--all")
    assert sum("forward" in line for line in out.splitlines()) == 20


def test_narrow_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = diff(capsys, "a.json", "b.json")
    modules = out.partition("modules that changed")[2].partition("ops that changed")[0]
    assert max(map(len, modules.splitlines())) <= 60


def test_what_cannot_be_read(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "cut.json").write_text((folder / "a.json").read_text()[:100])
    for arguments, sentence in (
        (("a.json", "none.json"), "none.json does not exist."),
        (("cut.json", "a.json"), "cut.json is not a trace"),
        (("a.json", "b.json", "--fail-on-increase", "1"), "tolerance '1' is no percentage"),
        (("a.json",), "AFTER.JSON"),
    ):
        code, out, err = diff(capsys, *arguments)
        assert (code, out) == (2, "")
        assert sentence in err
        assert err.count("\n") == 1


def test_names_of_a_file_cannot_write_on_the_terminal(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    data = json.loads((folder / "a.json").read_text())
    for record in data["modules"]:
        record["fqn"] = record["fqn"].replace("0", "\x1b[31m|<b>")
    (folder / "odd.json").write_text(json.dumps(data))
    _, out, _ = diff(capsys, "a.json", "odd.json")
    assert "\x1b" not in out
    _, out, _ = diff(capsys, "a.json", "odd.json", "--markdown")
    assert "\x1b" not in out
    assert "\\x1b\\[31m\\|&lt;b&gt;" in out.replace("\\\\", "\\")


def test_it_needs_no_torch(folder: Path) -> None:
    script = (
        "import sys, attnprof.cli\ntry:\n attnprof.cli.main(sys.argv[1:])\nfinally:\n print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "diff", "a.json", "b.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.splitlines()[-1] == "False"
