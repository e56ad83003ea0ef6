"""The memory of a saved run, shown again without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attnprof import api
from reports.held import Held
from reports.traces import stack

SHOW = "import sys; from attnprof.cli import main; sys.argv = ['attnprof', *sys.argv[1:]]\n"
SHOW += "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"


def shown(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", SHOW, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("tracked", [False, True])
def test_a_saved_run_shows_its_memory_without_torch(tmp_path: Path, tracked: bool) -> None:
    report = api.Report(stack().trace)
    if tracked:
        report.trace.memory = Held(parameter=64).given("w", 64, "parameter").made("y", 32, "saved", 1).memory
    report.save(tmp_path / "run.json")
    lines = shown("report", str(tmp_path / "run.json"), "--by", "memory", "--units", "exact")
    assert lines[-1] == "False"
    assert lines[-2] == ("Nothing was saved for a backward." if tracked else "Memory was not tracked.")
    assert any(line.split() == ["peak", "96"] for line in lines) == tracked  # 64 + 32
