"""Attention over packed sequences, ``torch.nn.attention.varlen``: the real lengths decide, and one kernel does it.

Torch has it as an op of its own with kernels for CUDA only. Here a kernel for CPU tensors stands in, one plain
attention per sequence, so that the lengths are there to be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn, varlen_attn_out
from torch.utils.flop_counter import FlopCounterMode

import attnprof
from attnprof.analysis.budget_snapshot import environment

HEADS, WIDTH, TOKENS = 2, 8, 12
D = HEADS * WIDTH
OP = "torch_attn._varlen_attn.default"


def reference(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Each sequence by itself; for a cache of keys, nothing."""
    parts = [q] if len(k) != len(q) else []
    for start, end in pairwise([] if parts else ends.tolist()):
        one_q, one_k, one_v = (x[start:end].transpose(0, 1) for x in (q, k, v))
        parts.append(F.scaled_dot_product_attention(one_q, one_k, one_v).transpose(0, 1))
    return torch.cat(parts), torch.zeros(HEADS, len(q)), torch.zeros(2, dtype=torch.uint64)


def reference_out(out: Tensor, *operands: Any) -> Tensor:
    result, logsumexp, _ = reference(*operands)
    out.copy_(result)
    return logsumexp


def reference_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)


@pytest.fixture(autouse=True)
def kernels_for_cpu() -> Iterator[None]:
    with torch.library._scoped_library("torch_attn", "IMPL") as library:
        library.impl("_varlen_attn", reference, "CPU")
        library.impl("_varlen_attn_out", reference_out, "CPU")
        library.impl("_varlen_attn_backward", reference_backward, "CPU")
        yield


class Packed(nn.Module):
    def __init__(self, window: tuple[int, int] = (-1, -1)) -> None:
        super().__init__()
        self.window = window

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ends: Tensor) -> Tensor:
        out = varlen_attn(q, k, v, ends, ends, TOKENS, TOKENS, window_size=self.window)
        assert isinstance(out, Tensor)
        return out


def operands(*lengths: int, requires_grad: bool = False) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(TOKENS, HEADS, WIDTH, requires_grad=requires_grad) for _ in range(3))
    ends = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    return q, k, v, ends


def pairs(*lengths: int) -> int:
    return sum(n * n for n in lengths)


def test_forward_counts_the_lengths_of_each_call() -> None:
    """Two calls with equal shapes and other lengths are not one signature. 2 products, softmax 5, scale 1."""
    net = Packed()
    with attnprof.profile(net) as prof:
        for lengths in ((4, 8), (6, 6), (4, 8)):
            net(*operands(*lengths))
    found = prof.report().by_operator()[OP]
    seen = 2 * pairs(4, 8) + pairs(6, 6)
    assert found.matmul_flops == 4 * D * seen
    assert found.vector_flops == 6 * HEADS * seen
    ends, logsumexp = 4 * 3, 4 * HEADS * TOKENS
    assert (found.read_bytes, found.write_bytes) == (3 * (3 * 4 * TOKENS * D + ends), 3 * (4 * TOKENS * D + logsumexp))


def test_torch_counts_the_same_forward() -> None:
    """The other witness."""
    net, given = Packed(), operands(3, 9)
    with FlopCounterMode(display=False) as torchs:
        net(*given)
    assert attnprof.run(net, given).total.matmul_flops == torchs.get_total_flops() == 4 * D * pairs(3, 9)


def test_the_backward_rebuilds_the_scores() -> None:
    """As in every fused attention: four products are backward, the fifth is recompute."""
    report = attnprof.run(Packed(), operands(5, 7, requires_grad=True), backward=True)
    product = 2 * D * pairs(5, 7)
    found = {name: phase.matmul_flops for name, phase in report.phases.items() if phase.matmul_flops}
    assert found == {"forward": 2 * product, "backward": 4 * product, "recompute": product}
    assert report.unpriced == {}
    assert environment(report)["attention"] == "varlen_attn"  # what a lock file calls the kernel


@pytest.mark.parametrize("window", [(-1, 0), (2, 0), (2, 1)])
def test_a_window_is_a_band_of_each_sequence(window: tuple[int, int]) -> None:
    left, right = window
    lengths = (4, 8)
    seen = 0
    for n in lengths:
        i, j = torch.arange(n)[:, None], torch.arange(n)[None]
        mask = j <= i + right
        if left >= 0:
            mask &= j >= i - left
        seen += int(mask.sum())
    found = attnprof.run(Packed(window), operands(*lengths)).total
    assert found.matmul_flops == 4 * D * pairs(*lengths)
    assert found.useful_matmul_flops == 4 * D * seen


def test_into_an_output_that_is_given() -> None:
    q, k, v, ends = operands(4, 8)
    out = torch.empty_like(q)
    with attnprof.profile() as prof:
        varlen_attn_out(out, q, k, v, ends, ends, TOKENS, TOKENS)
    found = prof.report().by_operator()["torch_attn._varlen_attn_out.default"]
    assert found.matmul_flops == 4 * D * pairs(4, 8)
    assert found.read_bytes == 3 * 4 * TOKENS * D + 4 * len(ends)


def test_on_fake_tensors_sequences_are_of_the_mean_length() -> None:
    found = attnprof.run(Packed(), operands(5, 7), fake=True)
    assert found.by_operator()[OP].matmul_flops == 4 * D * 2 * (TOKENS // 2) ** 2


def test_cached_keys_count_as_many_as_are_used() -> None:
    """``seqused_k``: a slot of the cache is longer than the sequence in it."""
    rows, slot, used = 3, 4, (1, 4, 2)
    q = torch.randn(rows, HEADS, WIDTH)
    k, v = (torch.randn(rows * slot, HEADS, WIDTH) for _ in range(2))
    ends, slots = torch.arange(rows + 1, dtype=torch.int32), torch.arange(0, rows * slot + 1, slot, dtype=torch.int32)
    with attnprof.profile() as prof:
        varlen_attn(q, k, v, ends, slots, 1, slot, seqused_k=torch.tensor(used, dtype=torch.int32))
    found = prof.report().by_operator()[OP]
    assert found.matmul_flops == 4 * D * sum(used)
    index_bytes = 4 * (len(ends) + len(slots) + len(used))
    assert found.read_bytes == 4 * (rows * D + 2 * sum(used) * D) + index_bytes


def test_paged_keys_count_as_many_as_are_used() -> None:
    """``block_table``: the keys are a pool of pages, of any sequence and in any order."""
    rows, pages, page, used = 2, 5, 4, (3, 7)
    q, k, v = (torch.randn(*size, HEADS, WIDTH) for size in ((rows,), (pages, page), (pages, page)))
    ends, table = torch.arange(rows + 1, dtype=torch.int32), torch.zeros(rows, 2, dtype=torch.int32)
    lengths = torch.tensor(used, dtype=torch.int32)
    with attnprof.profile() as prof:
        varlen_attn(q, k, v, ends, None, 1, max(used), seqused_k=lengths, block_table=table)
    found = prof.report().by_operator()[OP]
    assert found.matmul_flops == 4 * D * sum(used)
    assert found.read_bytes == 4 * (rows * D + 2 * sum(used) * D) + 4 * (len(ends) + len(used) + table.numel())
