"""``--trace-time``: which time a timeline has, asked before anything runs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from attnprof.cli import main

MODEL = """
import torch
from torch import nn


def build():
    print("built")
    return nn.Sequential(nn.Linear(8, 8), nn.GELU()), (torch.ones(2, 8),)


def sized(batch=2, seq=3):
    return nn.Linear(8, 8), (torch.ones(batch, seq, 8),)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    return "model.py:build"


def left(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--trace", "t.json", "--trace-time", "measured"], "needs the time of the layers: add --time"),
        (["--trace", "t.json", "--trace-time", "attainable"], "is the least on a device: name one"),
        (["--trace", "t.json", "--trace-time", "mesured"], "Did you mean measured?"),
        (["--trace-time", "measured", "--time"], "name its file with --trace FILE"),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(
    model: str, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert left("run", model, *words) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert "built" not in out + err
    assert not Path("t.json").exists()


def test_one_run_has_both_times(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert left("run", model, "--time-steps", "1", "--trace", "first.json.gz", "-o", "run.json") == 0
    assert (
        left("report", "run.json", "--device", "h100-sxm", "--trace", "second.json", "--trace-time", "attainable") == 0
    )
    packed = gzip.decompress(Path("first.json.gz").read_bytes())
    names = [json.loads(text)["traceEvents"][0]["args"]["name"] for text in (packed, Path("second.json").read_bytes())]
    assert names == ["Sequential, measured time on cpu", "Sequential, attainable time on h100-sxm"]


def test_a_run_that_was_not_timed_says_so(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert left("run", model, "-o", "run.json") == 0
    capsys.readouterr()
    assert left("report", "run.json", "--trace", "t.json", "--trace-time", "measured") == 2
    assert "the layers of this run were not timed" in capsys.readouterr().err
    assert not Path("t.json").exists()


def test_several_shapes_have_no_timeline(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert left("run", "model.py:sized", "--batch", "1,2", "--trace-time", "measured") == 2
    assert "--trace-time" in capsys.readouterr().err
