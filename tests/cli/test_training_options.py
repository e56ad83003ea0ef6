"""How a run trains, from the command line: optimizer, loss, dtype, autocast, checkpoints, frozen parameters."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from attnprof.cli import main

ROWS, WIDTH, LAYERS = 4, 8, 3

SOURCE = f"""
import torch
from torch import nn

ROWS, WIDTH = {ROWS}, {WIDTH}
imports = []
imports.append(1)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return self.down(self.up(x).tanh()).tanh()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range({LAYERS}))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

class Labels(Net):
    def forward(self, x):
        return super().forward(x).argmax(-1)

class TooLarge(Net):
    def forward(self, x):
        y = super().forward(x)
        raise MemoryError("out of memory")

def inputs(): return (torch.ones(ROWS, WIDTH, requires_grad=True),)
def build(): return Net(), inputs()
def labels(): return Labels(), inputs()
def too_large(): return TooLarge(), inputs()
def single(): return nn.Linear(WIDTH, WIDTH), inputs()

def product(y): return (y @ y.T).sum()
def seen(y):
    assert imports == [1] and type(y) is torch.Tensor
    return y.mean()
def as_it_is(y): return y
def forgets(y): y.mean()
def of_two(y, target): return (y - target).sum()
def raises(y): raise ValueError("no loss")
def leaves(y): raise SystemExit(3)
number = 3
"""

#: One Linear on the batch: multiply-adds, times 2; a weight.
LINEAR = 2 * ROWS * WIDTH * WIDTH
FORWARD = 2 * LAYERS * LINEAR
WEIGHT = WIDTH * WIDTH


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "net", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def phase(self, name: str) -> list[str]:
        """The words of the row of a phase: name, matmul FLOPs, vector FLOPs, bytes read, bytes written, FLOP/B."""
        return next(line for line in self.out.splitlines() if line.startswith(name)).split()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> object:
    def call(target: str, *arguments: str) -> Result:
        sys.modules.pop("net", None)
        with pytest.raises(SystemExit) as left:
            main(["run", target, *arguments, "--units", "exact"])
        out, err = capsys.readouterr()
        return Result(int(left.value.code or 0), out, err)

    return call


def exactly(number: int) -> str:
    return f"{number:,}"


@pytest.mark.parametrize("fake", [[], ["--fake"]], ids=["real", "fake"])
@pytest.mark.parametrize("variant", ["", ":loop", ":foreach", ":fused"])
def test_an_optimizer_implies_the_backward(run, variant: str, fake: list[str]) -> None:
    """SGD scales each gradient and subtracts it."""
    result = run("net.py:build", "--optimizer", f"SGD{variant}", *fake)
    assert (result.code, result.err) == (0, "")
    assert "forward + backward + optimizer" in result.out.splitlines()[0]
    assert result.phase("backward")[1] == exactly(2 * FORWARD)
    assert result.phase("optimizer")[1:3] == ["0", exactly(2 * 2 * LAYERS * WEIGHT)]
    assert "optimizer_init" not in result.out
    assert "a whole step was run before, and is not counted" in result.out


def test_options_of_an_optimizer(run) -> None:
    """Momentum scales the old buffer and adds the gradient: 2 more."""
    result = run("net.py:build", "--optimizer", "sgd,momentum=0.9,lr=1e-2")
    assert result.phase("optimizer")[2] == exactly((2 + 2) * 2 * LAYERS * WEIGHT)


def test_muon_says_who_steps_what(run) -> None:
    result = run("net.py:single", "--optimizer", "muon")
    assert "Muon steps matrices that are no embeddings (1 of 2 parameter tensors), AdamW the rest." in result.out


@pytest.mark.parametrize("spec", ["net.py:product", "net:product"])
def test_a_loss_implies_the_backward(run, spec: str) -> None:
    """The loss is a product of its own, outside of any module: [ROWS, WIDTH] x [WIDTH, ROWS], three times."""
    product = 2 * ROWS * WIDTH * ROWS
    result = run("net.py:build", "--loss", spec)
    assert (result.code, result.err) == (0, "")
    assert result.phase("forward")[1] == exactly(FORWARD + product)
    assert result.phase("backward")[1] == exactly(2 * FORWARD + 2 * product)


def test_a_loss_beside_the_model_is_imported_with_it(run) -> None:
    assert run("net.py:build", "--loss", "net.py:seen").err == ""


@pytest.mark.parametrize("fake", [[], ["--fake"]], ids=["real", "fake"])
def test_dtype_and_autocast(run, fake: list[str]) -> None:
    """Bytes of the weights that SGD reads beside as many gradients: 2 each, or 4 where autocast leaves them."""
    converted = run("net.py:build", "--dtype", "bf16", "--optimizer", "sgd", *fake)
    assert "bfloat16" in converted.out.splitlines()[0]
    assert converted.phase("optimizer")[3] == exactly(2 * 2 * LAYERS * WEIGHT * 2)
    autocast = run("net.py:build", "--autocast", "bf16", "--optimizer", "sgd", *fake)
    assert "float32" in autocast.out.splitlines()[0]
    assert autocast.phase("optimizer")[3] == exactly(2 * 2 * LAYERS * WEIGHT * 4)
    assert "Forward and loss ran under autocast to bfloat16." in autocast.out


def test_checkpoints(run) -> None:
    result = run("net.py:build", "--checkpoint", "--backward")
    assert result.phase("recompute")[1] == exactly(FORWARD)
    assert f"Activation checkpointing of {LAYERS} Block layers" in result.out


def test_what_is_frozen(run) -> None:
    """A frozen Linear has no gradient of its weight."""
    result = run("net.py:build", "--freeze", "layers.*", "--freeze", "!layers.2.*", "--optimizer", "sgd")
    assert result.phase("backward")[1] == exactly(2 * FORWARD - 4 * LINEAR)
    assert result.phase("optimizer")[2] == exactly(2 * 2 * WEIGHT)
    assert "Frozen: 4 of 6 parameter tensors." in result.out


def test_everything_together_is_saved_and_shown_the_same(run, folder: Path) -> None:
    options = "--optimizer adamw:fused --loss net.py:product --dtype bf16 --checkpoint --freeze layers.0 --fake"
    shown = run("net.py:build", *options.split(), "-o", "run.json")
    assert (shown.code, shown.err) == (0, "")
    with pytest.raises(SystemExit):
        main(["report", "run.json", "--units", "exact"])


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ("--optimizer adamv", ['no optimizer "adamv". Did you mean adam']),
        ("--optimizer adamw:fussed", ['AdamW has no variant "fussed"; its variants are loop, foreach, fused.']),
        ("--optimizer adamw,momentum=1", ['AdamW takes no "momentum"; it takes lr, betas']),
        ("--optimizer adamw,lr=-1", ["Invalid learning rate: -1."]),
        ("--optimizer lbfgs", ["LBFGS calls the model itself"]),
        ("--optimizer sparseadam", ["embeddings with sparse gradients, and Net has no trainable ones"]),
        ("--optimizer adamw --freeze *", ["no parameter of Net is trainable"]),
        ("--freeze layer.*", ['freeze "layer.*" matches no parameter of Net. Did you mean layers']),
        ("--dtype fp12", ['dtype "fp12" is not one of bf16, fp16, fp32, fp64.']),
        ("--autocast fp32", ['autocast "fp32" is not one of bf16, fp16.']),
        ("--loss net.py:nothing", ['net.py has no "nothing".']),
        ("--loss net.py", ['loss "net.py" names no callable: write file.py:callable']),
        ("--loss gone.py:loss", ["gone.py does not exist."]),
        ("--loss net.py:number", ["net.py:number is an int, which cannot be called"]),
        ("--loss net.py:of_two", ["called with the model's output alone, and of_two(y, target) is not"]),
        ("--loss net.py:forgets", ["forgets, given as the loss (--loss), returned None"]),
        ("--freeze head", ['freeze "head" matches no parameter of Net. The first of its 6 is layers.0.up.weight.']),
        ("--loss net.py:as_it_is", ["as_it_is, given as the loss (--loss), returned Tensor float32[4,8]"]),
        ("--loss net.py:leaves", ["called sys.exit(3)"]),
    ],
)
def test_a_mistake_is_one_sentence(run, options: str, parts: list[str]) -> None:
    result = run("net.py:build", *options.split())
    assert result.code == 2
    assert [part for part in parts if part not in result.err] == []
    lines = [line for line in result.err.splitlines() if not line.endswith("what ran until then.")]
    assert len(lines) == 1
    assert lines[0].startswith("attnprof: ")


@pytest.mark.parametrize("fake", [[], ["--fake"]], ids=["real", "fake"])
@pytest.mark.parametrize(
    ("target", "options", "parts"),
    [
        (
            "net.py:labels",
            "--backward",
            ["the model returned Tensor int64[4], with no floating tensor in it", "--loss"],
        ),
        ("net.py:single", "--checkpoint", ["there is nothing to checkpoint in Linear"]),
    ],
)
def test_a_model_it_does_not_suit(run, target: str, options: str, parts: list[str], fake: list[str]) -> None:
    result = run(target, *options.split(), *fake)
    assert (result.code, result.out) == (2, "")
    assert [part for part in parts if part not in result.err] == []
    assert result.err.count("\n") == 1


def test_an_error_in_the_loss_shows_what_ran(run) -> None:
    result = run("net.py:build", "--loss", "net.py:raises", "-o", "run.json")
    assert result.code == 1
    assert 'raise ValueError("no loss")' in result.err
    assert result.phase("forward")[1] == exactly(FORWARD)
    assert not Path("run.json").exists()


def test_an_error_in_the_optimizer_shows_what_ran(run) -> None:
    """CPU tensors cannot be stepped as a CUDA graph needs it; the forward and backward before it are shown."""
    result = run("net.py:build", "--optimizer", "adamw,capturable=true")
    assert result.code == 1
    assert "AssertionError: If capturable=True" in result.err
    assert result.phase("backward")[1] == exactly(2 * FORWARD)


def test_out_of_memory_before_there_is_an_optimizer_state_shows_what_ran(run) -> None:
    result = run("net.py:too_large", "--optimizer", "adamw")
    assert result.code == 1
    assert "MemoryError: out of memory" in result.err
    assert result.phase("forward")[1] == exactly(FORWARD)
    assert "Incomplete: the model raised" in result.out
    assert "a whole step was run before" not in result.out  # it is what failed


def test_the_help_says_what_of_a_step_is_counted(run) -> None:
    words = re.sub(r"[\s│]+", " ", run("--help").out)
    assert "A steady step is counted: a whole step, which creates the optimizer's state, runs before it" in words
    for option in ("--optimizer", "--loss", "--dtype", "--autocast", "--checkpoint", "--freeze"):
        assert option in words
