"""How a step is run: dtype, autocast, checkpoints, frozen parameters; each undone on the caller's model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof import AttnprofError, Plan
from attnprof.capture.plans import repeated_layers
from capture.nets import ROWS, UNIT, WIDTH, Chain, linear, rows, units


class Block(nn.Module):
    """Two Linears; the last op saves its result, so that all of it must run again in a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = linear(), linear()

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return (self.down(self.up(x).tanh()) * scale).tanh()


class Stack(nn.Module):
    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.embed = linear()
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        self.head = linear()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x, scale=0.5)
        return self.head(x)


def dtypes(report: attnprof.Report, phase: str) -> dict[str, int]:
    """Matmul FLOPs by dtype."""
    return {dtype: flops for engine, dtype, flops in report.phases[phase].split if engine == "matmul"}


def attributes(model: nn.Module) -> list[dict[str, int]]:
    return [{name: id(value) for name, value in vars(module).items()} for module in model.modules()]


# dtype and autocast


class Typed(nn.Module):
    """Floating, integer and complex tensors side by side, one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(), linear()
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.ones(WIDTH))
        self.register_buffer("turn", torch.ones(WIDTH, dtype=torch.complex64))
        self.register_buffer("index", torch.arange(WIDTH))
        self.seen: list[tuple[torch.dtype, ...]] = []

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        assert self.second.weight is self.first.weight
        self.seen.append((x.dtype, ids.dtype, self.scale.dtype, self.turn.dtype, self.index.dtype))
        return self.second(self.first(x) * self.scale)


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize("name", ["bf16", "bfloat16", torch.bfloat16, "BF16"])
def test_a_model_is_converted_for_the_run(name: Any, fake: bool) -> None:
    model, x = Typed(), rows()
    before, values = attributes(model), [p.detach().clone() for p in model.parameters()]
    report = attnprof.run(model, (x, torch.arange(3)), backward=True, plan=Plan(dtype=name), fake=fake)
    assert model.seen == [(torch.bfloat16, torch.int64, torch.bfloat16, torch.complex64, torch.int64)]
    assert dtypes(report, "forward") == {"bfloat16": 2 * UNIT}
    assert dtypes(report, "backward") == {"bfloat16": 4 * UNIT}
    assert {p.dtype for record in report.trace.modules for p in record.parameters} == {"bfloat16"}
    assert attributes(model) == before
    assert all(torch.equal(p, value) for p, value in zip(model.parameters(), values, strict=True))
    assert {p.grad for p in model.parameters()} == {None}
    assert x.grad is None


def test_a_model_of_that_dtype_is_left_alone() -> None:
    model = Chain()
    bare, planned = (attnprof.run(model, (rows(),), backward=True, plan=plan) for plan in (None, Plan(dtype="fp32")))
    assert bare.phases == planned.phases


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_autocast_covers_forward_and_loss(fake: bool) -> None:
    """The loss is a product too: [WIDTH, ROWS] x [ROWS, WIDTH], as large as a Linear."""

    def loss(y: Tensor) -> Tensor:
        return (y.T @ y).sum()

    report = attnprof.run(Chain(), (rows(),), loss=loss, plan=Plan(autocast="bf16"), fake=fake)
    assert dtypes(report, "forward") == {"bfloat16": 3 * UNIT}
    assert {p.dtype for record in report.trace.modules for p in record.parameters} == {"float32"}
    assert "Forward and loss ran under autocast to bfloat16." in report.notes


# Freezing


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("layers.0.up.weight", {"layers.0.up.weight"}),
        ("layers.0.up", {"layers.0.up.weight", "layers.0.up.bias"}),
        (["*.up.weight", "head"], {*(f"layers.{n}.up.weight" for n in range(3)), "head.weight", "head.bias"}),
        ("layers.[01].down.bias", {"layers.0.down.bias", "layers.1.down.bias"}),
        (["embed", "!*.bias"], {"embed.weight"}),
        (["!head", "head"], {"head.weight", "head.bias"}),
    ],
)
def test_what_is_frozen(freeze: Any, frozen: set[str]) -> None:
    model = Stack()
    with Plan(freeze=freeze).applied(model) as (_, notes):
        found = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert found == frozen
    assert notes == [f"Frozen: {len(frozen)} of {2 * 8} parameter tensors."]
    assert all(p.requires_grad for p in model.parameters())


def test_a_frozen_weight_costs_no_gradient_and_no_step() -> None:
    """A frozen Linear's backward is that of its input; SGD, 2 FLOPs an element, steps the other one alone."""
    report = attnprof.run(Chain(), (rows(),), optimizer="sgd", plan=Plan(freeze="first"))
    assert units(report) == {"first": {"forward": 1, "backward": 1}, "second": {"forward": 1, "backward": 2}}
    assert report.phases["optimizer"].flops == 2 * (WIDTH * WIDTH + WIDTH)


