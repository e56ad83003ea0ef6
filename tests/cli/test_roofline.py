"""``--device``, ``--peak``, ``--bandwidth`` and ``--plot`` as a person meets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnprof.api import load
from attnprof.cli import main

WIDTH = 4_000
SOURCE = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear({WIDTH}, {WIDTH}, bias=False) for _ in range(3))
        self.act = nn.Tanh()
    def forward(self, x, fail=False):
        for layer in self.layers:
            x = self.act(layer(x))
        if fail:
            raise ValueError("no such thing")
        return x

def build(): return Net(), (torch.ones(8, {WIDTH}),)
def fails(): return Net(), (torch.ones(8, {WIDTH}),), {{"fail": True}}
def never(): raise RuntimeError("the run began")
"""
#: A device file with round figures, and little memory.
DEVICE = """{"id": "mine", "figures": {"memory_gib": 0.0625, "bandwidth_gb_per_s": 100},
"peaks": [{"engine": "vector", "dtype": "float32", "tflop_per_s": 1}]}"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    (tmp_path / "mine.json").write_text(DEVICE)
    (tmp_path / "a,b.json").write_text(DEVICE.replace("mine", "comma"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def attnprof(capsys: pytest.CaptureFixture[str]) -> object:
    def call(*arguments: str) -> tuple[int, str, str]:
        sys.modules.pop("net", None)
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def compared(out: str) -> dict[str, list[str]]:
    """The rows of the table of several devices."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("device"))
    return {line.split()[0]: line.split()[1:] for line in lines[start + 1 : lines.index("", start)]}


def test_a_run_on_a_device(attnprof) -> None:
    code, out, err = attnprof("run", "net.py:build", "--fake", "--device", "mine.json")
    assert (code, err) == (0, "")
    # three matmuls and functions: a matrix, rows in, rows out; rows in, rows out; 4 B a number, 100 GB/s
    assert 3 * (WIDTH**2 + 4 * 8 * WIDTH) * 4 == 193_536_000
    assert "mine: at best 1.94 ms, 100% memory-bound · ridge 10.0 FLOP/B (float32)" in out
    assert "peaks: dense" in out
    assert out.splitlines()[-1].startswith("mine: does not fit: needs ")


def test_several_devices_once_each_by_commas_and_by_repetition(attnprof) -> None:
    code, out, _ = attnprof(
        "run",
        "net.py:build",
        "--fake",
        "--device",
        "h100-sxm,mine.json",
        "--device",
        "mi300x, h100-sxm5",
        "--depth",
        "0",
    )
    assert code == 0
    rows = compared(out)
    assert list(rows) == ["h100-sxm", "mine", "mi300x"]
    assert rows["mine"][-1] == "short"
    assert rows["h100-sxm"][-2:] == ["to", "spare"]
    assert out.splitlines()[-1].startswith("coverage")  # the table says what fits


def test_a_file_may_have_a_comma_in_its_name(attnprof) -> None:
    assert "comma: at best" in attnprof("run", "net.py:build", "--fake", "--device", "a,b.json")[1]


def test_two_devices_of_one_name_are_refused(attnprof, folder: Path) -> None:
    (folder / "mine.json").write_text(DEVICE.replace("mine", "h100-sxm"))
    code, out, err = attnprof("run", "net.py:never", "--device", "h100-sxm,mine.json")
    assert (code, out) == (2, "")
    assert err == 'attnprof: two devices are called "h100-sxm": give the one in your file another id.\n'


def test_figures_in_place_of_the_listed_ones(attnprof) -> None:
    arguments = ("run", "net.py:build", "--fake", "--device", "mine.json", "--bandwidth", "200GB/s")
    out = attnprof(*arguments, "--peak", "fp32=4e12", "--peak", "vector:fp32=2e12")[1]
    flat = " ".join(out.split())
    assert "mine*: at best 968 µs" in flat  # half of 1.93536 ms
    assert "ridge 20.0 FLOP/B (float32)" in flat
    assert "mine*: Given by you: matmul float32 4.00 TFLOP/s in place of 1.00 TFLOP/s of the vector units" in flat
    assert out.index("Given by you") < out.index("phase ")


def test_a_saved_run_on_devices_without_torch(attnprof) -> None:
    attnprof("run", "net.py:build", "--fake", "-o", "run.json")
    command = (
        "import sys; from attnprof.cli import main\n"
        "try:\n main(sys.argv[1:])\nfinally:\n assert 'torch' not in sys.modules"
    )
    arguments = ("report", "run.json", "--device", "mine.json,h100-sxm", "--plot", "roofline.svg", "--sort", "time")
    done = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(compared(done.stdout)) == ["mine", "h100-sxm"]
    assert Path("roofline.svg").read_bytes().startswith(b"<?xml")


