"""What training states take altogether: mixed precision, and frozen queries and keys, in bytes per parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from memory.readings import Reading, read
from training.attention import Block

E = 4
D, F = 12, 20
WEIGHTS, BIASES = D * F + F * D, F + D  # of the net below: two matrices, two vectors
P = WEIGHTS + BIASES
COUNTERS = 4 * E  # Adam counts steps in one float32 per parameter


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, F), nn.Linear(F, D))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor | None = None) -> None:
    model(torch.randn(3, D) if x is None else x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], steps: int = 2) -> Reading:
    model = net()

    def run() -> torch.optim.Optimizer:
        optimizer = make(model.parameters())
        for _ in range(steps):
            step(model, optimizer)
        return optimizer

    return read(run, model)


# Mixed precision


def test_master_weights_in_the_optimizer() -> None:
    """A model in half precision whose optimizer has float32 parameters of its own: they are its state."""
    model = net().bfloat16()
    masters = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.AdamW(masters)
    x = torch.randn(3, D).bfloat16()

    def run() -> None:
        for _ in range(2):
            model(x).sum().backward()
            for p, master in zip(model.parameters(), masters, strict=True):
                master.grad = p.grad.float()
                p.grad = None
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for p, master in zip(model.parameters(), masters, strict=True):
                    p.copy_(master)

    memory = read(run, model).memory
    assert memory.state_bytes["parameter"] == 2 * P
    assert memory.optimizer_bytes == {
        "step": COUNTERS,
        "exp_avg": 4 * P,
        "exp_avg_sq": 4 * P,
        "parameters": 4 * P,
    }
    # Either the model's gradients or, larger, their float32 copies.
    assert memory.state_bytes["gradient"] == 4 * P


class MixedAdam(torch.optim.Optimizer):
    """Adam on float32 copies of half-precision parameters, kept as its state."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["master"] = p.float()
                    state["exp_avg"] = torch.zeros_like(p, dtype=torch.float32)
                    state["exp_avg_sq"] = torch.zeros_like(p, dtype=torch.float32)
                state["exp_avg"].lerp_(p.grad.float(), 0.1)
                state["exp_avg_sq"].lerp_(p.grad.float() ** 2, 0.01)
                state["master"].sub_(state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8))
                p.copy_(state["master"])


def states(reading: Reading) -> int:
    """Everything that lasts: parameters, gradients, optimizer state; Adam's counters of steps left out."""
    memory = reading.memory
    kept = {name: size for name, size in memory.optimizer_bytes.items() if name != "step"}
    return memory.state_bytes["parameter"] + memory.state_bytes["gradient"] + sum(kept.values())


def test_mixed_precision_takes_16_bytes_per_parameter() -> None:
    """2 for the parameter, 2 for its gradient, 4 for the float32 copy, 8 for Adam; a frozen one takes 2."""
    model = net().bfloat16()
    model[1].requires_grad_(False)
    optimizer = MixedAdam(model.parameters())
    reading = read(lambda: step(model, optimizer, torch.randn(3, D).bfloat16()), model)
    frozen = F * D + D
    assert states(reading) == 16 * (P - frozen) + 2 * frozen


# Frozen queries and keys


class Projections(nn.Module):
    """The four weights of attention, d² each."""

    def __init__(self, d: int, frozen: str) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        for name in frozen:
            getattr(self, name).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).transpose(-1, -2)
        return self.o(scores.softmax(-1) @ self.v(x))


def states_of(
    build: Callable[[], nn.Module],
    dtype: torch.dtype,
    d: int,
    make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.Adam,
) -> int:
    with attnprof.fake_tensors():
        model = build().to(dtype)
        optimizer = make(model.parameters())
        x = torch.randn(1, 3, d, dtype=dtype)
        return states(read(lambda: (step(model, optimizer, x), None), model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("d", [512, 768, 1024])
def test_frozen_queries_and_keys_save_three_eighths_of_the_states(d: int, dtype: torch.dtype) -> None:
    """Parameters 4 d², gradients 4 d², Adam 8 d²; of the frozen half only the parameters are left: 10 of 16."""
    trainable = states_of(lambda: Projections(d, ""), dtype, d)
    frozen = states_of(lambda: Projections(d, "qk"), dtype, d)
    assert trainable == 16 * d * d * dtype.itemsize
    assert frozen == 10 * d * d * dtype.itemsize
    assert 1 - Fraction(frozen, trainable) == Fraction(375, 1000)


def test_frozen_queries_and_keys_in_mixed_precision() -> None:
    """16 bytes against 2 for each of the two frozen weights; against 6 when they have a float32 copy too."""
    d = 768
    trainable = states_of(lambda: Projections(d, ""), torch.bfloat16, d, MixedAdam)
    frozen = states_of(lambda: Projections(d, "qk"), torch.bfloat16, d, MixedAdam)
    assert (trainable, frozen) == (4 * 16 * d * d, (2 * 16 + 2 * 2) * d * d)
    assert 1 - Fraction(frozen, trainable) == Fraction(4375, 10000)
    copied = frozen + 2 * 4 * d * d
    assert 1 - Fraction(copied, trainable) == Fraction(3125, 10000)


def test_frozen_queries_and_keys_of_a_whole_block() -> None:
    """Attention without biases: 12 d² + 9 d parameters, of which 2 d² lose gradient and Adam state."""
    d = 768

    def build(frozen: bool) -> nn.Module:
        block = Block(d, 12, fused=False)
        for name in "qkvo":
            getattr(block.attention, name).bias = None
        for name in "qk" if frozen else "":
            getattr(block.attention, name).requires_grad_(False)
        return block

    trainable = states_of(lambda: build(False), torch.float32, d)
    frozen = states_of(lambda: build(True), torch.float32, d)
    assert trainable == 4 * E * (12 * d * d + 9 * d)
    assert trainable - frozen == 3 * E * 2 * d * d
    assert Fraction(1248, 10000) < 1 - Fraction(frozen, trainable) < Fraction(1249, 10000)
