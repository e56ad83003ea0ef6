"""``attnprof run --device``: whether the run fits, and what it would hold in bf16 and with checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attnprof import device
from attnprof.api import Report
from attnprof.cli import main
from reports.traces import stack

ROWS, WIDTH, LAYERS, F32 = 1_000, 100_000, 6, 4
WEIGHT = WIDTH * WIDTH

SOURCE = f"""
import torch
from torch import nn

class Block(nn.Module):
    '''Keeps the results of its three functions; checkpointed, nothing but its input.'''
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.act = nn.Tanh()
    def forward(self, x):
        return self.act(self.act(self.act(x)))

class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range({LAYERS}))
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

class Fixed(nn.Linear):
    '''Cannot be run in another dtype.'''
    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 alone")
        return super().forward(x)

def matrix(): return nn.Linear({WIDTH}, {WIDTH}, bias=False), (torch.ones({ROWS}, {WIDTH}),)
def stack(): return Stack(), (torch.ones({ROWS}, {WIDTH}, requires_grad=True),)
def layers(): return nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(6))), (torch.ones(1, 1000),)
def fixed(): return Fixed(8, 8), (torch.ones(2, 8),)
def never(): raise RuntimeError("the run began")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "big.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> object:
    def call(*arguments: str) -> tuple[int, list[str], str]:
        sys.modules.pop("big", None)
        with pytest.raises(SystemExit) as left:
            main(["run", *arguments, "--units", "exact"])
        out, err = capsys.readouterr()
        last = out.splitlines()
        start = next((n for n, line in enumerate(last) if line.startswith("coverage")), len(last))
        return int(left.value.code or 0), [line for line in last[start + 1 :] if line], err

    return call


def peaks(lines: list[str]) -> dict[str, int]:
    """The rows of the alternatives: what each is called, and its bytes."""
    rows = [line.split("  ") for line in lines[1:]]
    found = {row[0]: next(word for word in row[1:] if word.strip()) for row in rows if len(row) > 2}
    return {label: int(text.replace(",", "").split()[0]) for label, text in found.items()}


def test_a_run_that_does_not_fit_does_in_half(run) -> None:
    """Weight, gradient, AdamW's two states of it; input, output and, at most, the gradient of that; a step counter."""
    code, lines, err = run("big.py:matrix", "--fake", "--optimizer", "adamw:fused", "--device", "h100-sxm")
    assert (code, err) == (0, "")
    whole = 4 * WEIGHT * F32
    activations, counter = 3 * ROWS * WIDTH * F32, F32
    assert lines[0].startswith("h100-sxm: does not fit: needs ")
    found = peaks(lines)
    assert list(found) == ["as it is", "bf16"]  # one Linear has no repeated layers
    assert whole < found["as it is"] <= whole + activations + counter
    assert whole // 2 < found["bf16"] <= (whole + activations) // 2 + counter
    assert found["bf16"] < device("h100-sxm").capacity_bytes < found["as it is"]
    assert "fits: " in next(line for line in lines if line.startswith("bf16"))
    assert any(line.startswith("activation checkpointing: there is nothing to checkpoint in Linear") for line in lines)


def test_checkpoints_keep_a_tensor_a_layer(run) -> None:
    """Of 3 results a layer one is left; one that runs again has its own three, and three tensors go back through it."""
    _, lines, err = run("big.py:stack", "--fake", "--backward", "--device", "h100-sxm")
    assert err == ""
    found = peaks(lines)
    assert list(found) == ["as it is", "bf16", "activation checkpointing", "both"]
    tensor = ROWS * WIDTH * F32
    assert found["as it is"] >= (3 * LAYERS + 1) * tensor
    assert (LAYERS + 1) * tensor <= found["activation checkpointing"] <= (LAYERS + 1 + 3 + 3) * tensor
    assert found["both"] < found["bf16"]


