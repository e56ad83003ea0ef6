"""``--format``, ``-o`` and ``--force`` as a person meets them: what goes to stdout, and what into files."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import attnprof
from attnprof.cli import main

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
    def forward(self, x, fail=False):
        print("the model says hello")
        x = self.up(x)
        if fail:
            raise ValueError("no such thing")
        return self.down(x)

def build():
    print("building")
    return Net(), (torch.zeros(4, 8),)
def fails(): return Net(), (torch.zeros(4, 8),), {"fail": True}
def never(): raise RuntimeError("the run began")
"""
#: Two Linears on a batch of 4, each with a bias to add.
MATMUL, BIASES = 2 * (2 * 4 * 8 * 16), 4 * 16 + 4 * 8
Command = Callable[..., tuple[int, str, str]]
COMMAND = [sys.executable, "-c", "from attnprof.cli import main; main()"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def attnprof_(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str) -> tuple[int, str, str]:
        sys.modules.pop("net", None)
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


@pytest.mark.parametrize("form", ["json", "csv", "markdown", "latex", "run"])
def test_data_is_alone_on_stdout(attnprof_: Command, form: str) -> None:
    code, out, err = attnprof_("run", "net.py:build", "--format", form)
    assert code == 0
    assert sorted(err.splitlines()) == ["building", "the model says hello"]
    begins = {
        "json": "{",
        "csv": "module,class,",
        "markdown": "<!-- attnprof -->\n",
        "latex": "% attnprof\n",
        "run": "{",
    }
    assert out.startswith(begins[form])
    if form == "csv":
        whole, *_ = csv.DictReader(io.StringIO(out))
        assert (int(whole["total_matmul_flops"]), int(whole["total_vector_flops"])) == (MATMUL, BIASES)
    if form == "json":
        assert json.loads(out)["total"]["matmul_flops"] == MATMUL


@pytest.mark.parametrize("form", ["table", "tree"])
def test_what_people_read_is_beside_what_the_model_prints(attnprof_: Command, form: str) -> None:
    code, out, err = attnprof_("run", "net.py:build", "--format", form)
    assert (code, err) == (0, "")
    assert out.startswith("building\nthe model says hello\nNet · ")
    assert ("  (up): Linear(in_features=8, out_features=16)" in out) is (form == "tree")


def test_output_is_by_suffix(attnprof_: Command, folder: Path) -> None:
    names = ["run.json", "layers.md", "layers.tex", "layers.csv", "layers.txt", "page.html", "run"]
    options = [word for name in names for word in ("-o", name)]
    code, out, _ = attnprof_("run", "net.py:build", "--backward", *options)
    assert code == 0
    assert out.partition("hello\n")[2] == (folder / "layers.txt").read_text()
    report = attnprof.load("run.json")
    assert (folder / "run").read_text() == (folder / "run.json").read_text()
    assert (folder / "layers.md").read_text() == report.to_markdown()
    assert (folder / "layers.tex").read_text() == report.to_latex()
    assert (folder / "layers.csv").read_text() == report.to_csv()
    report.to_html("other.html")
    assert (folder / "page.html").read_text() == (folder / "other.html").read_text()


def test_files_have_one_width_and_no_colour(attnprof_: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, out, _ = attnprof_("run", "net.py:build", "-o", "layers.txt")
    text = (folder / "layers.txt").read_text()
    assert "\x1b" in out
    assert "\x1b" not in text
    assert 60 < max(map(len, text.splitlines())) <= 120


def test_a_run_through_a_pipe(folder: Path) -> None:
    """``attnprof run ... -o - | attnprof report -``."""
    made = subprocess.run([*COMMAND, "run", "net.py:build", "-o", "-"], capture_output=True, check=True, cwd=folder)
    assert json.loads(made.stdout)["format"] == "attnprof trace"
    shown = subprocess.run([*COMMAND, "report", "-"], input=made.stdout, capture_output=True, check=True, cwd=folder)
    assert str(MATMUL) in shown.stdout.decode()
    assert shown.stderr == b""
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == ["net.py"]


def test_stdout_in_another_form(attnprof_: Command) -> None:
    one, two = (attnprof_("run", "net.py:build", *extra, "--format", "csv") for extra in ((), ("-o", "-")))
    assert one[1] == two[1]


def test_report_converts(attnprof_: Command, folder: Path) -> None:
    attnprof_("run", "net.py:build", "-o", "run.json")
    code, out, err = attnprof_("report", "run.json", "--format", "tree", "-o", "layers.csv", "-o", "again.json")
    assert (code, err) == (0, "")
    assert "(down): Linear(" in out
    assert (folder / "again.json").read_text() == (folder / "run.json").read_text()
    assert (folder / "layers.csv").exists()


def test_half_a_run_is_no_data(attnprof_: Command, folder: Path) -> None:
    code, out, err = attnprof_("run", "net.py:fails", "--format", "json", "-o", "run.json")
    assert (code, out) == (1, "")
    assert "Incomplete: the model raised" in err
    assert "nothing was written to run.json: the run is not complete." in err
    assert not (folder / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            "--format jsn",
            'format "jsn" is not one of table, tree, markdown, latex, csv, json, run. Did you mean json?',
        ),
        ("--format csv --top 3", 'the form "csv" has every module, with whole numbers: leave out top.'),
        ("--format json --units exact", 'the form "json" has every module, with whole numbers: leave out units.'),
        ("--format tree --by op", 'the form "tree" shows modules, not by="op": leave out by, or use table.'),
        ("-o a.md --by step", 'the form "markdown" shows modules, not by="step": leave out by, or use table.'),
        ("-o a.md -o ./a.md", "--output and --output are the same file, a.md: give each one of its own."),
        ("-o no/a.md", "cannot write no/a.md: the folder no does not exist."),
        (
            "-o net.py",
            "net.py exists, and attnprof did not write it: name another file, or replace it with --force.",
        ),
        (
            "--trace net.json",
            "net.json exists, and attnprof did not write it: name another file, or replace it with --force.",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(attnprof_: Command, folder: Path, arguments: str, told: str) -> None:
    (folder / "net.json").write_text("{}")
    code, out, err = attnprof_("run", "net.py:never", *arguments.split())
    assert (code, out, err) == (2, "", f"attnprof: {told}\n")
    assert (folder / "net.json").read_text() == "{}"
    assert (folder / "net.py").read_text() == SOURCE


def test_what_is_ours_or_forced_is_replaced(attnprof_: Command, folder: Path) -> None:
    (folder / "notes.md").write_text("# Notes\n")
    for arguments in (("-o", "run.json"), ("-o", "run.json"), ("-o", "notes.md", "--force"), ("-o", "notes.md")):
        assert attnprof_("run", "net.py:build", *arguments)[0] == 0
    assert (folder / "notes.md").read_text().startswith("<!-- attnprof -->")


def test_pipes_and_devices_are_written_to(attnprof_: Command, folder: Path) -> None:
    os.mkfifo("pipe")
    reading = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert attnprof_("run", "net.py:build", "-o", "pipe", "-o", "/dev/null")[0] == 0
        assert os.read(reading, 1000).startswith(b'{"format":"attnprof trace"')
    finally:
        os.close(reading)
    assert (folder / "pipe").is_fifo()


@pytest.mark.parametrize("form", ["table", "tree", "json", "run"])
def test_a_reader_that_left_is_no_mistake_and_loses_no_file(attnprof_: Command, folder: Path, form: str) -> None:
    attnprof_("run", "net.py:build", "-o", "run.json")
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "report", "run.json", "--format", form, "-o", "layers.csv"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=folder)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
    assert (folder / "layers.csv").exists()


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a command shows on a terminal."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE")}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**kept, "TERM": "xterm-256color", **environment},
    )
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    return shown.decode().replace("\r\n", "\n")


