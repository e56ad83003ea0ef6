"""TorchScript: op by op, each in its module, with the counts of the model it was made from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.api import Report
from attnprof.core.errors import AttnprofError
from saved.nets import Conv, Gpt


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """torch.jit is deprecated, which is no news here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(before)


def per_module(report: Report) -> dict[str, dict[str, Any]]:
    return {
        phase: {name: cost for name, cost in report.by_module(phase).items() if cost.bytes or cost.flops}
        for phase in ("forward", "backward")
    }


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, again: bool = False) -> Tensor:
        x = torch.relu(self.norm(self.linear(x)))
        return self.linear(x) if again else x


class Net(nn.Module):
    """Loops, conditions, lists, an optional argument, a module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor, bias: Tensor | None = None, times: int = 2) -> tuple[Tensor, list[Tensor]]:
        seen = [x]
        x = self.first(x, again=True)
        for block in self.blocks:
            x = block(x)
            seen.append(x)
        for _ in range(times):
            x = self.first(x)
        if bias is not None:
            x = x + bias
        return x, seen


def saved(path: Path, model: nn.Module) -> Path:
    torch.jit.script(model).save(str(path))
    return path


CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "net": (Net, (torch.linspace(-1, 1, 12).view(3, 4),), {"times": 3}),
    "net with a bias": (Net, (torch.linspace(-1, 1, 12).view(3, 4), torch.ones(4)), {}),
    "conv": (Conv, (torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8),), {}),
}


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_script_costs_what_its_model_does(tmp_path: Path, name: str, training: bool, fake: bool) -> None:
    kind, args, kwargs = CASES[name]
    model = kind().train(training)
    loaded = attnprof.load_model(saved(tmp_path / "model.pt", model))
    counted = attnprof.run(loaded, args, kwargs, backward=True, fake=fake)
    expected = attnprof.run(model, args, kwargs, backward=True, fake=fake)
    assert per_module(counted) == per_module(expected)
    assert counted.unpriced == {}
    assert counted.memory.parameter_bytes == expected.memory.parameter_bytes


def test_modules_are_named_as_they_were(tmp_path: Path) -> None:
    model = Net()
    script = attnprof.load_model(saved(tmp_path / "model.pt", model)).model
    described = {path: type(part).__name__ for path, part in script.named_modules()}
    assert described == {path: type(part).__name__ for path, part in model.named_modules()}
    homes = {path: type(part).__module__ for path, part in script.named_modules()}
    assert homes["first.linear"] == "torch.nn.modules.linear"
    assert {name for name, _ in script.named_parameters()} == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_are_those_of_the_script(tmp_path: Path, training: bool) -> None:
    file = saved(tmp_path / "model.pt", Conv().train(training))
    mine, theirs = attnprof.load_model(file).model, torch.jit.load(str(file))
    outputs, gradients, buffers = [], [], []
    for model in (mine, theirs):
        torch.manual_seed(0)
        outputs.append(model(*CASES["conv"][1]))
        outputs[-1].sum().backward()
        gradients.append([p.grad for p in model.parameters()])
        buffers.append(list(model.buffers()))
    assert torch.equal(*outputs)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*buffers, strict=True))


def test_modes_can_be_changed(tmp_path: Path) -> None:
    script = attnprof.load_model(saved(tmp_path / "model.pt", Conv())).model
    args = CASES["conv"][1]
    for training in (False, True):
        expected = attnprof.run(Conv().train(training), args)
        assert per_module(attnprof.run(script.train(training), args)) == per_module(expected)
        assert script.training is training


def test_traces_have_their_modules_too(tmp_path: Path) -> None:
    model, args = Gpt().eval(), (torch.arange(14).view(2, 7),)
    torch.jit.trace(model, args).save(str(tmp_path / "model.pt"))
    counted = attnprof.run(attnprof.load_model(tmp_path / "model.pt"), args, backward=True)
    expected = attnprof.run(model, args, backward=True)

    def products(report: Report) -> dict[str, dict[str, int]]:
        phases = ("forward", "backward")
        return {
            phase: {n: cost.matmul_flops for n, cost in report.by_module(phase).items() if cost.matmul_flops}
            for phase in phases
        }

    assert products(counted) == products(expected)


def test_frozen_scripts_have_no_modules_left(tmp_path: Path) -> None:
    """torch.jit.freeze dissolves the modules: all is the root's, and the totals are right."""
    model, args = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), (torch.ones(2, 4),)
    torch.jit.freeze(torch.jit.script(model)).save(str(tmp_path / "model.pt"))
    report = attnprof.run(attnprof.load_model(tmp_path / "model.pt"), args)
    assert report.total.matmul_flops == 2 * 2 * 4 * 3 + 2 * 2 * 3 * 2
    assert [n for n, cost in report.by_module().items() if cost.matmul_flops] == [""]


