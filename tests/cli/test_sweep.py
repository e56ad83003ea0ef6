"""``--batch 1,8 --seq 128,512``: one run for each shape, one table; and the sizes of a single run."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from attnprof.cli import main

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 4, bias=False)

    def forward(self, x):
        print("called")
        return self.map(x)


def plain():
    return Net()


def sized(batch=2, seq=3):
    return Net(), (torch.zeros(batch, seq, 8),)


def picky(batch=1):
    if batch > 4:
        raise RuntimeError("too many")
    return Net(), (torch.zeros(batch, 8),)


def slow(batch=1):
    import time
    if batch > 1:
        print("waiting", flush=True)
        time.sleep(60)
    return Net(), (torch.zeros(batch, 8),)
"""
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 96, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 64,
}  # fmt: skip
LETTERS = ("--input", "x=float32[B,T,8]")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text(MODEL)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["run", *arguments])
    out, err = capsys.readouterr()
    return left.value.code or 0, out, err  # type: ignore[return-value]


def points(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    code, out, _ = ran(capsys, *arguments, "--format", "json")
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)["points"]
    return found


@pytest.mark.parametrize("target", [("m.py:plain", *LETTERS), ("m.py:sized",)])
def test_every_combination_is_counted(target: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    found = points(capsys, *target, "--batch", "1,3", "--seq", "2,5", "--backward")
    assert [(p["batch"], p["seq"]) for p in found] == [(1, 2), (1, 5), (3, 2), (3, 5)]
    for p in found:
        rows = p["batch"] * p["seq"]
        assert p["forward_matmul_flops"] == 2 * rows * 8 * 4
        assert p["backward_matmul_flops"] == 2 * rows * 8 * 4  # of the weight: the input needs no gradient
        assert p["parameters"] == 8 * 4
        assert p["saved_bytes"] == 4 * rows * 8


def test_a_row_is_what_one_run_alone_says(capsys: pytest.CaptureFixture[str]) -> None:
    from attnprof import run
    from attnprof.saved import hugging_face

    found = points(capsys, "config.json", "--batch", "2,3", "--seq", "4,8", "--backward", "--device", "h100-sxm")
    for p in found:
        report = run(
            hugging_face.build("config.json", batch=p["batch"], seq=p["seq"]), backward=True, device="h100-sxm"
        )
        assert report.memory is not None
        assert p["forward_matmul_flops"] == report.phases["forward"].matmul_flops
        assert p["vector_flops"] == report.total.vector_flops
        assert p["traffic_bytes"] == report.total.bytes
        assert p["peak_bytes"] == report.memory.peak.bytes
        assert p["attainable_s"] == {"h100-sxm": report.roofline.total.attainable.seconds}


def test_sizes_of_weights_with_a_model_and_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.save({"map.weight": torch.zeros(4, 8)}, "w.pt")
    found = points(capsys, "w.pt", "--model", "m.py:sized", "--batch", "1,2")
    assert [p["forward_matmul_flops"] for p in found] == [2 * n * 3 * 8 * 4 for n in (1, 2)]
    code, out, _ = ran(capsys, "m.py:plain", *LETTERS, "--batch", "6", "--seq", "7")
    assert code == 0
    assert "float32[6,7,8]" in out
    code, out, _ = ran(capsys, "config.json", "--batch", "6", "--seq", "7")
    assert "input_ids=int64[6,7]" in out


def test_exported_programs_are_sized_by_their_axes(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    batch = torch.export.Dim("batch", min=1, max=64)
    model = torch.nn.Linear(8, 4, bias=False)
    program = torch.export.export(model, (torch.zeros(2, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, "p.pt2")
    found = points(capsys, "p.pt2", "--batch", "3,5")
    assert [p["forward_matmul_flops"] for p in found] == [2 * n * 8 * 4 for n in (3, 5)]


def test_a_configuration_generates_with_its_cache_and_is_differentiated(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "config.json", "--seq", "7", "--generate", "3", "--by", "step")
    assert code == 0
    assert "decode 2" in out
    assert "cache" in out
    arguments = ("--input", "labels=int64[2,8]<96", "--batch", "2", "--seq", "8", "--optimizer", "adamw")
    code, out, _ = ran(capsys, "config.json", *arguments, "--device", "h100-sxm")
    assert code == 0
    assert "labels=int64[2,8] · forward + backward" in out
    assert "activation checkpointing" in out  # what else would fit, as of any fake run


def test_a_configuration_is_in_training_mode_where_it_is_differentiated(capsys: pytest.CaptureFixture[str]) -> None:
    mode = ("--checkpoint", "--seq", "8")  # activation checkpointing needs training mode
    assert ran(capsys, "config.json", *mode, "--backward")[0] == 0
    code, _, err = ran(capsys, "config.json", *mode, "--backward", "--eval")
    assert code == 2
    assert "training mode only" in err


def test_a_configuration_is_timed_for_real(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "config.json", "--seq", "8", "--real", "--time-steps", "1")
    assert code == 0
    assert "with random weights" in out
    assert "fake" not in out


def test_csv_has_whole_numbers_and_what_the_model_prints_goes_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, "m.py:sized", "--seq", "2,4,...,8", "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(r["batch"], r["seq"], r["forward_matmul_flops"]) for r in rows] == [
        ("", str(n), str(2 * 2 * n * 8 * 4)) for n in (2, 4, 8)
    ]
    assert "called" in err


@pytest.mark.parametrize("form", ["table", "markdown"])
@pytest.mark.parametrize("columns", ["40", "60", "200"])
def test_tables_fit_the_terminal(
    form: str, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    arguments = ("--batch", "1,64", "--seq", "8,16", "--backward", "--device", "h100-sxm,a100-80gb-sxm")
    code, out, _ = ran(capsys, "config.json", *arguments, "--format", form)
    assert code == 0
    for word in ("batch", "seq", "forward", "backward", "traffic", "saved", "peak", "h100-sxm", "FLOP/B"):
        assert word in out
    if form == "table":
        assert max(map(len, out.splitlines())) <= int(columns)


def test_files_are_written_by_their_suffix_and_replaced(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for _ in range(2):  # what a sweep wrote, a sweep may replace
        files = [argument for name in ("s.json", "s.csv", "s.md", "s.txt") for argument in ("-o", name)]
        code, _, err = ran(capsys, "m.py:sized", "--batch", "1,2", *files)
        assert (code, err) == (0, "")
    assert json.loads((folder / "s.json").read_text())["complete"] is True
    assert (folder / "s.csv").read_text().startswith("batch,seq,parameters,")
    (folder / "mine.csv").write_text("precious\n")
    code, _, err = ran(capsys, "m.py:sized", "--batch", "1,2", "-o", "mine.csv")
    assert code == 2
    assert "attnprof did not write it" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("m.py:plain", "--batch", "2"), "--batch changes nothing of m.py:plain"),
        (
            ("m.py:plain", "--input", "x=float32[B,8]", "--batch", "2", "--seq", "3"),
            "--seq changes nothing of m.py:plain",
        ),
        (("m.py:plain", *LETTERS, "--batch", "2"), "has the size T: say which with --seq N"),
        (("m.py:sized", "--batch", "0"), "--batch '0': each size must be a whole number above zero"),
        (("m.py:sized", "--batch", "1,x"), "not 'x'"),
        (("m.py:sized", "--batch", ""), "not ''"),
        (("m.py:sized", "--batch", "1,2,...,1000", "--seq", "1,2"), "are too many: at most 1,000 runs"),
        (("m.py:sized", "--batch", "1,2", "--by", "op"), "--by is for one run, and a sweep is several"),
        (("m.py:sized", "--batch", "1,2", "--time"), "--time is for one run, and a sweep is several"),
        (("m.py:sized", "--batch", "1,2", "--html", "a.html"), "--html is for one run"),
        (("m.py:sized", "--batch", "1,2", "--format", "tree"), 'a sweep has no form "tree"'),
        (("m.py:sized", "--batch", "1,2", "-o", "a.png"), "the suffix is none of these"),
        (("config.json", "--seq", "16,65536000000"), "a size can be at most"),
        (("config.json", "--fake", "--real"), "--fake and --real exclude each other"),
        (("config.json", "--time"), "fake tensors compute nothing, so there is no time to measure"),
        (("m.py:sized", "--real"), "--real is for a model in a file"),
        (("config.json", "--task", "fill-mask"), "a llama has no model for fill-mask in transformers; it has"),
        (("config.json", "--model", "m.py:sized"), "--model names the model that weights go into"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_runs(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ran(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


ODD = """
import torch
from torch import nn


@torch.library.custom_op("sweep_test::odd", mutates_args=())
def odd(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


class Odd(nn.Module):
    def forward(self, x):
        return x + 1 if len(x) < 2 else odd(x)


def build(batch=1):
    return Odd(), (torch.ones(batch),)
"""


def test_strict_holds_for_each_run(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "odd.py").write_text(ODD)
    code, out, _ = ran(capsys, "odd.py:build", "--batch", "1,2")
    assert code == 0
    assert "Up to 1 op call has no formula" in out
    code, out, err = ran(capsys, "odd.py:build", "--batch", "1,2", "--strict")
    assert code == 2
    assert "Incomplete: 1 of 2 shapes were counted." in out
    assert "sweep_test::odd" in err


def test_a_device_without_a_peak_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ran(
        capsys, "config.json", "--batch", "1,2", "--seq", "8", "--device", "v100-sxm2-16gb", "--dtype", "bf16"
    )
    assert "no known peak" in " ".join(out.split())


def test_what_is_done_is_shown_when_a_shape_fails(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = ran(capsys, "m.py:picky", "--batch", "2,4,8", "-o", "s.csv")
    assert code == 1
    assert "Incomplete: 2 of 3 shapes were counted." in out
    assert "RuntimeError: too many" in err
    assert "nothing was written to s.csv" in err
    assert not (folder / "s.csv").exists()


def test_an_interruption_shows_what_is_done_and_a_bar_is_on_the_terminal_alone(folder: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    script = "from attnprof.cli import main; main()"
    command = [sys.executable, "-c", script, "run", "m.py:slow", "--batch", "1,2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, cwd=folder) as process:
        os.close(theirs)
        assert process.stdout is not None
        seen = ""
        while "waiting" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out = process.stdout.read()
        assert process.wait() == 130
    told = b""
    try:
        while part := os.read(ours, 65536):
            told += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert "Incomplete: 1 of 2 shapes were counted." in out
    assert b"1/2" in told  # the bar
    assert b"the sweep was interrupted" in told
    assert b"Traceback" not in told
