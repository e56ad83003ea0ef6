"""What counting costs: a 12-layer d=64 GPT, batch 1, T=16, forward and backward, on one thread.

Bare, under a dispatch mode that does nothing, under attnprof and under torch's FlopCounterMode, in turn in
one process. Times are medians, in time of the thread itself: other work on the machine counts less that way.
What counts is what each adds to the bare run, as a multiple of what the do-nothing mode adds.

    python benchmarks/capture_overhead.py [--rounds 40]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import attnprof

#: The rows of attnprof, each with what its profile is asked for beyond the defaults.
PROFILES: dict[str, dict[str, Any]] = {"attnprof": {}, "without memory": {"memory": False}}


class Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.act, self.down = nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.ln_1(x)).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(-2))
        return x + self.down(self.act(self.up(self.ln_2(x))))


class DoNothing(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Embedding(256, 64), *(Block(64, 4) for _ in range(12)), nn.Linear(64, 256))
    tokens = torch.randint(256, (1, 16))

    def step() -> None:
        model(tokens).sum().backward()
        model.zero_grad(set_to_none=True)

    ways: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "bare": nullcontext,
        "do-nothing mode": DoNothing,
        **{name: partial(attnprof.profile, model, **options) for name, options in PROFILES.items()},
        "FlopCounterMode": lambda: FlopCounterMode(display=False),
    }
    first = {name: f"{name}, 1st step" for name in PROFILES}
    times: dict[str, list[float]] = {name: [] for name in (*ways, *first.values())}
    for round_ in range(rounds + 3):
        for name, enter in ways.items():
            begin = time.thread_time()
            with enter():
                step()  # the first step meets every signature; a training loop is made of the others
                if round_ >= 3 and name in first:
                    times[first[name]].append(time.thread_time() - begin)
                start = time.thread_time()
                step()
                elapsed = time.thread_time() - start
            if round_ >= 3:
                times[name].append(elapsed)
    bare, nothing = (statistics.median(times[name]) for name in ("bare", "do-nothing mode"))
    with attnprof.profile(model) as prof:
        step()
    ops = len(prof.trace)
    print(f"{ops} ops a step, {rounds} rounds, medians")
    width = max(map(len, times)) + 2
    print(f"{'':{width}}{'ms a step':>10}{'x bare':>9}{'added, us/op':>14}{'x do-nothing':>14}")
    for name, values in times.items():
        median = statistics.median(values)
        added = median - bare
        columns = f"{median * 1e3:10.2f}{median / bare:9.2f}{added / ops * 1e6:14.2f}"
        print(f"{name:{width}}{columns}{added / (nothing - bare):14.2f}")


if __name__ == "__main__":
    main()