def test_what_was_frozen_before_stays_so() -> None:
    model = Chain()
    model.first.weight.requires_grad_(False)
    attnprof.run(model, (rows(),), backward=True, plan=Plan(freeze=["first", "second.bias"]))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["first.weight"]


def test_wrappers_are_not_in_the_names() -> None:
    model = torch.compile(Chain(), backend="eager")
    report = attnprof.run(model, (rows(),), backward=True, plan=Plan(freeze="first.weight"))
    assert units(report)["first"] == {"forward": 1, "backward": 1}


def test_both_names_of_a_tied_weight() -> None:
    model = Typed()
    report = attnprof.run(model, (rows(), torch.arange(3)), backward=True, plan=Plan(freeze="second.weight"))
    assert units(report) == {name: {"forward": 1, "backward": 1} for name in ("first", "second")}


# Checkpointing


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_each_layer_runs_again(fake: bool) -> None:
    """A block is two Linears, and saves the result of its last op: both run again, in the block's own modules."""
    model, x = Stack(), rows()
    before = attributes(model)
    report = attnprof.run(model, (x,), backward=True, plan=Plan(checkpoint=True), fake=fake)
    block = {"forward": 1, "backward": 2, "recompute": 1}
    layers = {f"layers.{n}.{part}": block for n in range(3) for part in ("up", "down")}
    ends = {name: {"forward": 1, "backward": 2} for name in ("embed", "head")}
    assert units(report) == layers | ends
    own = report.by_module("recompute", inclusive=False)
    functions = 3 * ROWS * WIDTH  # the block's own: tanh, the scale and, as it saves its result, the last tanh
    assert {own[f"layers.{n}"].vector_flops for n in range(3)} == {functions}
    assert any(note.startswith("Activation checkpointing of 3 Block layers") for note in report.notes)
    assert attributes(model) == before


class Numbers(nn.Module):
    """What a layer is given and gives: more than one tensor, by name too."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Pairs() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers:
            x, y = layer(x, other=y)
        return x + y


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor, *, other: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x).tanh(), other.tanh()


def test_gradients_are_those_without_checkpoints() -> None:
    for model in (Stack(), Numbers()):
        x, found = rows(), []
        for plan in (Plan(), Plan(checkpoint=True)):
            with plan.applied(model):
                found.append(torch.autograd.grad(model(x).sum(), [x, *model.parameters()]))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Hugging(nn.Module):
    """A model that checkpoints as Hugging Face's do: by a flag on its layers, and in training mode."""

    gradient_checkpointing = False

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            checkpoints = self.gradient_checkpointing and self.training
            x = self._gradient_checkpointing_func(layer.__call__, x) if checkpoints else layer(x)
        return x


