"""Live bytes over time and their peak equal what torch's allocator saw, and what a poll after each op finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import attnprof
from memory.nets import ReluFFN, Stack, SwiGLU
from memory.readings import Reading, read
from memory.reference import Allocator, allocator, poll
from training.attention import Attention, Block

E = 4
N, D, H = 5, 12, 3
ROW = E * N * D
#: Bytes at the peak for Python numbers that ops are given as tensors, and that no op made: 8 each, 4 as a float32.
#: A product keeps its number for the backward (the scaling of the scores, in each layer); AdamW divides by one.
NUMBERS = {"stack": 3 * 8, "language": 8, "in place": 8, "adamw, loop": 8 + 4, "adamw, foreach": 8 + 4}


class Step:
    """One training step of a model, the same again each time it is called."""

    def __init__(self, model: nn.Module, *inputs: Tensor, optimizer: Any = None) -> None:
        self.model, self.inputs = model, inputs
        self.optimizer = None if optimizer is None else optimizer(model.parameters())
        self()

    def __call__(self) -> None:
        output = self.model(*self.inputs)
        output.square().sum().backward()  # the gradient of a bare sum is one number, which kernels copy out
        if self.optimizer is not None:
            self.optimizer.step()
        self.model.zero_grad()
        for x in self.inputs:
            x.grad = None

    def given(self) -> Iterator[Tensor]:
        """What is there before the first op."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        if self.optimizer is not None:
            for state in self.optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))
        yield from self.inputs


def rows(*shape: int, grad: bool = True) -> Tensor:
    return torch.randn(*(shape or (1, N, D)), requires_grad=grad)


class Language(nn.Module):
    """Ids to a loss."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed, self.block = nn.Embedding(vocabulary, D), Block(D, H, fused=False)
        self.head = nn.Linear(D, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        return F.cross_entropy(self.head(self.block(self.embed(ids))).flatten(0, 1), ids.flatten())


class Checkpoints(nn.Module):
    """Blocks that run again in the backward."""

    def __init__(self, layers: int, **options: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(D, H, fused=False) for _ in range(layers))
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, **self.options)
        return x


class InPlace(nn.Module):
    """In-place ops, views of one storage, strided copies and a tensor that dies early."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, 4 * D)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x).relu_()
        a, b = h.chunk(2, -1)
        h = (a.transpose(-1, -2).contiguous() * 2).transpose(-1, -2) + b
        h = torch.cat([h, h.detach()], -1)
        return h.sigmoid_().masked_fill(h > 0.5, 0.0)


