"""What a training loop costs under attnprof once its steps are known: forward, backward, AdamW, on one thread.

The model is overhead-bound: a 12-layer d=64 GPT, batch 1, T=16, that of capture_overhead.py. Side by side in one
process: a bare loop, the same inside ``with attnprof.profile(model)`` with ``prof.step()`` at each step's end, and
inside torch's FlopCounterMode. Blocks of steps take turns, and what counts is the ratio of neighbours, in time of
the thread itself: other work on the machine counts less that way. "bare again" is what chance makes of nothing.

    python benchmarks/steady_state.py [--rounds 20] [--steps 50]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from capture_overhead import Block
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import attnprof

#: Steps after which every kind of step is known and the interpreter has settled.
WARM_UP = 10


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, ended: Callable[[], object]
) -> Callable[[], None]:
    def step() -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        ended()

    return step


def block(step: Callable[[], None], steps: int) -> float:
    """Seconds of the thread per step."""
    start = time.thread_time()
    for _ in range(steps):
        step()
    return (time.thread_time() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(256, 64), *(Block(64, 4) for _ in range(12)), nn.Linear(64, 256))
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randint(256, (1, 16))
    prof = attnprof.profile(model)
    bare = training_step(model, optimizer, x, lambda: None)
    ours = training_step(model, optimizer, x, prof.step)

    def without() -> float:
        block(bare, WARM_UP)
        return block(bare, options.steps)

    def under_attnprof() -> float:
        with prof:
            block(ours, WARM_UP)
            return block(ours, options.steps)

    def under_torch() -> float:
        with FlopCounterMode(display=False):
            return block(bare, max(options.steps // 5, 1))

    turns = [("bare", without), ("bare again", without), ("attnprof", under_attnprof), ("FlopCounterMode", under_torch)]
    times: dict[str, list[float]] = {name: [] for name, _ in turns}
    for round_ in range(options.rounds + 1):
        for name, run in turns if round_ % 2 else reversed(turns):
            took = run()
            if round_:  # the first warms up
                times[name].append(took)
    pace = prof.report().pace
    assert pace is not None
    print(f"{'':<16}{'us/step':>9}  of bare (median of neighbours, quartiles)")
    for name, found in times.items():
        ratios = [ours / bare for ours, bare in zip(found, times["bare"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:<16}{statistics.median(found) * 1e6:>9.0f}  {middle:.4f} ({low:.4f} to {high:.4f})")
    print(f"steps under attnprof: {pace.counted} counted, {pace.reused} reused, {pace.timed} timed")


if __name__ == "__main__":
    main()