@pytest.mark.parametrize("columns", [40, 60, 90])
def test_verdicts_fit_the_terminal(run, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    _, lines, _ = run("big.py:matrix", "--fake", "--optimizer", "adamw:fused", "--device", "h100-sxm")
    assert "checkpointing" in " ".join(lines)
    assert max(map(len, lines)) <= columns


def test_a_saved_run_on_a_device(run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same verdict as that of the run itself; another device has its own."""
    (folder / "half.json").write_text('{"id": "half", "based_on": "l4", "figures": {"memory_gib": 4}}')
    _, lines, _ = run("big.py:stack", "--fake", "--device", "h100-sxm", "-o", "run.json")
    assert 3 * LAYERS * ROWS * WIDTH * F32 > 4 * 2**30  # three results a layer are saved
    for name, last in (("h100-sxm", lines), ("half.json", ["half: does not fit: "])):
        with pytest.raises(SystemExit) as left:
            main(["report", "run.json", "--device", name, "--units", "exact"])
        assert not left.value.code
        assert capsys.readouterr().out.splitlines()[-1].startswith(last[-1])


def test_a_saved_run_without_memory_has_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    Report(stack().trace).save("run.json")
    with pytest.raises(SystemExit) as left:
        main(["report", "run.json", "--device", "h100-sxm"])
    assert not left.value.code
    assert capsys.readouterr().out.splitlines()[-1] == (
        "h100-sxm: memory was not tracked, so whether the run fits is not known."
    )


def test_an_optimizer_steps_as_it_would_on_the_device(run, folder: Path) -> None:
    """PyTorch's default is foreach on a GPU, a loop on a CPU; a variant that was asked for stays."""
    (folder / "cpu.json").write_text('{"id": "cpu", "figures": {"memory_gib": 64}}')
    arguments = ("big.py:layers", "--fake", "--device")
    said, *rest = run(*arguments, "h100-sxm", "--optimizer", "adamw,lr=0.1")[1]
    assert said.startswith(
        "The optimizer steps as foreach: PyTorch's default on h100-sxm, with the temporaries of all "
    )
    assert run(*arguments, "h100-sxm", "--optimizer", "adamw:foreach,lr=0.1")[1][-3:] == rest[-3:]
    loop = run(*arguments, "h100-sxm", "--optimizer", "adamw:loop,lr=0.1")[1]
    on_cpu = run(*arguments, "cpu.json", "--optimizer", "adamw,lr=0.1")[1]
    assert loop[0].startswith("h100-sxm: fits")
    assert on_cpu[0].startswith("cpu: fits")
    # The loop holds sqrt(v), its quotient and, in a variable, that of the layer before; foreach sqrt(v) of all layers.
    bytes_of_layer = 1000 * 1000 * F32
    assert peaks(loop)["as it is"] == peaks(on_cpu)["as it is"]
    assert peaks([said, *rest][1:])["as it is"] - peaks(loop)["as it is"] == (LAYERS - 3) * bytes_of_layer


def test_a_run_on_real_tensors_keeps_its_optimizer(run) -> None:
    _, lines, _ = run("big.py:fixed", "--optimizer", "adamw", "--device", "h100-sxm")
    assert " ".join(lines[:2]).startswith(
        "The optimizer stepped as the CPU's loop. --optimizer adamw:foreach is PyTorch"
    )
    assert run("big.py:fixed", "--optimizer", "adamw:loop", "--device", "h100-sxm")[1][0].startswith("h100-sxm: fits")


def test_what_applies_already_is_not_offered(run) -> None:
    arguments = ("--fake", "--backward", "--device", "h100-sxm")
    assert list(peaks(run("big.py:stack", *arguments, "--checkpoint")[1])) == ["as it is", "bf16"]
    assert list(peaks(run("big.py:stack", *arguments, "--dtype", "fp16")[1])) == [
        "as it is",
        "activation checkpointing",
    ]
    assert len(run("big.py:stack", *arguments, "--dtype", "bf16", "--checkpoint")[1]) == 1


def test_a_run_on_real_tensors_is_not_made_again(run) -> None:
    assert [line.split(":")[0] for line in run("big.py:fixed", "--backward", "--device", "h100-sxm")[1]] == ["h100-sxm"]
    assert len(run("big.py:stack", "--fake", "--device", "h100-sxm")[1]) == 1  # and no backward, no plans for one


def test_a_model_that_fails_under_another_plan(run) -> None:
    code, lines, err = run("big.py:fixed", "--fake", "--backward", "--device", "h100-sxm")
    assert (code, err) == (0, "")
    assert "bf16: the model raised TypeError: float32 alone" in lines
    assert list(peaks(lines)) == ["as it is"]


@pytest.mark.parametrize(
    ("name", "sentence"), [("h100-sxn", 'unknown device "h100-sxn". Did you mean h100-sxm'), ("none.json", "none.json")]
)
def test_an_unknown_device_is_said_before_anything_runs(run, name: str, sentence: str) -> None:
    code, lines, err = run("big.py:never", "--device", name)
    assert (code, lines) == (2, [])
    assert sentence in err
    assert err.count("\n") == 1
