"""``--trace`` and ``--flame`` as a person meets them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attnprof.api import load
from attnprof.cli import main
from reports import speedscope_rules, trace_event_rules

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(80, 160), nn.Linear(160, 80)
    def forward(self, x, fail=False):
        x = self.a(x)
        if fail:
            raise ValueError("no such thing")
        return self.b(x)

def build(): return Net(), (torch.ones(4, 80),)
def fails(): return Net(), (torch.ones(4, 80),), {"fail": True}
def never(): raise RuntimeError("the run began")
"""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def attnprof(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str) -> tuple[int, str, str]:
        sys.modules.pop("net", None)
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def test_a_run_and_the_saved_run_write_the_same(attnprof: Command, folder: Path) -> None:
    code, out, err = attnprof(
        *("run", "net.py:build", "--backward", "--device", "h100-sxm,a100-80gb-sxm", "-o", "run.json"),
        *("--trace", "t.json.gz", "--flame", "f.json", "--weight", "time"),
    )
    assert (code, err) == (0, "")
    assert "Net" in out
    code, _, err = attnprof(
        *("report", "run.json", "--device", "h100-sxm", "--trace", "u.json", "--flame", "g.json", "--weight", "time")
    )
    assert (code, err) == (0, "")
    assert gzip.decompress((folder / "t.json.gz").read_bytes()) == (folder / "u.json").read_bytes()
    assert (folder / "f.json").read_bytes() == (folder / "g.json").read_bytes()
    found = trace_event_rules.events((folder / "u.json").read_text())
    assert found[0]["args"]["name"] == "Net, attainable time on h100-sxm"
    assert {path[:3] for path in trace_event_rules.paths(found)} >= {("forward", "Net", "a"), ("backward", "Net", "b")}
    assert speedscope_rules.profile((folder / "f.json").read_text())["name"] == "Net: attainable time on h100-sxm"


def test_flops_are_what_a_flame_graph_weighs_by_itself(attnprof: Command, folder: Path) -> None:
    assert attnprof("run", "net.py:build", "-o", "run.json", "--flame", "f.folded")[0] == 0
    weights = [int(line.rpartition(" ")[2]) for line in (folder / "f.folded").read_text().splitlines()]
    assert sum(weights) == load("run.json").total.flops
    # two products and the two biases that are added
    assert weights == [2 * 4 * 80 * 160 + 4 * 160, 2 * 4 * 160 * 80 + 4 * 80]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--trace t.perfetto", 'a Chrome trace is a .json or .json.gz file, and "t.perfetto" is neither.'),
        ("--trace no/t.json", "cannot write no/t.json: the folder no does not exist."),
        ("--flame f.svg", 'or a .json file for speedscope, and "f.svg" is none of them.'),
        ("--flame no/f.txt", "cannot write no/f.txt: the folder no does not exist."),
        ("--flame f.txt --weight time", "the weight time is the least on a device: name one, such as h100-sxm."),
        ("--flame f.txt --weight flop", 'weight "flop" is not one of flops, bytes, saved, time. Did you mean flops?'),
        ("--weight bytes", "--weight is what a flame graph weighs: name its file with --flame FILE."),
        ("--trace a.json --flame ./a.json", "--trace and --flame are the same file, a.json: give each one of its own."),
        (
            "--device h100-sxm -o a.png --plot ./a.png",
            "--output and --plot are the same file, a.png: give each one of its own.",
        ),
        ("-o a.json --trace a.json", "--output and --trace are the same file, a.json: give each one of its own."),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(attnprof: Command, folder: Path, arguments: str, told: str) -> None:
    code, out, err = attnprof("run", "net.py:never", *arguments.split())
    assert (code, out) == (2, "")
    assert err.startswith("attnprof: ")
    assert err.endswith(f"{told}\n")
    assert err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["net.py"]


def test_a_saved_run_is_not_overwritten(attnprof: Command, folder: Path) -> None:
    assert attnprof("run", "net.py:build", "-o", "run.json")[0] == 0
    before = (folder / "run.json").read_bytes()
    code, _, err = attnprof("report", "run.json", "--trace", "run.json")
    assert (code, err) == (
        2,
        "attnprof: RUN.JSON and --trace are the same file, run.json: give each one of its own.\n",
    )
    assert (folder / "run.json").read_bytes() == before


def test_an_incomplete_run_writes_nothing(attnprof: Command, folder: Path) -> None:
    code, _, err = attnprof("run", "net.py:fails", "--trace", "t.json", "--flame", "f.txt")
    assert code == 1
    for name in ("t.json", "f.txt"):
        assert f"nothing was written to {name}: the run is not complete." in err
        assert not (folder / name).exists()


def test_what_was_not_saved_has_no_flame_graph_but_the_rest_is_kept(attnprof: Command, folder: Path) -> None:
    assert attnprof("run", "net.py:build", "--freeze", "*", "-o", "run.json")[0] == 0
    code, out, err = attnprof("report", "run.json", "--trace", "t.json", "--flame", "f.txt", "--weight", "saved")
    assert code == 2
    assert err == ("attnprof: there is no flame graph of this run by saved: nothing in it was saved for a backward.\n")
    assert "Net" in out
    assert json.loads((folder / "t.json").read_text())["traceEvents"]
    assert not (folder / "f.txt").exists()


def test_a_saved_run_needs_no_torch(attnprof: Command, folder: Path) -> None:
    assert attnprof("run", "net.py:build", "-o", "run.json")[0] == 0
    code = (
        "import sys\nfrom attnprof.cli import main\n"
        "try: main(['report', 'run.json', '--trace', 't.json', '--flame', 'f.json'])\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == "False\n"
    assert (folder / "t.json").exists()
    assert (folder / "f.json").exists()


@pytest.mark.parametrize("name", ["loop.json", "n" * 300 + ".json"])
def test_a_run_that_cannot_be_read_is_one_sentence(attnprof: Command, folder: Path, name: str) -> None:
    (folder / "loop.json").symlink_to("loop.json")
    code, _, err = attnprof("report", name, "--trace", "t.json")
    assert (code, err.count("\n")) == (2, 1)
    assert not (folder / "t.json").exists()
