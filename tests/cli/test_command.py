"""The commands as a person meets them: output, one sentence per mistake, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attnprof.cli import main
from attnprof.core.trace_json import SCHEMA

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x, fail=False):
        y = self.up(x)
        if fail:
            raise ValueError("no such thing")
        if self.training:
            y = torch.relu(y)
        return self.down(y)

def build(): return Net(), (torch.zeros(4, 8),)
def bare(): return Net()
def meta(): return Net().to("meta")
async def later(): return Net()
def frozen(): return Net().requires_grad_(False), (torch.zeros(4, 8),)
def raises(): raise RuntimeError("cannot build")
def leaves(): raise SystemExit(3)
def looks():
    class Looks(Net):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x
    return Looks(), (torch.zeros(4, 8),)
def slow():
    import time
    class Slow(Net):
        def forward(self, x):
            y = super().forward(x)
            print("running", flush=True)
            time.sleep(60)
            return y
    return Slow(), (torch.zeros(4, 8),)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("net", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def attnprof(capsys: pytest.CaptureFixture[str]) -> object:
    def call(*arguments: str) -> Result:
        sys.modules.pop("net", None)
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return Result(int(left.value.code or 0), out, err)

    return call


FORWARD = 2 * 4 * 8 * 16 * 2  # two Linears on a batch of 4


def test_run_shows_the_table(attnprof) -> None:
    result = attnprof("run", "net.py:build", "--backward", "--units", "exact")
    assert (result.code, result.err) == (0, "")
    first, *_ = result.out.splitlines()
    assert first.startswith("Net · float32 · float32[4,8] · forward + backward")
    total = next(line for line in result.out.splitlines() if line.startswith("total"))
    # the input needs no gradient: dX only for the second Linear
    assert f"{FORWARD + FORWARD + FORWARD // 2:,}" in total.split()
    assert "coverage 100%" in result.out


def test_inputs_and_modes(attnprof) -> None:
    on = attnprof("run", "net.py:bare", "-i", "x=float32[4,8]", "--by", "op", "--train")
    off = attnprof("run", "net.py:bare", "-i", "float32[4,8]", "--by", "op", "--eval")
    assert "aten.relu.default" in on.out
    assert off.code == 0
    assert "aten.relu.default" not in off.out


def test_a_model_on_meta_gets_its_inputs_there(attnprof) -> None:
    for extra in ([], ["--fake"]):
        result = attnprof("run", "net.py:meta", "-i", "float32[4,8]", "--units", "exact", *extra)
        assert (result.code, result.err) == (0, "")
        assert f"{FORWARD:,}" in result.out


def test_strict_shows_the_table_first(attnprof, folder: Path) -> None:
    (folder / "own.py").write_text(
        "import torch\nfrom torch import nn\n"
        "@torch.library.custom_op('stricttest::double', mutates_args=())\n"
        "def double(x: torch.Tensor) -> torch.Tensor: return x * 2\n"
        "class Net(nn.Module):\n    def forward(self, x): return double(x)\n"
        "def build(): return Net(), (torch.ones(4),)\n"
    )
    for arguments in (("run", "own.py:build", "-o", "run.json"), ("report", "run.json")):
        result = attnprof(*arguments, "--strict")
        assert result.code == 2
        assert "no formula: stricttest.double" in result.out
        assert result.err.startswith("attnprof: 1 op has no formula: stricttest.double")
        assert result.err.count("\n") == 1


def test_a_saved_run_is_shown_the_same(attnprof, folder: Path) -> None:
    shown = attnprof("run", "net.py:build", "--backward", "-o", "run.json")
    again = attnprof("report", "run.json")
    assert again.out == shown.out
    assert (again.code, again.err) == (0, "")
    assert json.loads((folder / "run.json").read_text())["format"] == "attnprof trace"


def test_fake_runs_build_fake(attnprof, folder: Path) -> None:
    (folder / "huge.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build(): return nn.Linear(10**6, 10**6).half(), (torch.zeros(8, 10**6, dtype=torch.half),)\n"
    )
    result = attnprof("run", "huge.py:build", "--fake", "--units", "exact")
    assert result.code == 0, result.err
    assert f"{2 * 8 * 10**12:,}" in result.out
    assert result.out.splitlines()[0].split("  ")[0].endswith(" · fake")
    assert "Counted on fake tensors" in result.out
    with_input = attnprof("run", "net.py:bare", "--fake", "-i", "x=float32[4,8]", "--units", "exact")
    assert f"{FORWARD:,}" in with_input.out


def test_the_models_exception_is_its_own_and_the_profile_is_not_lost(attnprof, folder: Path) -> None:
    result = attnprof("run", "net.py:bare", "-i", "x=float32[4,8]", "-i", "fail=true", "-o", "run.json")
    assert result.code == 1
    assert 'raise ValueError("no such thing")' in result.err
    assert str(folder / "net.py") in result.err
    assert f"attnprof{os.sep}" not in result.err  # none of our frames
    assert "Warning" not in result.err
    assert "Incomplete: the model raised after" in result.out
    line = next(line for line in result.out.splitlines() if "─ up " in line)
    assert "1" in line.split()
    assert not (folder / "run.json").exists()


def test_a_target_that_raises_is_its_own_traceback(attnprof) -> None:
    result = attnprof("run", "net.py:raises")
    assert (result.code, result.out) == (1, "")
    assert result.err.rstrip().endswith("RuntimeError: cannot build")
    assert f"attnprof{os.sep}" not in result.err
    syntax = attnprof("run", "broken.py:build")
    assert syntax.code == 1
    assert "SyntaxError" in syntax.err
    assert "importlib" not in syntax.err


def test_a_fake_run_of_a_model_that_looks_at_values_says_so(attnprof) -> None:
    result = attnprof("run", "net.py:looks", "--fake")
    assert result.code == 1
    assert "Values are unknown under --fake" in result.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("run nothing.py:build", "nothing.py does not exist."),
        ("run net.py:build --input x=float33[4,8]", 'no dtype "float33". Did you mean float32'),
        ("run net.py:build --input y=float32[4,8]", 'Net.forward has no argument "y"; it has x, fail.'),
        ("run net.py:build --input float32[99999999999999999999999,4]", "is too large: it must be below 2**63."),
        ("run net.py:build --input 0=float32[4,8] --input x=float32[4,8]", 'both for the argument "x"'),
        ("run net.py:later", "net.py:later returned a coroutine"),
        ("run net.py:bare", "the arguments do not fit Net.forward"),
        ("run net.py:frozen --backward", "backward was asked for, but nothing in the model's output"),
        ("run net.py:leaves", "called sys.exit(3)"),
        ("run net.py:build -o no/where.json", "cannot write no/where.json: the folder no does not exist."),
        ("run net.py:build --units miles", 'no units "miles"'),
        ("run net.py:build --by opp", 'by "opp" is not one of module, op, step, memory, time. Did you mean op?'),
        ("run net.py:build --sort flop", "Did you mean flops?"),
        ("run net.py:build --phase forwards", "Did you mean forward?"),
        ("report none.json", "none.json does not exist."),
        ("report net.py", "net.py is not a trace"),
        ("run", "Missing argument 'TARGET'. See `attnprof run --help`."),
        ("run net.py:build --bakward", "No such option: --bakward"),
        ("run net.py:build --depth -1", "depth -1 is below 0, the model itself."),
        ("run net.py:build --top 0", "top 0 would show nothing: give 1 or more."),
        ("run net.py:build --seed -1", "seed -1 is not a number from 0 to 2**63 - 1."),
        (f"run net.py:build --seed {2**63}", "is not a number from 0 to 2**63 - 1."),
        ("run net.py:build --generate some", "Invalid value for '--generate'"),
        ("run net.py:build net.py:bare", "unexpected extra argument"),
        ("measure net.py:build", "No such command 'measure'. See `attnprof --help`."),
    ],
)
def test_a_mistake_is_one_sentence(attnprof, arguments: str, sentence: str) -> None:
    result = attnprof(*arguments.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("attnprof: ")
    assert result.err.count("\n") == 1
    assert sentence in result.err


def test_what_cannot_be_written_is_said_before_the_run(attnprof, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnprof.cli.target.find", lambda text: pytest.fail("the run began"))
    assert attnprof("run", "net.py:build", "-o", "no/where.json").code == 2


def test_damaged_traces_are_sentences(attnprof, folder: Path) -> None:
    attnprof("run", "net.py:build", "-o", "run.json")
    text = (folder / "run.json").read_text()
    (folder / "cut.json").write_text(text[: len(text) // 2])
    (folder / "newer.json").write_text(text.replace(f'"schema":{SCHEMA}', '"schema":99', 1))
    for name, sentence in (("cut.json", "cut off"), ("newer.json", "made by a newer attnprof")):
        result = attnprof("report", name)
        assert result.code == 2
        assert sentence in result.err
        assert result.err.count("\n") == 1


def test_help(attnprof) -> None:
    assert attnprof("--version").out.startswith("attnprof ")
    shown = attnprof("--help")
    assert (shown.code, shown.err) == (0, "")
    assert attnprof().out == shown.out
    commands = [line.split()[0] for line in shown.out.partition("Commands:\n")[2].splitlines() if line[:2] == "  "]
    for command in commands[: commands.index("Exit")]:
        assert f"Example: attnprof {command} " in attnprof(command, "--help").out


def test_one_op_is_no_plural(attnprof) -> None:
    result = attnprof("run", "net.py:bare", "-i", "x=float32[4,9]")  # the weight is turned, and the product fails
    assert "Incomplete: the model raised after 1 op call; this is what ran until then." in result.out


def test_what_a_terminal_cannot_show_has_stand_ins(attnprof) -> None:
    """Of one character each: the columns of the text are where they were."""
    attnprof("run", "net.py:build", "--backward", "-o", "run.json")
    command = [*COMMAND, "report", "run.json", "--by", "memory"]
    real, plain = (
        subprocess.run(
            command, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=True
        ).stdout
        for encoding in ("utf-8", "ascii")
    )
    lines, stand_ins = real.decode().splitlines(), plain.decode("ascii").splitlines()
    assert [len(line) for line in stand_ins] == [len(line) for line in lines]
    assert "?" not in plain.decode("ascii")
    total = next(n for n, line in enumerate(lines) if line.startswith("total"))
    heights = {a: b for a, b in zip(lines[total], stand_ins[total], strict=True) if a != b}
    assert len(set(heights.values())) == len(heights) > 1  # bars of different height stay different


def test_report_needs_no_torch(attnprof, folder: Path) -> None:
    attnprof("run", "net.py:build", "-o", "run.json")
    code = (
        "import sys\nfrom attnprof.cli import main\n"
        "try: main(['report', 'run.json'])\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert "coverage" in done.stdout
    assert done.stderr.strip() == "False"


def test_python_runs_it_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "attnprof", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "attnprof"


COMMAND = [sys.executable, "-c", "from attnprof.cli import main; main()"]


def test_output_that_cannot_be_written_is_a_sentence(attnprof, folder: Path) -> None:
    attnprof("run", "net.py:build", "-o", "run.json")
    with open("run.json") as unwritable:  # open for reading alone: fails as a full disk does
        done = subprocess.run([*COMMAND, "report", "run.json"], stdout=unwritable, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "attnprof: cannot write the output: Bad file descriptor.\n"


def test_a_reader_that_left_is_no_mistake(attnprof, folder: Path) -> None:
    attnprof("run", "net.py:build", "-o", "run.json")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "report", "run.json"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_interrupted(folder: Path) -> None:
    command = [sys.executable, "-c", "from attnprof.cli import main; main()", "run", "net.py:slow"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
