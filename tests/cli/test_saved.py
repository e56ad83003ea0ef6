"""``attnprof run FILE``: what a user types and sees, and a sentence for everything that goes wrong."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim

from attnprof.cli import main
from attnprof.cli.saved import is_file, parsed
from attnprof.core.errors import AttnprofError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    program = torch.export.export(model, (torch.ones(3, 4),), dynamic_shapes=({0: Dim("batch", min=2, max=64)},))
    torch.export.save(program, folder / "model.pt2")
    torch.save(model, folder / "whole.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(folder / "script.pt"))
    (folder / "code.py").write_text("from torch import nn\ndef build(): return nn.Linear(4, 2)\n")
    return folder


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in ("run", *arguments)])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def matmul_flops(file: Path) -> int:
    run = json.loads(file.read_text())
    assert run  # what is in it is the business of others
    import attnprof

    return attnprof.load(file).total.matmul_flops


def of_rows(rows: int) -> int:
    return 2 * rows * 4 * 8 + 2 * rows * 8 * 2


@pytest.mark.parametrize("name", ["batch", "input.0", "rows"])
def test_a_program_and_its_sizes(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    saved = tmp_path / "run.json"
    for options, rows in (([], 3), (["--dim", f"{name}=9"], 9)):
        code, out, err = ran(capsys, files / "model.pt2", *options, "-o", saved, "--force")
        assert (code, err) == (0, "")
        assert out.startswith("Sequential · float32")
        assert matmul_flops(saved) == of_rows(rows)


def test_inputs_replace_those_of_the_program(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "run.json"
    for spec in ("input=float32[7,4]", "float32[7,4]", "0=float32[7,4]"):
        code, _, err = ran(capsys, files / "model.pt2", "--input", spec, "-o", saved, "--force")
        assert (code, err) == (0, "")
        assert matmul_flops(saved) == of_rows(7)


def test_torchscript(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "run.json"
    code, out, err = ran(capsys, files / "script.pt", "--input", "input=float32[5,4]", "--eval", "-o", saved)
    assert (code, err) == (0, "")
    assert "op by op as its graph states them" in out
    assert matmul_flops(saved) == of_rows(5)


def test_other_options_work_on_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(
        capsys, files / "model.pt2", "--fake", "--optimizer", "adamw", "--freeze", "0", "--device", "h100-sxm"
    )
    assert code == 0
    assert "· fake" in out
    assert "optimizer" in out


def test_trusted_pickles_run(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "run.json"
    options = ("--trust-pickle", "--input", "input=float32[5,4]", "-o", saved)
    code, _, err = ran(capsys, files / "whole.pth", *options)
    assert (code, err) == (0, "")
    assert matmul_flops(saved) == of_rows(5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.pt2", "--dim", "batch=65"], ["batch=65", "from 2 to 64"]),
        (["model.pt2", "--dim", "input.1=4"], ['no size "input.1"', "input.0"]),
        (["model.pt2", "--dim", "batch"], ["NAME=N"]),
        (["model.pt2", "--dim", "batch=x"], ["NAME=N"]),
        (["model.pt2", "--dim", "batch=-4"], ["NAME=N"]),
        (["model.pt2", "--dim", "=4"], ["NAME=N"]),
        (["model.pt2", "--dim", "batch=4", "--dim", "batch=5"], ["twice"]),
        (["model.pt2", "--train"], ["mode it was exported in"]),
        (["model.pt2", "--model", "code.py:build"], ["--model", "leave it out"]),
        (["model.pt2", "--task", "x"], ["--task", "leave it out"]),
        (["model.pt2", "--input", "input=float32[5,3]"], ["input is float32[5,3]"]),
        (["model.pt2", "--input", "other=float32[5,4]"], ["no argument", "input"]),
        (["script.pt"], ["input", "--input"]),
        (["script.pt", "--dim", "batch=4"], ["TorchScript archive", "--dim"]),
        (["whole.pth"], ["pickled model (class torch.nn.modules.container.Sequential)", "--trust-pickle"]),
        (["code.py:build", "--dim", "batch=4"], ["--dim", "not one"]),
        (["code.py:build", "--trust-pickle"], ["--trust-pickle", "not one"]),
        (["missing.pt2"], ["missing.pt2", "No such file"]),
        (["code.py"], ["names no callable"]),
        (["."], ["folder without a config.json"]),
    ],
)
def test_refusals_are_a_sentence(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(files)
    code, out, err = ran(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("attnprof: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_what_is_a_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    assert [is_file(text) for text in ("model.pt2", "gone.safetensors", str(files), "config.json")] == [True] * 4
    assert [is_file(text) for text in ("code.py:build", "code.py", "package.module:build", "gpt")] == [False] * 4


def test_sizes_as_they_are_typed() -> None:
    assert parsed(["batch=4", " x.0 = 7"]) == {"batch": 4, "x.0": 7}
    with pytest.raises(AttnprofError, match="twice"):
        parsed(["a=1", "a=1"])
