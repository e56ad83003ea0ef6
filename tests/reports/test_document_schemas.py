"""What commands and the pytest plugin write as JSON is as its schema says, field by field."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attnprof.cli import main
from attnprof.reports.schemas import NAMES
from reports.test_schema import checked_fields, validator

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, d, depends):
        super().__init__()
        self.up, self.down, self.depends = nn.Linear(d, 4 * d), nn.Linear(4 * d, d), depends

    def forward(self, x):
        rows = x[x[:, 0, 0] > 0] if self.depends else x
        return self.down(torch.relu(self.up(rows)))


def build(T=8, d=8, batch=2, depends=False):
    return Net(d, depends), (torch.randn(batch, T, d),)


def values(T=8):
    return build(T, depends=True, batch=8)


def sized(batch=2, seq=4):
    return build(seq, batch=batch)
"""
CONFIG = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TESTS = """
import pytest, torch


@pytest.mark.limit_flops("1 kFLOP", phase="forward")
@pytest.mark.limit_flops("1 kFLOP", module="nobody")
def test_too_much():
    torch.nn.Linear(64, 64)(torch.ones(64, 64)).sum().backward()


def test_nothing():
    pass
"""
ON_DEVICE = ["--device", "h100-sxm"]
CONFIGURED = ["predict", "--config", "config.json", "--kv", "64", "--batch", "1,512"]

SCALED = ["scale", "model.py:build", "--vary", "T=8..64", "--vary", "d=8..32", "--fixed", "batch=1"]

COMMANDS = {
    "sweep": [
        ["run", "model.py:sized", "--batch", "1,2", "--seq", "4", "--optimizer", "adamw", *ON_DEVICE],
        ["run", "model.py:sized", "--seq", "4,8"],
    ],
    "weights": [["run", "weights.pt"], ["run", "sharded/model.safetensors.index.json"]],
    "study": [
        ["compare", "mha", "linear", "--d-model", "8", "--heads", "2", "--seq", "2,64", "--backward", *ON_DEVICE],
        ["compare", "mha", "--d-model", "8", "--heads", "2", "--seq", "4"],
    ],
    "serving": [
        [*CONFIGURED, "--phase", "decode", *ON_DEVICE],
        [*CONFIGURED, "--phase", "decode"],
        [*CONFIGURED, "--phase", "prefill", *ON_DEVICE],
    ],
    "attention-io": [
        ["predict", "flash-io", "--T", "4096", "--dh", "64", *ON_DEVICE],
        ["predict", "flash-io", "--T", "8", "--dh", "64", *ON_DEVICE],
    ],
    "scaling": [
        [*SCALED, "--claim", "O(T*d)", "--claim", "16*T*d^2", "--at", "T=1M,d=64", *ON_DEVICE],
        ["scale", "model.py:values", "--vary", "T=8..64"],
        ["scale", "mha", "--vary", "T=8..64", "--fixed", "d=8", "--fixed", "H=2"],
    ],
}
CASES = [(name, position) for name, commands in COMMANDS.items() for position in range(len(commands))]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import safetensors.torch
    import torch

    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    shared = torch.ones(4, 2)
    torch.save({"a": shared, "tied": shared, "b": torch.ones(3, dtype=torch.bfloat16)}, "weights.pt")
    (tmp_path / "sharded").mkdir()
    for part in "ab":
        safetensors.torch.save_file({part: shared}, tmp_path / "sharded" / f"{part}.safetensors")
    index = {"weight_map": {part: f"{part}.safetensors" for part in "ab"}}
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize(("name", "position"), CASES)
def test_a_command_writes_what_its_schema_says(
    there: Path, capfd: pytest.CaptureFixture[str], name: str, position: int
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*COMMANDS[name][position], "--format", "json"])
    text, told = capfd.readouterr()
    assert not ended.value.code, told
    validator(name).validate(json.loads(text))
    assert checked_fields(name, text) > 5


def test_pytest_writes_what_its_schema_says(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--attnprof-json", "found.json"]
    done = subprocess.run([*command, "--rootdir", "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    text = (tmp_path / "found.json").read_text()
    validator("tests").validate(json.loads(text))
    assert checked_fields("tests", text) > 15


def test_every_document_is_tried() -> None:
    assert {*NAMES} == {*COMMANDS, "run", "report", "tests"}
