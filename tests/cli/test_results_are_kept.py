"""What was counted is shown, whatever goes wrong after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TARGETS = """
import sys
import torch
from torch import nn

@torch.library.custom_op("kept::op", mutates_args=())
def op(x: torch.Tensor) -> torch.Tensor:
    return x * 2

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
    def forward(self, x):
        return torch.ops.kept.op(self.linear(x))

class Leaves(Odd):
    def forward(self, x):
        self.linear(x)
        sys.exit(0)

def odd(): return Odd(), (torch.ones(2, 4),)
def leaves(): return Leaves(), (torch.ones(2, 4),)
"""
MATMUL = str(2 * 2 * 4 * 4)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "targets.py").write_text(TARGETS)
    command = [sys.executable, "-c", "from attnprof.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_strict_shows_the_table_and_saves_the_run(tmp_path: Path) -> None:
    found = run(tmp_path, "run", "targets.py:odd", "--strict", "-o", "run.json")
    assert found.returncode == 2
    assert MATMUL in found.stdout
    assert "kept.op.default (1 call)" in found.stderr
    assert (tmp_path / "run.json").exists()


def test_a_model_that_exits_shows_what_ran(tmp_path: Path) -> None:
    found = run(tmp_path, "run", "targets.py:leaves", "-o", "run.json")
    assert found.returncode == 2
    assert MATMUL in found.stdout
    assert "called sys.exit(0)" in found.stderr
    assert "nothing was written to run.json" in found.stderr
    assert not (tmp_path / "run.json").exists()


def test_output_into_a_device(tmp_path: Path) -> None:
    found = run(tmp_path, "run", "targets.py:odd", "-o", "/dev/null")
    assert found.returncode == 0
    assert MATMUL in found.stdout
    assert Path("/dev/null").is_char_device()
