"""What a training loop costs under attnprof once its steps are known: forward, backward, AdamW, on one thread.

The model is overhead-bound: a 12-layer d=64 GPT, batch 1, T=16, that of capture_overhead.py. Two equal ones, with an
optimizer each, take steps in turns in one process: the first bare, the second inside ``with attnprof.profile(model)``
with ``prof.step()`` at each step's end. What counts is what a step takes more than the one before it, in time of the
thread itself: other work on the machine counts less that way. Then the two change places, as memory is not the same to
both; a round is the mean of the two. "bare again" is what chance makes of nothing.

    python benchmarks/steady_state.py [--rounds 10] [--steps 200]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from capture_overhead import Block
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import attnprof

#: Steps after which every kind of step is known, and the state of the model is looked at by samples.
WARM_UP = 40

Step = Callable[[], object]


def training_step() -> tuple[nn.Module, Step]:
    """A model, and a step of its training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(256, 64), *(Block(64, 4) for _ in range(12)), nn.Linear(64, 256))
    optimizer, x = torch.optim.AdamW(model.parameters()), torch.randint(256, (1, 16))

    def step() -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, step


def block(step: Step, steps: int) -> float:
    """Seconds of the thread per step."""
    start = time.thread_time()
    for _ in range(steps):
        step()
    return (time.thread_time() - start) / steps


def in_turns(bare: Step, ours: Step, steps: int) -> tuple[float, float]:
    """Seconds of a bare step, and what the other takes more: the mean without the highest and the lowest fifth."""
    took, more = [], []
    for _ in range(WARM_UP):
        ours()
    for _ in range(steps):
        took.append(block(bare, 1))
        more.append(block(ours, 1) - took[-1])
    fifth = len(more) // 5
    return statistics.median(took), statistics.mean(sorted(more)[fifth : len(more) - fifth])


def beside(models: list[tuple[nn.Module, Step]], steps: int, *, profiled: bool) -> float:
    """What a step of the second costs more than one of the first, as a part of that; the mean of both orders."""
    ratios = []
    for (_, bare), (model, step) in (models, models[::-1]):
        prof = attnprof.profile(model)
        opened: AbstractContextManager[object] = prof if profiled else nullcontext()
        with opened:
            took, more = in_turns(bare, lambda s=step, p=prof: (s(), p.step()) if profiled else s(), steps)  # type: ignore[misc]
        ratios.append(more / took)
    return statistics.mean(ratios)


def under_torch(step: Step, steps: int) -> float:
    """What a step inside FlopCounterMode costs more than one outside, as a part of that."""
    bare = block(step, steps)
    with FlopCounterMode(display=False):
        return block(step, steps) / bare - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)

    models = [training_step(), training_step()]
    found: dict[str, list[float]] = {"bare again": [], "attnprof": [], "FlopCounterMode": []}
    for _ in range(options.rounds):
        found["bare again"].append(beside(models, options.steps, profiled=False))
        found["attnprof"].append(beside(models, options.steps, profiled=True))
        found["FlopCounterMode"].append(under_torch(models[0][1], max(options.steps // 20, 1)))
    print(f"a bare step takes {block(models[0][1], options.steps) * 1e6:.0f} us of its thread")
    print(f"{'':<16}more than bare (median of rounds, quartiles)")
    for name, ratios in found.items():
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:<16}{middle:+8.2%} ({low:+.2%} to {high:+.2%})")


if __name__ == "__main__":
    main()