def test_the_saved_run_is_without_devices(attnprof) -> None:
    attnprof("run", "net.py:build", "--fake", "--device", "mine.json", "-o", "with.json")
    assert load("with.json").devices == ()


def test_other_ways_to_run_on_several_devices(attnprof) -> None:
    _, out, err = attnprof(
        "run", "net.py:build", "--fake", "--backward", "--device", "mine.json,h100-sxm", "--units", "exact"
    )
    assert err == ""
    last = out.split("\n\n")[-1].splitlines()
    ways = [line for line in last if "  fits " in line or "  not " in line]
    assert [line.split("  ")[0] for line in ways] == ["as it is", "bf16"]
    assert all("fits h100-sxm; not mine (" in line for line in ways)


def test_a_device_of_unknown_memory_has_a_roofline(attnprof, folder: Path) -> None:
    (folder / "vast.json").write_text(DEVICE.replace('"memory_gib": 0.0625, ', ""))
    code, out, err = attnprof("run", "net.py:build", "--fake", "--backward", "--device", "vast.json")
    assert (code, err) == (0, "")
    assert "mine: at best" in out
    assert out.splitlines()[-1] == "mine: its memory is not known, so whether the run fits is not known either."


MISTAKES = [
    (("--device", "h100-sxn"), 'unknown device "h100-sxn". Did you mean h100-sxm'),
    (("--device", "h100-sxm,a100-sxm-80gp"), 'unknown device "a100-sxm-80gp". Did you mean a100-sxm-80gb'),
    (("--device", "h100-sxm,"), "a device is a name such as h100-sxm, not ''"),
    (("--device", "none.json"), "none.json"),
    (("--device", "h100-sxm", "--peak", "nonsense"), 'the peak "nonsense" does not parse'),
    (("--device", "h100-sxm", "--peak", "bf16=0"), 'the peak "bf16=0" is not above zero'),
    (("--device", "h100-sxm", "--peak", "bf61=1e12"), 'no dtype "bf61" has peaks'),
    (("--device", "h100-sxm", "--bandwidth", "-4e12"), 'the bandwidth "-4e12" is not above zero'),
    (("--device", "h100-sxm,mi300x", "--peak", "bf16=1e12"), "--peak is a figure of one device: name one"),
    (("--device", "h100-sxm,mi300x", "--bandwidth", "4e12"), "--bandwidth is a figure of one device"),
    (("--peak", "bf16=1e12"), "--peak needs a device: name one, such as --device h100-sxm."),
    (("--bandwidth", "4e12"), "--bandwidth needs a device"),
    (("--sort", "time"), "--sort time needs a device"),
    (("--plot", "x.png"), "--plot needs a device"),
    (("--device", "h100-sxm", "--plot", "x.gif"), 'a plot is a .png, .svg or .pdf file, not ".gif".'),
    (("--device", "h100-sxm", "--plot", "nowhere/x.png"), "the folder nowhere does not exist"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_sentence_before_anything_runs(attnprof, arguments: tuple[str, ...], sentence: str) -> None:
    for command in (("run", "net.py:never"), ("report", "no-such-run.json")):
        code, out, err = attnprof(*command, *arguments)
        assert (code, out) == (2, "")
        assert sentence in err
        assert err.count("\n") == 1


def test_a_run_that_fails_has_times_and_no_plot(attnprof) -> None:
    code, out, err = attnprof("run", "net.py:fails", "--device", "mine.json", "--plot", "roofline.png")
    assert code == 1
    assert "mine: at best" in out
    assert "nothing was written to roofline.png: the run is not complete" in err
    assert not Path("roofline.png").exists()


def test_a_reader_that_stops_early_loses_no_file() -> None:
    arguments = ("run", "net.py:build", "--fake", "--device", "mine.json", "-o", "run.json", "--plot", "roofline.png")
    command = [sys.executable, "-c", "from attnprof.cli import main; main()", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    assert load("run.json").total.matmul_flops == 3 * 2 * 8 * WIDTH**2
    assert Path("roofline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_narrow_terminal(attnprof, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = attnprof("run", "net.py:build", "--fake", "--backward", "--device", "mine.json,h100-sxm,mi300x")
    assert max(map(len, out.splitlines())) <= columns
    assert list(compared(out)) == ["mine", "h100-sxm", "mi300x"]
