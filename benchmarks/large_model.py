"""Counting a model that fits nowhere: Llama-3.1-405B (126 layers), T=8192, forward and backward, fake tensors.

Runs it bare and under attnprof in turn in one process, compares the matmul FLOPs with the closed form of
the configuration and prints the peak resident memory. Needs the ``hf`` extra; no weights, no network.

    python benchmarks/large_model.py [--rounds 3] [--layers 126]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

import attnprof

T = 8192


def closed_form(c: LlamaConfig) -> dict[str, int]:
    """Matmul FLOPs by phase for one sequence of T tokens with labels."""
    d, f, kv = c.hidden_size, c.intermediate_size, c.num_key_value_heads * c.head_dim
    q = c.num_attention_heads * c.head_dim
    linear = c.num_hidden_layers * (2 * T * d * (q + 2 * kv) + 2 * T * q * d + 3 * 2 * T * d * f)
    linear += 2 * T * d * c.vocab_size
    product = c.num_hidden_layers * 2 * T * T * q  # QK^T, or any other of the attention's products
    # backward: dW and dX of every linear layer, four products of the attention; the fifth repeats QK^T
    return {"forward": linear + 2 * product, "backward": 2 * linear + 4 * product, "recompute": product}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=126)
    options = parser.parse_args()
    config = LlamaConfig(
        hidden_size=16384,
        intermediate_size=53248,
        num_hidden_layers=options.layers,
        num_attention_heads=128,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
        max_position_embeddings=131072,
    )
    with attnprof.fake_tensors():
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
        tokens = torch.zeros((1, T), dtype=torch.int64)

        def step() -> float:
            start = time.perf_counter()
            model(tokens, labels=tokens, use_cache=False).loss.backward()
            elapsed = time.perf_counter() - start
            model.zero_grad(set_to_none=True)
            return elapsed

        step()  # warm the fake mode's own caches for both
        bare, counted = [], []
        for _ in range(options.rounds):
            bare.append(step())
            with attnprof.profile(model) as prof:
                counted.append(step())
        with FlopCounterMode(display=False) as other:
            step()
    start = time.perf_counter()
    report = prof.report()
    priced = time.perf_counter() - start
    found = {name: report.phases[name].matmul_flops for name in ("forward", "backward", "recompute")}
    ratio = statistics.median(c / b for c, b in zip(counted, bare, strict=True))
    print(f"bare fake run {statistics.median(bare):.2f} s, counted {statistics.median(counted):.2f} s: x{ratio:.2f}")
    print(f"{len(report.trace)} op calls, {len(report.trace.signatures)} signatures, priced in {priced:.2f} s")
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    for phase, expected in closed_form(config).items():
        print(f"{phase:10} {found[phase]:>26,} {'= closed form' if found[phase] == expected else f'not {expected:,}'}")
    print(f"FlopCounterMode {other.get_total_flops():,}, attnprof {report.total.matmul_flops:,}")
    print(f"unpriced: {report.unpriced or 'none'}")


if __name__ == "__main__":
    main()
