"""``attnprof check``: targets held against a lock file, with exit codes for a hook or a CI job."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from attnprof.cli import main
from attnprof.core import lock

SOURCE = """
import torch
from torch import nn

WIDTH = {}

def net():
    return nn.Sequential(nn.Linear(8, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 8)), (torch.ones(4, 8),)

def other():
    return nn.Linear(8, 8), (torch.ones(4, 8),)

def bare():
    return nn.Linear(8, 8)

def loss(output):
    return output.square().mean()

def raises():
    raise RuntimeError("cannot build")
"""


def forward(width: int) -> int:
    return 2 * 2 * 4 * 8 * width + 4 * width + 4 * 8 + 4 * width


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    wide(16)
    return tmp_path


def wide(width: int) -> None:
    Path("models.py").write_text(SOURCE.format(width))


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    sys.modules.pop("models", None)
    with pytest.raises(SystemExit) as left:
        main(["check", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_written_then_held_then_broken(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert check(capsys, "models.py:net", "--update") == (0, f"models.py:net: {forward(16)} FLOP, written\n", "")
    assert set(lock.read(folder / "attnprof.lock.toml")) == {"models.py:net"}
    assert check(capsys, "models.py:net") == (0, f"models.py:net: {forward(16)} FLOP, as locked\n", "")
    wide(17)
    code, out, err = check(capsys, "models.py:net")
    assert (code, err) == (1, "attnprof: 1 of 1 targets is not as locked.\n")
    assert out.startswith(f"models.py:net: {forward(17)} FLOP, locked {forward(16)} FLOP (+")
    assert "aten.addmm.default float32 [17] [4,8] [8,17], was [16] [4,8] [8,16]" in out
    assert "update on purpose: attnprof check models.py:net --update\n" in out
    within = f"models.py:net: {forward(17)} FLOP, within 6.25% of what is locked\n"
    assert check(capsys, "models.py:net", "--tolerance", "6.25%") == (0, within, "")  # 1/16
    assert check(capsys, "models.py:net", "--update")[:2] == (0, f"models.py:net: {forward(17)} FLOP, written\n")
    assert check(capsys, "models.py:net")[0] == 0


def test_an_entry_is_named_as_the_command_counts_it(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    more = ["--backward", "--optimizer", "sgd", "--input", "float32[2,8]", "--eval", "--lock", "more.toml"]
    assert check(capsys, "models.py:bare", *more, "--update")[0] == 0
    names = list(lock.read(folder / "more.toml"))
    assert names == ["models.py:bare --input float32[2,8] --backward --optimizer sgd --eval"]
    assert check(capsys, "models.py:bare", *more)[0] == 0
    code, out, _ = check(capsys, "models.py:other", "--lock", "more.toml")
    assert code == 1
    assert "no entry in more.toml\n  write it: attnprof check models.py:other --lock more.toml --update\n" in out


def test_the_command_that_writes_an_entry_is_one_of_a_shell(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    _, out, _ = check(capsys, "models.py:bare", "--input", "float32[2,8]")
    command = out.partition("write it: ")[2]
    assert shlex.split(command) == ["attnprof", "check", "models.py:bare", "--input", "float32[2,8]", "--update"]
    assert command != " ".join(shlex.split(command)) + "\n"  # brackets are a pattern of the shell's
    assert check(capsys, *shlex.split(command)[2:])[0] == 0
    assert check(capsys, "models.py:bare", "--input", "float32[2,8]")[0] == 0


def test_the_options_of_run_are_those_of_check(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    more = ["--loss", "models.py:loss", "--freeze", "0.*", "--freeze", "2.bias", "--autocast", "bf16", "--seed", "3"]
    assert check(capsys, "models.py:net", *more, "--update")[0] == 0
    ((name, entry),) = lock.read(folder / "attnprof.lock.toml").items()
    assert name == "models.py:net --loss models.py:loss --autocast bf16 --freeze 0.* --freeze 2.bias --seed 3"
    assert ("backward", "0") not in entry.snapshot.lines  # which is frozen, as is all before it
    assert "bfloat16" in str(entry.snapshot.environment["dtype"])
    code, out, err = check(capsys, "models.py:net", "--dtype", "int7")
    assert (code, out) == (2, "")
    assert "int7" in err


def test_several_targets_and_markdown(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Each is checked, whatever becomes of the others; entries of others are left as they are."""
    check(capsys, "models.py:net", "models.py:other", "--update")
    wide(32)
    code, out, err = check(capsys, "models.py:raises", "models.py:net", "models.py:other", "--markdown", "out.md")
    assert code == 1
    assert "RuntimeError: cannot build" in err
    assert "attnprof: 2 of 3 targets are not as locked." in err
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == ["models.py:raises:", "models.py:net:", "models.py:other:"]
    assert lines[2].endswith("as locked")
    text = (folder / "out.md").read_text()
    assert text.startswith("<!-- attnprof -->\n\n2 of 3 targets differ from the lock file.")
    assert f"- **differs** models.py:net: {forward(32)} FLOP, locked {forward(16)} FLOP" in text
    assert "\n\n      0  forward  " in text  # six spaces below an item are code: columns stay columns
    assert "\n      update on purpose: attnprof check models.py:net --update\n" in text
    check(capsys, "models.py:net", "--update")
    assert set(lock.read(folder / "attnprof.lock.toml")) == {"models.py:net", "models.py:other"}


def test_markdown_on_stdout(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    check(capsys, "models.py:net", "--update")
    code, out, err = check(capsys, "models.py:net", "models.py:other", "--markdown", "-")
    assert (code, [path.name for path in folder.glob("-*")]) == (1, [])
    assert "1 of 2 targets differ from the lock file." in out
    assert f"- models.py:net: {forward(16)} FLOP, as locked" in out
    assert f"models.py:net: {forward(16)} FLOP, as locked\n" in err


def test_what_is_to_be_corrected(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    damaged = "<<<<<<< HEAD\nversion = 1\n=======\n>>>>>>> other\n"
    (folder / "merged.toml").write_text(damaged)
    for arguments, sentence in (
        (("models.py:none",), 'models.py has no "none"'),
        (("models.py:net", "--lock", "merged.toml"), "merged.toml has a merge conflict in line 1"),
        (("models.py:net", "--lock", "merged.toml", "--update"), "merged.toml has a merge conflict in line 1"),
        (("models.py:net", "--lock", "no/such.toml", "--update"), "the folder no does not exist"),
        (("models.py:net", "--tolerance", "2"), "tolerance '2' is no percentage"),
        ((), "TARGET"),
    ):
        code, out, err = check(capsys, *arguments)
        assert (code, out) == (2, "")
        assert sentence in err
        assert "Traceback" not in err
    assert (folder / "merged.toml").read_text() == damaged
