"""``attnprof run --generate``: the table of steps, and one sentence for what cannot be generated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from attnprof.cli import main

SOURCE = """
import torch
from torch import nn

V = 20

class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(V, 8), nn.Linear(8, V, bias=False)

    def forward(self, ids, cache=None):
        x = self.embedding(ids)
        keys = x if cache is None else torch.cat([cache, x], 1)
        return self.head(x + (x @ keys.mT) @ keys), keys

def build(): return Decoder(), (torch.zeros(2, 4, dtype=torch.int64),)
def bare(): return Decoder()
def features(): return nn.Linear(8, 8), (torch.zeros(2, 8),)
def classes():
    class Classes(Decoder):
        def forward(self, ids):
            return super().forward(ids)[0][:, 0]
    return Classes(), (torch.zeros(2, 4, dtype=torch.int64),)
def breaks():
    class Breaks(Decoder):
        def forward(self, ids, cache=None):
            if cache is not None and cache.shape[1] > 5:
                raise ValueError("too long")
            return super().forward(ids, cache)
    return Breaks(), (torch.zeros(2, 4, dtype=torch.int64),)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "net", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(command.split())
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def steps(out: str) -> list[str]:
    """The labels of the rows of the table of steps."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("step "))
    labels = [line.split("  ")[0] for line in lines[start + 1 :] if line]
    return labels[: labels.index("total") + 1]


@pytest.mark.parametrize("fake", ["", " --fake"])
def test_prefill_and_decode_steps(fake: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(f"run net.py:build --generate 3{fake} --units exact", capsys)
    assert (code, err) == (0, "")
    assert steps(out) == ["prefill", "decode 1", "decode 2", "total"]
    for keys, rows in ((4, 2 * 4), (5, 2), (6, 2)):  # two sequences: scores and sum over the keys, then the head
        assert f"{rows * (2 * 2 * 8 * keys + 2 * 8 * 20):,}" in out


def test_equal_in_the_saved_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("run net.py:build --generate 6 -o run.json", capsys)
    assert code == 0
    assert json.loads(Path("run.json").read_text())["step_labels"]
    assert run("report run.json", capsys) == (0, out, "")


def test_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("run net.py:build --generate 2 --by step", capsys)
    assert steps(out) == ["prefill", "decode 1", "total"]
    assert not any(line.startswith("layer ") for line in out.splitlines())


def test_inputs_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("run net.py:bare --generate 2 --input ids=int64[1,3]<20", capsys)
    assert code == 0
    assert "decode 1" in out


def test_an_error_of_the_model_shows_the_steps_until_then(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("run net.py:breaks --generate 9", capsys)
    assert code == 1
    assert "ValueError: too long" in err
    assert "generation.py" not in err  # the user's frames alone
    assert steps(out)[:3] == ["prefill", "decode 1", "decode 2"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("build --generate 0", "generating 0 tokens would run nothing: give 1 or more."),
        ("build --generate -2", "generating -2 tokens would run nothing: give 1 or more."),
        ("build --generate 2 --backward", "generation has no backward"),
        ("build --generate 2 --optimizer sgd", "generation has no backward"),
        ("build --generate 2 --checkpoint", "generation has no backward"),
        ("build --generate 2 --train", "generation runs in evaluation mode: leave out --train."),
        ("features --generate 2", "Linear was given no token ids (float32[2,8])"),
        ("classes --generate 2", "Classes returned float32[2,20]: generation needs logits [batch, tokens, vocabulary]"),
    ],
)
def test_a_mistake_is_one_sentence(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(f"run net.py:{command}", capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"attnprof: {message}")
    assert err.count("\n") == 1