def test_colours_are_for_terminals(attnprof_: Command) -> None:
    attnprof_("run", "net.py:build", "--backward", "-o", "run.json")
    command = ("report", "run.json", "--device", "h100-sxm")
    _, piped, _ = attnprof_(*command)
    coloured = on_a_terminal(*command)
    assert "\x1b[1m" in coloured
    assert re.search(r"\x1b\[36mmemory\x1b\[0m", coloured)
    assert re.sub(r"\x1b\[\d*m", "", coloured) == piped  # colour adds nothing and moves nothing
    assert on_a_terminal(*command, NO_COLOR="1", FORCE_COLOR="1") == piped
    assert on_a_terminal(*command, TERM="dumb") == piped
    assert on_a_terminal(*command, CLICOLOR="0") == piped
    assert on_a_terminal(*command, NO_COLOR="") == coloured  # empty is as if it were not there


def test_colours_in_a_pipe_are_asked_for(attnprof_: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    attnprof_("run", "net.py:build", "-o", "run.json")
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert "\x1b[1m" in attnprof_("report", "run.json", "--format", "tree")[1]
            assert "\x1b" not in attnprof_("report", "run.json", "--format", "markdown")[1]
            patch.setenv(name, "0")
            assert "\x1b" not in attnprof_("report", "run.json")[1]
