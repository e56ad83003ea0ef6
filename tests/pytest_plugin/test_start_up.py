"""What the plugin costs a project that does not use it: nothing that could be noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: Packages, and parts of this one, that no project pays for before it asks for a number.
HEAVY = {"torch", "numpy", "sympy", "tabulate", "fractions", "decimal", "typer"}
OURS = {
    "attnprof",
    "attnprof.core",
    "attnprof.core.checkers",
    "attnprof.pytest_plugin",
    "attnprof.pytest_plugin.options",
    "attnprof.pytest_plugin.session",
}
SCRIPT = """
import sys
import pytest
with_pytest = set(sys.modules)
code = pytest.main(["-q", "-p", "no:hypothesispytest", "-p", "no:cacheprovider", *sys.argv[1:]])
print("LOADED", *sorted(set(sys.modules) - with_pytest))
sys.exit(code)
"""


def loaded(folder: Path, *options: str) -> set[str]:
    """The modules that a session of pytest loads, in an interpreter of its own and by the installed entry point."""
    command = [sys.executable, "-c", SCRIPT, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED ")[2].split())


def test_a_project_without_budgets_loads_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text("import pytest\n@pytest.mark.skipif(False, reason='')\ndef test(): pass\n")
    found = loaded(tmp_path, "--strict-markers")
    assert {name for name in found if name.partition(".")[0] == "attnprof"} == OURS
    assert {name.partition(".")[0] for name in found - loaded(tmp_path, "-p", "no:attnprof")} == {"attnprof"}
    assert found & HEAVY == set()


def test_collecting_limits_does_not_load_torch(tmp_path: Path) -> None:
    (tmp_path / "test_limits.py").write_text(
        "import pytest\n@pytest.mark.limit_flops('1 GFLOP')\n@pytest.mark.limit_unpriced(0)\ndef test(): pass\n"
    )
    assert "torch" not in loaded(tmp_path, "--collect-only", "--strict-markers")


def test_options_are_in_the_help_of_pytest() -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True)
    for option in ("update", "prune", "lock", "tolerance", "report", "json", "markdown", "limit-flops"):
        assert f"--attnprof-{option}" in done.stdout
    for option in ("attnprof_lock", "attnprof_tolerance", "attnprof_report", "attnprof_default_limit_flops"):
        assert f"  {option} " in done.stdout


@pytest.mark.parametrize("name", ["limit_flops", "limit_bytes", "limit_memory_bytes", "limit_unpriced"])
def test_markers_are_registered(name: str, pytestconfig: pytest.Config) -> None:
    assert any(line.startswith(f"{name}(") for line in pytestconfig.getini("markers"))