def test_a_model_that_knows_how_to_checkpoint_does_it_itself() -> None:
    model = Hugging()
    before = attributes(model)
    report = attnprof.run(model, (rows(),), backward=True, plan=Plan(checkpoint=True))
    assert units(report)["layers.1.up"] == {"forward": 1, "backward": 2, "recompute": 1}
    assert attributes(model) == before
    assert not model.gradient_checkpointing
    assert "gradient_checkpointing" not in vars(model)
    model.eval()
    with pytest.raises(AttnprofError, match=r"Hugging checkpoints its layers in training mode only.*--train"):
        attnprof.run(model, (rows(),), backward=True, plan=Plan(checkpoint=True))


def sequential(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules)


def names(model: nn.Module) -> list[str]:
    found = {id(layer) for layer in repeated_layers(model)}
    return [name for name, module in model.named_modules() if id(module) in found]


def test_which_layers_repeat() -> None:
    assert names(Stack()) == ["layers.0", "layers.1", "layers.2"]
    assert names(sequential(Block(), Block())) == ["0", "1"]
    assert names(sequential(linear(), nn.ReLU(), linear())) == []  # nothing is saved by running a Linear again
    assert names(sequential(Stack(1))) == []
    stages = sequential(sequential(Block(), Block()), nn.ReLU(), sequential(Block(), Block()))
    assert names(stages) == ["0", "2"]  # the outermost
    assert names(sequential(linear(), sequential(Block(), nn.ReLU(), Block()))) == ["1.0", "1.2"]
    transformer = nn.Transformer(4, 1, 2, 2, 8)
    assert names(transformer) == [f"{side}.layers.{n}" for side in ("encoder", "decoder") for n in range(2)]
    shared = Block()
    assert len(repeated_layers(sequential(shared, shared, Block()))) == 2


class DeliberateError(Exception):
    """Raised on purpose."""


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_plans_are_undone_after_an_error(fake: bool) -> None:
    def loss(output: Tensor) -> Tensor:
        raise DeliberateError

    plan = Plan(dtype="bf16", autocast="fp16", checkpoint=True, freeze="layers.0")
    for model in (Stack(), Hugging()):
        before, parameters = attributes(model), [(id(p), p.dtype, p.requires_grad) for p in model.parameters()]
        with pytest.raises(DeliberateError):
            attnprof.run(model, (rows(),), loss=loss, plan=plan, fake=fake)
        assert attributes(model) == before
        assert [(id(p), p.dtype, p.requires_grad) for p in model.parameters()] == parameters


# What cannot be


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": "bf17"}, 'dtype "bf17" is not one of bf16, fp16, fp32, fp64. Did you mean bf16?'),
        ({"dtype": torch.int8}, 'dtype "int8" is not one of'),
        ({"autocast": "fp32"}, 'autocast "fp32" is not one of bf16, fp16.'),
    ],
)
def test_a_plan_that_is_none(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AttnprofError) as raised:
        Plan(**options)
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("model", "plan", "sentence"),
    [
        (Stack(), Plan(freeze="layer.0.up"), r"matches no parameter of Stack. Did you mean layers\."),
        (Stack(), Plan(freeze=["*", "!lora"]), r'freeze "!lora" matches no parameter of Stack'),
        (Chain(), Plan(checkpoint=True), "there is nothing to checkpoint in Chain: no ModuleList or Sequential"),
        (nn.LazyLinear(3), Plan(dtype="bf16"), "weight is lazy and has no dtype to convert yet"),
    ],
)
def test_a_plan_that_does_not_suit(model: nn.Module, plan: Plan, sentence: str) -> None:
    with pytest.raises(AttnprofError, match=sentence) as raised:
        attnprof.run(model, (rows(),), backward=True, plan=plan)
    assert "\n" not in str(raised.value)


def test_a_plan_is_a_plan() -> None:
    with pytest.raises(AttnprofError, match=r"plan takes an attnprof\.Plan, not a str"):
        attnprof.run(Chain(), (rows(),), plan="bf16")  # type: ignore[arg-type]
