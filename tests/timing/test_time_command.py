"""``attnprof run --time``: what is shown, kept and refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attnprof.cli import main

TARGETS = """
import torch
from torch import nn

def build(): return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), (torch.ones(2, 4),)

class Interrupted(nn.Linear):
    calls = 0
    def forward(self, x):
        type(self).calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return super().forward(x)

def interrupted(): return nn.Sequential(Interrupted(4, 4)), (torch.ones(2, 4),)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "timed_targets.py").write_text(TARGETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def attnprof(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_times_are_shown_below_the_layers_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = attnprof(capsys, "run", "timed_targets.py:build", "--backward", "--time-steps", "4", "-o", "run.json")
    code, out, err = done
    assert (code, err) == (0, "")
    assert out.index("├─ 0") < out.index("measured") < out.index("between ops") < out.index("median of 4, spread")
    assert attnprof(capsys, "report", "run.json") == done
    alone = attnprof(capsys, "report", "run.json", "--by", "time")[1]
    assert alone[alone.index("measured") :] == out[out.index("measured") :]
    assert "% of FLOPs" not in " ".join(alone.split())


def test_a_saved_run_needs_no_torch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attnprof(capsys, "run", "timed_targets.py:build", "--time-steps", "1", "-o", "run.json")
    program = (
        "import sys\nfrom attnprof.cli import main\n"
        "try: main(['report', 'run.json', '--by', 'time', '--sort', 'time'])\n"
        "except SystemExit as left: assert not left.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "step, profiled" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--time", "--fake"), "fake tensors compute nothing, so there is no time to measure"),
        (("--time", "--generate", "2"), "time is measured of a forward or a training step, not of generation"),
        (("--time-steps", "0"), "time 0 is no number of steps to time: give 1 to 1,000."),
        (("--by", "time", "--sort", "flops"), "measured time is sorted by time, not by flops"),
    ],
)
def test_what_cannot_be_timed(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    code, out, err = attnprof(capsys, "run", "timed_targets.py:build", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"attnprof: {said}")
    assert err.count("\n") == 1


def test_without_a_timed_step_there_are_no_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = attnprof(capsys, "run", "timed_targets.py:build", "--by", "time")
    assert code == 0
    assert "No layer was timed: run with --time" in out


def test_an_interrupt_while_timing_keeps_what_was_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The third call is the second warm-up step."""
    code, out, err = attnprof(capsys, "run", "timed_targets.py:interrupted", "--time")
    assert code == 130
    assert "the model was interrupted while it was timed; the table shows what was counted." in err
    assert "No layer was timed: the model was interrupted when it ran again for that. All is counted." in out
    assert str(2 * 2 * 4 * 4) in out
