"""examples/budget_ci as its users have it: the tests hold, a change is seen, and the CI job does what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from attnprof.core import lock
from pytest_plugin.project import again
from pytest_plugin.session import output, rerun

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "budgets.md"


@pytest.fixture
def example(pytester: pytest.Pytester) -> Iterator[Path]:
    """A copy of the example, where the session of a test runs; on one thread, which is faster for ops this small."""
    shutil.copytree(ROOT / "examples" / "budget_ci", pytester.path, dirs_exist_ok=True)
    for name in [n for n, m in sys.modules.items() if (getattr(m, "__file__", None) or "").endswith("classifier.py")]:
        del sys.modules[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield pytester.path
    torch.set_num_threads(threads)


def test_its_tests_hold(pytester: pytest.Pytester, example: Path) -> None:
    before = (example / "tests" / "attnprof.lock.toml").read_text()
    again(pytester, passed=7)
    again(pytester, "--attnprof-update", passed=7)
    assert (example / "tests" / "attnprof.lock.toml").read_text() == before


def test_a_wider_layer_is_seen(pytester: pytest.Pytester, example: Path) -> None:
    """Width 4·d → 5·d: two Linears of each of four layers, 2·64·d·d more each; their biases; the ReLU between."""
    source = (example / "classifier.py").read_text()
    (example / "classifier.py").write_text(source.replace("4 * WIDTH", "5 * WIDTH"))
    locked = lock.read(example / "tests" / "attnprof.lock.toml")["forward"].snapshot.totals()
    text = again(pytester, "-k", "forward_costs", failed=1, deselected=6)
    d, rows, layers = 128, 64, 4
    more = layers * (2 * 2 * rows * d * d + rows * d + rows * d)
    total = locked["matmul_flops"] + locked["vector_flops"]
    assert f"(+{more / total * 100:.1f}%)" in text
    assert "encoder.layers.[0-3].linear1  forward" in text
    assert "aten.addmm.default float32 [640] [64,128] [128,640], was [512] [64,128] [128,512]" in text


def steps() -> list[dict[str, str]]:
    workflow = yaml.safe_load((ROOT / "examples/budget_ci/.github/workflows/cost.yml").read_text())
    return [step for step in workflow["jobs"]["budgets"]["steps"] if "run" in step]


def test_what_changed_is_told_when_the_tests_fail() -> None:
    install, tests, *others = steps()
    assert "if" not in install.keys() | tests.keys()
    assert [step["if"] for step in others] == ["always()"] * len(others)


@pytest.mark.slow
def test_the_workflow_runs(example: Path, tmp_path: Path) -> None:
    """Every step but the installation and the comment, as a runner does: bash, in a checkout, with a base branch."""
    bin_folder = Path(sys.executable).parent
    summary = tmp_path / "summary.md"
    environment = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_BASE_REF": "main",
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def bash(script: str) -> int:
        return subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=example, env=environment).returncode

    assert (
        bash("git init -qb work . && git add -A && git commit -qm base && git update-ref refs/remotes/origin/main HEAD")
        == 0
    )
    assert bash("sed -i 's/4 \\* WIDTH/5 * WIDTH/' classifier.py") == 0
    run = {step["name"]: step["run"] for step in steps()}
    assert list(run) == [
        "Install",
        "Budgets and lock file",
        "Summary of the job",
        "Count this branch and the one it goes to",
        "What changed",
        "Tell it on the pull request",
    ]
    assert bash(run["Budgets and lock file"]) == 1
    assert bash(run["Summary of the job"]) == 0
    assert "## Cost of the tests" in summary.read_text()
    assert bash(run["Count this branch and the one it goes to"]) == 0
    assert bash(run["What changed"]) == 1  # far more than 1%
    assert "encoder.layers.\\[0-3\\].linear1 | forward" in (example / "diff.md").read_text()


def test_the_hook_is_a_command_that_works(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hook = yaml.safe_load((example / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"][0]
    assert output(hook["entry"], example, capsys).endswith("as locked\n")


def test_the_guide_is_what_happens(
    example: Path, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """``UPDATE_DOCS=1`` writes the outputs anew."""
    text = GUIDE.read_text(encoding="utf-8")
    real = rerun(text, example, capsys, pytester)
    if os.environ.get("UPDATE_DOCS"):
        GUIDE.write_text(real, encoding="utf-8")
        text = real
    assert text == real
