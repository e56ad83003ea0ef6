"""How long it takes to recover formulas: a GPT of 12 layers over 12 lengths, and Llama-3.1-405B over 6.

Both are counted forward and backward on fake tensors. Many equal layers are counted by a few of them; with --plain
the largest length of Llama is counted again with all of them, and every integer is compared. Needs the ``hf`` extra;
no weights, no network.

    python benchmarks/scaling.py [--layers 126] [--plain]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import attnprof
from attnprof.api.counted_points import CountedPoints

GPT = [128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1536, 1792, 2048]
LLAMA = [512, 1024, 2048, 4096, 6144, 8192]


@contextmanager
def _bfloat16() -> Iterator[None]:
    """Parameters made inside are bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def llama(T: int, L: int) -> tuple[Any, ...]:  # noqa: N803 - the symbols of formulas
    """Llama-3.1-405B in bfloat16, and one sequence of T tokens with labels."""
    config = LlamaConfig(
        hidden_size=16384,
        intermediate_size=53248,
        num_hidden_layers=L,
        num_attention_heads=128,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
        max_position_embeddings=131072,
    )
    with _bfloat16():
        model = LlamaForCausalLM(config)
    tokens = torch.zeros((1, T), dtype=torch.int64)
    return model, (tokens,), {"labels": tokens, "use_cache": False}


def timed(label: str, found: attnprof.Scaling, start: float) -> None:
    """Print what was found and how long it took since ``start``."""
    elapsed = time.perf_counter() - start
    print(f"{label}: {found.expression}")
    print(f"  {found.runs} runs, held out {found.held_out}, {len(found.modules)} modules, {elapsed:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=126)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()

    start = time.perf_counter()
    fixed = {"d": 768, "H": 12, "L": 12, "V": 50257, "N": 2048}
    timed("GPT, 12 layers, 12 lengths", attnprof.scaling("lm", {"T": GPT}, phase="all", fixed=fixed), start)

    start = time.perf_counter()
    found = attnprof.scaling(llama, {"T": LLAMA}, phase="all", fixed={"L": options.layers})
    timed(f"Llama, {options.layers} layers, 6 lengths", found, start)
    for note in found.notes:
        print(f"  {note}")

    if options.plain:
        start = time.perf_counter()
        by_few, by_all = (
            CountedPoints(llama, {"L": options.layers}, True, True, by_layers=way) for way in (True, False)
        )
        same = by_few({"T": LLAMA[-1]}) == by_all({"T": LLAMA[-1]})
        print(f"  T={LLAMA[-1]} by few layers and by all: {'the same integers' if same else 'NOT THE SAME'}")
        print(f"  {time.perf_counter() - start:.1f} s for both")


if __name__ == "__main__":
    main()
