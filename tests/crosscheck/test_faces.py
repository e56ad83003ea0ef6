"""``--crosscheck`` and the forms of a report, as a person meets them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import attnprof
from attnprof.cli import main
from attnprof.core.crosscheck import KINDS
from crosscheck.models import MODELS, Siblings

SOURCE = """
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as attention

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.norm = nn.Linear(8, 24), nn.LayerNorm(8)
    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return x + attention(q, k, v).transpose(1, 2).flatten(2)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.h = nn.ModuleList(Block() for _ in range(3))
    def forward(self, x):
        for block in self.h:
            x = block(x)
        return x

class Untraced(Net):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("first line\\n\\x1b[31mof two")
        return super().forward(x)

class Interrupted(Net):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise KeyboardInterrupt
        return super().forward(x)

def build(): return Net(), (torch.ones(2, 5, 8),)
def untraced(): return Untraced(), (torch.ones(2, 5, 8),)
def interrupted(): return Interrupted(), (torch.ones(2, 5, 8),)
"""
Command = Callable[..., tuple[int, str, str]]
#: FLOPs of the contractions: three blocks of a Linear, and of an attention of two products.
LINEAR, ATTENTION = 3 * 2 * 2 * 5 * 8 * 24, 3 * 2 * 2 * 2 * 5 * 5 * 8


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str) -> tuple[int, str, str]:
        sys.modules.pop("net", None)
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def test_the_table_has_a_block_for_each_counter_in_the_order_asked(run: Command) -> None:
    code, out, err = run("run", "net.py:build", "--crosscheck", "torch, fvcore", "--backward", "--units", "exact")
    assert (code, err) == (0, "")
    assert out.index("Cross-check with torch: FlopCounterMode of torch") < out.index("Cross-check with fvcore: Flop")
    assert f"unsupported, -{ATTENTION + ATTENTION // 2 * 5:,} FLOP: no formula there, so it counts as 0" in out
    assert "aten._scaled_dot_product_flash_attention_for_cpu x3" in out
    assert out.count("These are all: nothing is left unexplained.") == 2
    assert "It counts the forward alone" in out


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_it_fits_the_terminal(columns: int, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = run("run", "net.py:build", "--crosscheck", "fvcore,torch", "--backward")
    assert code == 0
    assert max(map(len, out[out.index("Cross-check") :].splitlines())) <= columns


def test_json_has_every_module_with_its_causes(run: Command) -> None:
    code, out, err = run("run", "net.py:build", "--crosscheck", "fvcore,torch", "--format", "json")
    assert (code, err) == (0, "")
    checks = {check["tool"]: check for check in json.loads(out)["crosschecks"]}
    assert list(checks) == ["fvcore", "torch"]
    for check in checks.values():
        assert check["unexplained_flops"] == 0
        for module in check["modules"]:
            ours = module["attnprof_matmul_flops"] + module["attnprof_vector_flops"]
            assert module["difference_flops"] == module["flops"] - ours
            assert module["difference_flops"] == sum(cause["flops"] for cause in module["causes"])
            for cause in module["causes"]:
                assert cause["flops"] == sum(op["flops"] for op in cause["ops"])
    root = checks["torch"]["modules"][0]
    assert (root["module"], root["said"], root["attnprof_matmul_flops"]) == ("", LINEAR, LINEAR + ATTENTION)


def test_csv_has_columns_for_each_counter(run: Command) -> None:
    code, out, err = run("run", "net.py:build", "--crosscheck", "fvcore,torch", "--format", "csv")
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    for row in rows:
        for tool in ("fvcore", "torch"):
            kinds = sum(int(row[f"{tool}_{kind}_flops"].lstrip("'")) for kind in KINDS)
            assert int(row[f"{tool}_difference_flops"].lstrip("'")) == kinds
    qkv = next(row for row in rows if row["module"] == "h.1.qkv")
    assert (qkv["fvcore_said"], qkv["fvcore_flops"], qkv["torch_flops"]) == (
        str(2 * 5 * 8 * 24),
        str(2 * 2 * 5 * 8 * 24),
        str(2 * 2 * 5 * 8 * 24),
    )


def test_the_tree_has_it_below(run: Command) -> None:
    code, out, err = run("run", "net.py:build", "--crosscheck", "torch", "--format", "tree")
    assert (code, err) == (0, "")
    assert out.index("qkv") < out.index("Cross-check with torch") < out.index("coverage")


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_documents_have_it_too(form: str, run: Command) -> None:
    code, out, err = run("run", "net.py:build", "--crosscheck", "torch", "--format", form)
    assert (code, err) == (0, "")
    assert "Cross-check with torch" in out
    assert out.count("difference") == 1
    if form == "markdown":
        header, _, *rows = [line for line in out.splitlines() if line.startswith("|")][-4:]
        assert len({line.count(" |") for line in (header, *rows)}) == 1
    else:
        assert out.count(r"\begin{tabular}") == out.count(r"\end{tabular}") == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--crosscheck", "fvcor"), 'no counter "fvcor" to cross-check with: use fvcore, torch. Did you mean fvcore?'),
        (("--crosscheck", ""), 'no counter "" to cross-check with: use fvcore, torch.'),
        (("--crosscheck", "torch", "--phase", "forward"), "--crosscheck is of the whole run: leave out --phase."),
        (
            ("--crosscheck", "torch", "--by", "memory"),
            "--crosscheck is about FLOPs, and --by memory shows none: leave one of them out.",
        ),
    ],
)
def test_what_means_nothing_is_refused(arguments: tuple[str, ...], sentence: str, run: Command) -> None:
    assert run("run", "net.py:build", *arguments) == (2, "", f"attnprof: {sentence}\n")


def test_a_saved_run_has_no_model_to_run_again(run: Command) -> None:
    assert run("run", "net.py:build", "-o", "run.json")[0] == 0
    code, out, err = run("report", "run.json", "--crosscheck", "torch")
    assert (code, out) == (2, "")
    assert err == "attnprof: --crosscheck needs the model, which a saved run is without: give it to `attnprof run`.\n"


def test_a_counter_that_fails_costs_no_report(run: Command) -> None:
    code, out, err = run("run", "net.py:untraced", "--crosscheck", "fvcore,torch")
    assert (code, err) == (0, "")
    assert "fvcore could not count this: it raised RuntimeError: first line." in out
    assert "\x1b" not in out
    assert "Cross-check with torch" in out
    assert "theory:" in out


def test_a_fake_run_is_checked_by_torch_alone(run: Command) -> None:
    code, out, _ = run("run", "net.py:build", "--fake", "--crosscheck", "fvcore,torch")
    assert code == 0
    assert "fvcore could not count this: it needs a torch.jit trace, and fake tensors cannot be traced." in out
    assert out.count("nothing is left unexplained") == 1


def test_an_interrupt_in_the_check_loses_no_report(run: Command) -> None:
    code, out, err = run("run", "net.py:interrupted", "--crosscheck", "fvcore")
    assert code == 130
    assert err == "attnprof: interrupted in the cross-check; the report is without it.\n"
    assert "matmul" in out
    assert "Cross-check" not in out


def test_nothing_else_is_printed(folder: Path) -> None:
    """No warning of fvcore's or torch's on stderr, in a process of its own."""
    code = "from attnprof.cli import main; main(['run', 'net.py:build', '--crosscheck', 'fvcore,torch'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Unsupported operator" not in done.stdout


def test_from_python() -> None:
    model, args = MODELS["mlp"]()
    report = attnprof.crosscheck(model, args, tools=["torch"])
    (check,) = report.crosschecks
    assert isinstance(report, attnprof.Report)
    assert "Cross-check with torch" in str(report)
    assert check.total is not None
    assert check.total.difference == -report.total.vector_flops
    assert attnprof.crosscheck(model, args, tools="torch,torch,fvcore").crosschecks[1].tool == "fvcore"
    for wrong in ("ptflops", ["Torch"], []):
        with pytest.raises(attnprof.AttnprofError):
            attnprof.crosscheck(model, args, tools=wrong)


def test_attribution_names_whose_calls_are_booked_where() -> None:
    report = attnprof.crosscheck(Siblings(8), (torch.randn(2, 8),), tools="torch", backward=True)
    text = report.to_table(units="exact", width=400)
    own = 2 * 2 * 8 * 8
    assert f"v +{4 * own:,} (aten.mm of k)" in text
    assert f"k +{2 * own:,} (aten.mm of q)" in text


def test_rows_that_top_leaves_out_are_one_row() -> None:
    widths = (2, 3, 4, 5)
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise((1, *widths))))
    report = attnprof.crosscheck(model, (torch.ones(1, 1),), tools="torch")
    text = report.to_table(units="exact", top=2)
    (more,) = [line.split() for line in text[text.index("Cross-check") :].splitlines() if "… 2 more" in line]
    least = 2 * 1 * 2 + 2 * 2 * 3  # of the first two
    assert more[-3:] == [str(least), str(least), "0"]


def test_two_counters_that_agree_are_said_to() -> None:
    report = attnprof.crosscheck(nn.Linear(4, 3, bias=False), (torch.randn(2, 4),))
    assert str(report).count("The two agree.") == 2


def test_names_from_a_model_cannot_write_to_a_terminal() -> None:
    model = nn.Sequential()
    model.add_module("\x1b[31mred", nn.Linear(4, 4))
    report = attnprof.crosscheck(model, (torch.randn(2, 4),))
    forms: list[Any] = [report.to_table(), report.to_markdown(), report.to_latex(), report.to_csv()]
    assert not any("\x1b" in text for text in forms)
