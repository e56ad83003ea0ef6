"""TARGET: what can be named, what it may return, and a sentence for everything else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from attnprof.cli import target
from attnprof.core.errors import AttnprofError

SOURCE = """
import torch
from torch import nn
import neighbour

def build(): return nn.Linear(4, 4), (torch.zeros(1, 4),)
def only(): return nn.Linear(4, 4)
def with_kwargs(): return nn.Linear(4, 4), (), {"input": torch.zeros(1, 4)}
def needs(config, depth=2): return None
def nothing(): return None
async def later(): return nn.Linear(4, 4)
def one_tensor(): return nn.Linear(4, 4), torch.zeros(1, 4)
def a_dict(): return nn.Linear(4, 4), {"input": 1}
def bad_kwargs(): return nn.Linear(4, 4), (), [1]
def a_class(): return nn.Linear
def four(): return nn.Linear(4, 4), (), {}, 4
model = nn.Linear(4, 4)
number = 3

class Net(nn.Module):
    @staticmethod
    def small(): return nn.Linear(2, 2)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a target file, and sys.path and sys.modules as they were afterwards."""
    (tmp_path / "my_model.py").write_text(SOURCE)
    (tmp_path / "neighbour.py").write_text("")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "zoo.py").write_text("from torch import nn\ndef build(): return nn.Linear(4, 4)\n")
    (tmp_path / "pkg" / "broken.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_model", "neighbour", "pkg", "pkg.zoo", "pkg.broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("my_model", "neighbour", "pkg", "_target_my_model"):
            del sys.modules[name]


def made(text: str) -> target.Target:
    return target.build(target.find(text), text)


@pytest.mark.parametrize("text", ["my_model.py:build", "./my_model.py:build", "my_model:build"])
def test_module_and_args(folder: Path, text: str) -> None:
    found = made(text)
    assert isinstance(found.model, nn.Linear)
    assert [a.shape for a in found.args] == [(1, 4)]
    assert found.kwargs is None


def test_the_other_forms(folder: Path) -> None:
    assert made("my_model.py:only").args == ()
    assert set(made("my_model.py:with_kwargs").kwargs or ()) == {"input"}
    assert isinstance(made("my_model.py:model").model, nn.Linear)  # a module as it stands
    assert isinstance(made("my_model.py:Net").model, nn.Module)  # a class without arguments
    assert made("my_model.py:Net.small").model.in_features == 2
    assert isinstance(made("pkg.zoo:build").model, nn.Linear)


def test_a_file_that_shares_its_name_with_a_loaded_module(folder: Path) -> None:
    (folder / "json.py").write_text("from torch import nn\ndef build(): return nn.Linear(4, 4)\n")
    import json

    assert isinstance(made("json.py:build").model, nn.Linear)
    assert sys.modules["json"] is json
    del sys.modules["_target_json"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("my_model.py", 'target "my_model.py" names no callable'),
        ("my_model.py:", "names no callable"),
        (":build", "names no callable"),
        ("my_modle.py:build", r"my_modle.py does not exist. Did you mean my_model.py\?"),
        ("nowhere/my_model.py:build", "nowhere/my_model.py does not exist"),
        ("pkg/:build", "pkg is not a Python file"),
        ("my_model.py:biuld", r'my_model.py has no "biuld". Did you mean build\?'),
        ("my_model.py:zzz", 'my_model.py has no "zzz". It has Net, a_class, a_dict'),
        ("my_model.py:Net.tiny", '^my_model.py:Net has no "tiny"'),
        ("my_model.py:Net.small.tiny", '^my_model.py:Net.small has no "tiny"'),
        ("my_model.py:later", "returned a coroutine; it must return a module"),
        ("__main__:build", 'no module "__main__" can be imported'),
        (f"{'x' * 300}.py:build", "cannot be read: File name too long"),
        (f"{'x' * 300}:build", "cannot be read: File name too long"),
        ("my_model.py:number", "is an int, which cannot be called"),
        ("my_model.py:needs", "needs config, but a target is called without arguments"),
        ("my_model.py:nothing", r"returned None; it must return a module, \(module, args\)"),
        ("my_model.py:one_tensor", r"returned \(Linear, Tensor\); args is a tuple: write \(model, \(x,\)\)"),
        ("my_model.py:a_dict", r"write \(model, \(\), kwargs\)"),
        ("my_model.py:bad_kwargs", "kwargs is a dict of argument names"),
        ("my_model.py:a_class", "returned a type"),
        ("my_model.py:four", "it must return a module"),
        ("no_such_module:build", 'no module "no_such_module" can be imported'),
        ("pkg.nothing:build", 'no module "pkg.nothing" can be imported'),
        ("no_such.inside:build", 'no module "no_such.inside" can be imported'),
        ("my-model:build", "neither a Python file nor a module"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_wrong_is_said(folder: Path, text: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as when the console script runs
    with pytest.raises(AttnprofError, match=sentence):
        made(text)


def test_a_failing_import_of_the_users_is_theirs(folder: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        made("pkg.broken:build")


def test_a_value_error_of_a_package_on_the_way_is_theirs(folder: Path) -> None:
    (folder / "pkg" / "__init__.py").write_text("raise ValueError('bad setting')")
    with pytest.raises(ValueError, match="bad setting"):
        made("pkg.zoo:build")


def test_args_may_be_a_list(folder: Path) -> None:
    found = target.build(lambda: (nn.Linear(4, 4), [torch.zeros(4)]), "x")
    assert len(found.args) == 1