with warnings.catch_warnings():
    warnings.simplefilter("ignore")

    @torch.jit.script
    class Doubler:
        """A class of TorchScript, with a state: what uses it runs in one piece."""

        def __init__(self, by: float) -> None:
            self.by = by

        def apply(self, x: Tensor) -> Tensor:
            return x * self.by


class UsesAnObject(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.odd = OddPart()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.odd(x))


class OddPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return Doubler(2.0).apply(self.linear(x))


def test_what_runs_in_one_piece_is_told(tmp_path: Path) -> None:
    loaded = attnprof.load_model(saved(tmp_path / "model.pt", UsesAnObject()))
    report = attnprof.run(loaded, (torch.ones(2, 4),), backward=True)
    assert any("odd" in note and "one piece" in note for note in report.trace.notes)
    # the product, and its two in the backward, but for the gradient of the model's input, which needs none
    product = 2 * 2 * 4 * 4
    found = {name: cost.matmul_flops for name, cost in report.by_module().items() if cost.matmul_flops}
    assert found == {"": 5 * product, "inner": 3 * product, "odd": 2 * product}


def test_quantized_weights(tmp_path: Path) -> None:
    """Packed weights are C++ objects in the archive; their products count as integer ones."""
    from torch.ao.quantization import quantize_dynamic

    model = quantize_dynamic(nn.Sequential(nn.Linear(8, 4)), {nn.Linear})
    x = torch.ones(3, 8)
    torch.jit.trace(model, (x,)).save(str(tmp_path / "model.pt"))
    report = attnprof.run(attnprof.load_model(tmp_path / "model.pt"), (x,))
    assert report.total.matmul_flops == 2 * 3 * 8 * 4


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, ["keeps no example inputs", "x is missing", "x: Tensor"]),
        ((torch.ones(2, 4),), {"mask": 1}, ["does not take mask"]),
        ((torch.ones(2, 4), None, 1, 2), {}, ["does not take 4 arguments"]),
    ],
)
def test_arguments_that_do_not_fit(
    tmp_path: Path, args: tuple[Any, ...], kwargs: dict[str, Any], words: list[str]
) -> None:
    script = attnprof.load_model(saved(tmp_path / "model.pt", Net())).model
    with pytest.raises(AttnprofError) as caught:
        script(*args, **kwargs)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_methods_beside_forward(tmp_path: Path) -> None:
    class Other(nn.Module):
        @torch.jit.export
        def encode(self, x: Tensor) -> Tensor:
            return x

        def forward(self, x: Tensor) -> Tensor:
            return x

    script = torch.jit.script(Other())
    torch.jit.save(script, str(tmp_path / "model.pt"))
    assert attnprof.run(attnprof.load_model(tmp_path / "model.pt"), (torch.ones(2),)).total.flops == 0


class Named(nn.Module):
    """Submodules of names that an implementation might want for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.call, self.attribute, self.runs, self.notes = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.notes(self.runs(self.attribute(self.call(x))))
        return made


def test_modules_may_have_any_name(tmp_path: Path) -> None:
    report = attnprof.run(attnprof.load_model(saved(tmp_path / "model.pt", Named())), (torch.zeros(2, 4),))
    found = {name: cost.matmul_flops for name, cost in report.by_module().items() if name and cost.matmul_flops}
    assert found == dict.fromkeys(("call", "attribute", "runs", "notes"), 2 * 2 * 4 * 4)


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_is_told_apart(tmp_path: Path, training: bool) -> None:
    """It looks at whether its input is nested, by ops whose tensors are named as a type of any value is."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2).train(training), torch.zeros(2, 5, 8)
    loaded = attnprof.load_model(saved(tmp_path / "model.pt", model))
    assert not any("one piece" in note for note in loaded.notes)
    report, expected = attnprof.run(loaded, (x,), backward=training), attnprof.run(model, (x,), backward=training)
    assert report.by_module() == expected.by_module()


class Flattening(nn.Module):
    """Divides a size by another, which a trace does with tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        made: Tensor = self.linear(x).view(b * t, 2, d // 2).transpose(0, 1)
        return made


def test_sizes_of_a_trace_are_known_on_fake_tensors(tmp_path: Path) -> None:
    x = torch.zeros(2, 5, 8)
    torch.jit.trace(Flattening(), (x,)).save(str(tmp_path / "model.pt"))
    loaded = attnprof.load_model(tmp_path / "model.pt")
    real, fake = (attnprof.run(loaded, (x,), fake=fake) for fake in (False, True))
    assert fake.by_module() == real.by_module()
    assert fake.by_module()["linear"].matmul_flops == 2 * 2 * 5 * 8 * 8