STEPS: dict[str, Callable[[], Step]] = {
    "perceptron": lambda: Step(nn.Sequential(nn.Linear(D, 40), nn.Tanh(), nn.Linear(40, 7), nn.LayerNorm(7)), rows()),
    "relu ffn": lambda: Step(ReluFFN(D, 20), rows()),
    "swiglu": lambda: Step(SwiGLU(D, 20), rows()),
    "attention": lambda: Step(Attention(D, H, fused=False), rows()),
    "plain input": lambda: Step(Attention(D, H, fused=False), rows(grad=False)),
    "block": lambda: Step(Block(D, H, fused=False), rows()),
    "stack": lambda: Step(Stack(3, D, H), rows(2, N, D)),
    "language": lambda: Step(Language(31), torch.randint(31, (2, N))),
    "in place": lambda: Step(InPlace(), rows()),
    "gru": lambda: Step(First(nn.GRU(D, 3, batch_first=True)), rows(2, N, D)),
    "dropout": lambda: Step(nn.Sequential(nn.Linear(D, D), nn.Dropout(), nn.Linear(D, D)), rows()),
    "frozen": lambda: Step(nn.Sequential(nn.Linear(D, D).requires_grad_(False), nn.Linear(D, D)), rows(grad=False)),
    "sgd": lambda: Step(Block(D, H, False), rows(), optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
    "adamw, loop": lambda: Step(Block(D, H, False), rows(), optimizer=partial(torch.optim.AdamW, foreach=False)),
    "adamw, foreach": lambda: Step(Block(D, H, False), rows(), optimizer=partial(torch.optim.AdamW, foreach=True)),
    "adamw, fused": lambda: Step(Block(D, H, False), rows(), optimizer=partial(torch.optim.AdamW, fused=True)),
    "checkpoints": lambda: Step(Checkpoints(3, use_reentrant=False, preserve_rng_state=False), rows()),
    "reentrant checkpoints": lambda: Step(Checkpoints(3, use_reentrant=True, preserve_rng_state=False), rows()),
}


class First(nn.Module):
    """The first output of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module_ = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module_(x)[0]


def captured(step: Step) -> Reading:
    return read(step, step.model)


@pytest.mark.parametrize("name", STEPS)
def test_peak_is_the_allocators(name: str) -> None:
    """What the ops of a step made, at most, besides what was given: none of these kernels needs space of its own.

    But for the numbers of ``NUMBERS``.
    """
    step = STEPS[name]()
    made = allocator(step)
    reading = captured(step)
    given = sum(t.untyped_storage().nbytes() for t in step.given())
    assert reading.peak - given == made.peak - NUMBERS.get(name, 0)
    assert reading.live[-1] - given == made.live == 0


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_the_random_states_that_checkpoints_keep_are_not_seen(use_reentrant: bool) -> None:
    """One per checkpoint, a copy of the generator's: no op makes it."""
    layer, x = nn.Linear(D, D), rows(N, D)

    def run() -> Tensor:
        y = x
        for _ in range(3):
            y = checkpoint(layer, y, use_reentrant=use_reentrant)
        return y

    made = allocator(run)
    reading = read(run, layer)
    given = E * (D * D + D) + ROW
    assert made.live - (reading.live[-1] - given) == 3 * torch.get_rng_state().numel()


@pytest.mark.parametrize("name", STEPS)
def test_live_bytes_at_every_op_are_those_of_a_poll(name: str) -> None:
    """Op by op: the whole curve, with its peak and the op that it is at."""
    step = STEPS[name]()
    reading = captured(step)
    polled = reading.as_bare(poll(step, step.given()))
    assert reading.live_at_ops == polled
    assert (reading.peak, reading.peak_event) == (max(polled), polled.index(max(polled)))


@pytest.mark.parametrize("name", [name for name in STEPS if not name.startswith(("adamw", "sgd"))])
def test_fake_tensors_live_as_real_ones_do(name: str) -> None:
    step = STEPS[name]()
    real, fake = (Reading(attnprof.run(step.model, step.inputs, backward=True, fake=f).trace) for f in (False, True))
    if name != "in place":  # the backward through a view changed in place takes other ops on fake tensors
        assert fake.live_at_allocations == real.live_at_allocations
    assert (fake.peak, fake.peak_op) == (real.peak, real.peak_op)
    assert fake.saved_by_name() == real.saved_by_name()


@pytest.mark.parametrize("name", STEPS)
def test_looking_does_not_move_the_peak(name: str) -> None:
    """The allocator under the profiler is the allocator without it: nothing lives longer for being watched."""
    step = STEPS[name]()
    bare = allocator(step)

    def watched() -> None:
        with attnprof.profile(step.model):
            step()

    made = allocator(watched)
    assert made.live == bare.live
    assert made.peak - bare.peak == (8 if name == "adamw, loop" else 0)  # its number lives while its op is noted


KERNELS: dict[str, Callable[[], Step]] = {
    "convolution": lambda: Step(nn.Conv2d(3, 8, 3), rows(1, 3, 16, 16)),
    "lstm": lambda: Step(First(nn.LSTM(D, D, batch_first=True)), rows(2, N, D)),
    "batch norm": lambda: Step(nn.Sequential(nn.BatchNorm1d(D), nn.ReLU(), nn.Linear(D, D)), rows(N, D)),
    "half precision": lambda: Step(nn.Linear(64, 64).bfloat16(), torch.randn(64, 64, dtype=torch.bfloat16)),
    "fused attention": lambda: Step(Attention(64, 4, fused=True), rows(2, 128, 64)),
}


def test_under_a_dispatch_mode_autograd_adds_two_gradients_out_of_place() -> None:
    """Bare, it may add one to the other; whatever mode looks on, it makes a third.

    The report tells what bare is, unless both are made by one op's backward.
    """
    x = rows(N, D)

    def step(of: Callable[[Tensor], Tensor]) -> None:
        of(x.exp()).sum().backward()
        x.grad = None

    class Nothing(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    def watched(mode: Any, of: Callable[[Tensor], Tensor]) -> Allocator:
        def run() -> None:
            with mode:
                step(of)

        return allocator(run)

    for of, more in ((lambda y: y.neg().sum() + y.neg().sum(), 0), (lambda y: y * y, ROW)):
        bare = allocator(partial(step, of))
        assert watched(attnprof.profile(), of) == watched(Nothing(), of)
        assert watched(Nothing(), of).peak == bare.peak + ROW
        reading = read(partial(step, of))
        assert reading.peak - ROW == bare.peak + more  # x was there before


@pytest.mark.parametrize("name", KERNELS)
def test_space_inside_of_kernels_is_not_seen(name: str) -> None:
    """What a kernel allocates and frees by itself is no tensor of the program: the allocator's peak can be higher."""
    step = KERNELS[name]()
    given = sum(t.untyped_storage().nbytes() for t in step.given())
    made = allocator(step)
    reading = captured(step)
    assert reading.peak - given <= made.peak
    assert reading.live_at_ops == reading.as_bare(poll(step, step.given()))


# By hand


def test_a_temporary_lives_until_its_last_use() -> None:
    """x, then the wide copy, then its sine beside it: the copy dies when the sum is there."""
    x = rows(N, D, grad=False)

    def run() -> Tensor:
        with torch.no_grad():
            wide = x.repeat(1, 10)
            wide = wide.sin()
            return wide.sum()

    reading = read(run)
    assert reading.live_at_ops == [11 * ROW, 21 * ROW, 11 * ROW + E]
    assert (reading.peak, reading.peak_op) == (21 * ROW, "aten.sin.default")
    assert reading.memory.log_at[-1] == 3  # after the last op, both are gone
    assert reading.live[-1] == ROW + E


def test_the_peak_of_a_chain_of_sines() -> None:
    """Each saves its input: k sines, the ones of the gradient of the sum; backward frees one as it makes one."""
    x = rows(N, D)

    class Chain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(6):
                x = x.sin()
            return x

    reading = read(lambda: Chain()(x).sum().backward())
    # x and five of six sines are saved; the sum's gradient is expanded from one number. The first step of the
    # backward, cos of the fifth sine times the gradient, makes two more.
    assert reading.saved.bytes == 6 * ROW
    assert reading.peak == (6 + 2) * ROW + 2 * E
    assert reading.live[-1] == 2 * ROW  # x and its gradient


def test_kinds_of_what_is_alive_at_the_peak() -> None:
    """The weight, the input, what the layer saved (its input) and the output."""
    layer = nn.Linear(D, D, bias=False)
    x = rows(N, D, grad=False)
    reading = read(lambda: layer(x), layer)
    assert reading.peak == E * D * D + 2 * ROW
    assert [sum(reading.of_kind(kind)) for kind in ("parameter", "input", "temporary")] == [E * D * D, ROW, ROW]


@pytest.mark.parametrize("by_name", [False, True])
def test_inputs_are_there_when_the_call_begins(by_name: bool) -> None:
    """Those that are used last, and however they are given."""

    class Net(nn.Module):
        def forward(self, x: Tensor, late: list[Tensor]) -> Tensor:
            return x.sin().cos() + late[0]

    x, late = rows(N, D, grad=False), [rows(N, D, grad=False)]
    reading = read(lambda: Net()(x, late=late) if by_name else Net()(x, late))
    assert reading.live_at_ops == [3 * ROW, 4 * ROW, 4 * ROW]


def test_storages_count_once_however_many_views() -> None:
    x = rows(N, D, grad=False)

    def run() -> list[Tensor]:
        y = x + 1
        return [y, y.t(), y[1:], y.view(-1), y.detach(), *y.unbind(0)]

    reading = read(run)
    assert reading.peak == 2 * ROW
    assert len(reading.memory.block_bytes) == 2
