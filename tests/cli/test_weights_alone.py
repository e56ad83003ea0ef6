"""``attnprof run weights.safetensors`` without a model: what the file holds, in every form."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from attnprof.cli import main

D, F, LAYERS = 8, 12, 3


def state() -> dict[str, torch.Tensor]:
    """Layers that are alike, the last but its dtype."""
    found = {"wte.weight": torch.zeros(5, D)}
    for i in range(LAYERS):
        found[f"h.{i}.up.weight"] = torch.zeros(F, D, dtype=torch.bfloat16)
        found[f"h.{i}.norm"] = torch.zeros(D)
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_file(state(), "w.safetensors", metadata={"made": "here\x1b[31m"})
    return tmp_path


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["run", *arguments])
    out, err = capsys.readouterr()
    return left.value.code or 0, out, err  # type: ignore[return-value]


def test_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, "w.safetensors", "--units", "exact")
    assert (code, err) == (0, "")
    numbers, size = 5 * D + LAYERS * (F * D + D), 4 * 5 * D + LAYERS * (2 * F * D + 4 * D)
    assert f"w.safetensors · 7 tensors · {numbers} parameters · {size:,} B" in out
    assert f"dtypes: bfloat16 {LAYERS * F * D} ({LAYERS * F * D * 2} B) · float32 {5 * D + LAYERS * D}" in out
    assert re.search(
        rf"h\.\[0-2\]\.up\.weight x3 +3 +{LAYERS * F * D} +{LAYERS * F * D * 2} B +bfloat16 +\[{F},{D}\]", out
    )
    assert "\x1b" not in out  # what a file says of itself is no command for the terminal


def test_less_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ran(capsys, "w.safetensors", "--depth", "1")
    assert re.search(r"^h +6 .*bfloat16, float32", out, re.MULTILINE)
    _, out, _ = ran(capsys, "w.safetensors", "--top", "1")
    assert "and 2 more" in out
    _, out, _ = ran(capsys, "w.safetensors", "--sort", "params")
    rows = [line.split()[0] for line in out.splitlines() if re.match(r"(h|wte)\.", line)]
    assert rows == ["h.[0-2].up.weight", "wte.weight", "h.[0-2].norm"]


def test_for_programs_every_tensor(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ran(capsys, "w.safetensors", "--format", "csv")
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(out))}
    assert {name: int(row["elements"]) for name, row in rows.items()} == {n: t.numel() for n, t in state().items()}
    assert rows["h.1.up.weight"]["shape"] == f"{F}x{D}"
    _, out, _ = ran(capsys, "w.safetensors", "--format", "json")
    data = json.loads(out)
    assert {t["name"]: t["bytes"] for t in data["tensors"]} == {n: t.nbytes for n, t in state().items()}
    assert data["dtypes"]["float32"]["tensors"] == 1 + LAYERS
    _, out, _ = ran(capsys, "w.safetensors", "--format", "markdown")
    assert out.count("\n| ") == 1 + 3


@pytest.mark.parametrize("columns", ["40", "60"])
def test_narrow_terminals(columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    long = {f"a.very.long.name.of.a.part.{i}.{'x' * i}.weight": torch.zeros(3) for i in range(30)}
    save_file(long, "long.safetensors")
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = ran(capsys, "long.safetensors")
    assert code == 0
    assert max(map(len, out.splitlines())) <= int(columns)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backward",), "--backward needs a run, and weights alone have none: name the model with --model"),
        (("--device", "h100-sxm"), "--device needs a run"),
        (("--batch", "1,2"), "--batch needs a run"),
        (("-o", "run.json"), "--output needs a run"),
        (("--by", "op"), "--by needs a run"),
        (("--format", "tree"), 'weights alone have no form "tree"'),
        (("--sort", "flops"), "weights alone are sorted by params or bytes, not by 'flops'"),
        (("--depth", "0"), "depth 0 has no names"),
    ],
)
def test_what_needs_a_run_is_refused(arguments: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, "w.safetensors", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_model_that_was_pickled_whole_is_not_weights(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(nn.Linear(2, 2), "model.pth")
    code, out, err = ran(capsys, "model.pth")
    assert (code, out) == (2, "")
    assert "is a pickled model (class torch.nn.modules.linear.Linear). Loading it would run its code." in err


def test_buffers_are_no_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(nn.Sequential(nn.Linear(D, F), nn.BatchNorm1d(F)).state_dict(), "w.pth")
    _, out, _ = ran(capsys, "w.pth", "--units", "exact")
    parameters, buffers = D * F + F + 2 * F, 2 * F + 1  # mean, variance and the number of batches
    assert f"w.pth · 7 tensors · {parameters} parameters · {buffers} in buffers · " in out
    _, out, _ = ran(capsys, "w.pth", "--format", "csv")
    found = {row["name"] for row in csv.DictReader(io.StringIO(out)) if row["buffer"]}
    assert found == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    _, out, _ = ran(capsys, "w.pth", "--format", "json")
    data = json.loads(out)
    assert (data["parameters"], data["buffer_elements"]) == (parameters, buffers)
    assert {t["name"] for t in data["tensors"] if t.get("buffer")} == found
