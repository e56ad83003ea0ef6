"""The native fast paths against the slow paths they replace, and nested tensors on the way in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnprof.costs.pricing import price
from support import only_op, ops_of

ENCODER = "aten._transformer_encoder_layer_fwd"
MHA = "aten._native_multi_head_attention"
F32 = 4  # bytes


def matmul(run: Callable[[], Any]) -> int:
    return sum(price(op).cost.matmul_flops for op in ops_of(run))


def slow(run: Callable[[], Any]) -> int:
    """Matmul FLOPs of ``run`` with the native fast path switched off."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return matmul(run)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from([2, 4]), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_encoder_layer_costs_what_its_slow_path_costs(b: int, t: int, heads: int, gelu: bool, pre_norm: bool) -> None:
    d, f = 8, 12
    activation = "gelu" if gelu else "relu"
    layer = nn.TransformerEncoderLayer(d, heads, f, activation=activation, norm_first=pre_norm, batch_first=True)
    layer.eval()
    x = torch.randn(b, t, d)
    rows = b * t
    with torch.no_grad():
        found = price(only_op(lambda: layer(x), ENCODER)).cost
        expected = slow(lambda: layer(x))
    assert found.matmul_flops == found.useful_matmul_flops == expected
    assert expected == 8 * rows * d * d + 4 * b * t * t * d + 4 * rows * d * f
    attention = 3 * rows * d + rows * d + b * heads * t * (5 * t - 2) + rows * d  # biases, scale, softmax, bias
    norms = 2 * (rows * (5 * d + 2) + 2 * rows * d)
    feed_forward = rows * f + rows * f * (5 if gelu else 1) + rows * d
    assert found.vector_flops == attention + norms + 2 * rows * d + feed_forward
    parameters = sum(p.numel() for p in layer.parameters())
    assert (found.read_bytes, found.write_bytes) == (F32 * (rows * d + parameters), F32 * rows * d)


@pytest.mark.parametrize("mask", ["none", "causal", "padding"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_mask_leaves_the_count_alone(mask: str) -> None:
    b, t, d, heads, f = 2, 5, 8, 2, 12
    layer = nn.TransformerEncoderLayer(d, heads, f, batch_first=True).eval()
    masks = {
        "none": {},
        "causal": {"src_mask": torch.ones(t, t, dtype=torch.bool).triu(1)},
        "padding": {"src_key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])},
    }
    x = torch.randn(b, t, d)
    with torch.no_grad():
        assert matmul(lambda: layer(x, **masks[mask])) == slow(lambda: layer(x, **masks[mask]))


@pytest.mark.parametrize(("need_weights", "average"), [(False, True), (True, True), (True, False)])
def test_multi_head_attention_and_its_weights(need_weights: bool, average: bool) -> None:
    b, t, d, heads = 2, 5, 8, 4
    mha = nn.MultiheadAttention(d, heads, batch_first=True).eval()
    x = torch.randn(b, t, d)

    def run() -> Any:
        return mha(x, x, x, need_weights=need_weights, average_attn_weights=average)

    rows = b * t
    with torch.no_grad():
        op = only_op(run, MHA)
        found = price(op).cost
        assert found.matmul_flops == slow(run) == 8 * rows * d * d + 4 * b * t * t * d
    averaging = b * t * t * heads if need_weights and average else 0  # heads - 1 additions, 1 division
    assert found.vector_flops == 5 * rows * d + b * heads * t * (5 * t - 2) + averaging
    assert found.read_bytes == F32 * (rows * d + 4 * d * d + 4 * d)  # x once, though it is q, k and v
    weights = b * t * t * (1 if average else heads) if need_weights else 0
    assert found.write_bytes == F32 * (rows * d + weights)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_nested_input_runs_its_real_rows(lengths: list[int]) -> None:
    d, heads, f = 8, 2, 12
    layer = nn.TransformerEncoderLayer(d, heads, f, batch_first=True).eval()
    x = torch.nested.nested_tensor([torch.randn(t, d) for t in lengths])
    with torch.no_grad():
        found = price(only_op(lambda: layer(x), ENCODER)).cost
        alone = [slow(lambda t=t: layer(torch.randn(1, t, d))) for t in lengths]
    rows, longest = sum(lengths), max(lengths)
    per_row = 8 * d * d + 4 * d * f
    assert found.useful_matmul_flops == sum(alone) == rows * per_row + 4 * d * sum(t * t for t in lengths)
    assert found.matmul_flops == rows * per_row + 4 * d * len(lengths) * longest**2  # the scores are padded
    alone_vector = sum(rows_ * (8 * d + 2 * (5 * d + 2) + 4 * d + 2 * f) for rows_ in lengths)
    softmax = sum(heads * t * (5 * t - 2) for t in lengths)
    padding = (len(lengths) * longest - rows) * 4 * d  # biases of q, k, v and the scale of q, on padded rows too
    assert found.vector_flops == alone_vector + softmax + padding


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_padded_batch_becomes_nested_and_back() -> None:
    t, d, heads, f, lengths = 5, 8, 2, 12, (5, 3)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(d, heads, f, batch_first=True), 2).eval()
    padding = torch.arange(t)[None] >= torch.tensor(lengths)[:, None]
    x = torch.randn(len(lengths), t, d)
    with torch.no_grad():
        ops = ops_of(lambda: encoder(x, src_key_padding_mask=padding))
    found = {op.packet: price(op).cost for op in ops}
    kept, whole = sum(lengths) * d, len(lengths) * t * d
    mask = padding.numel()
    into = found["aten._nested_tensor_from_mask"]
    assert (into.flops, into.read_bytes, into.write_bytes) == (0, F32 * kept + mask, F32 * kept)
    question = found["aten._nested_tensor_from_mask_left_aligned"]
    assert (question.flops, question.read_bytes, question.write_bytes) == (0, mask, 0)
    back = found["aten.to_padded_tensor"]
    assert (back.flops, back.read_bytes, back.write_bytes) == (0, F32 * kept, F32 * whole)


def test_bias_and_scale_of_the_projections() -> None:
    b, t, d, heads = 2, 5, 8, 2
    run = torch._transform_bias_rescale_qkv
    found = price(only_op(lambda: run(torch.randn(b, t, 3 * d), torch.randn(3 * d), heads), f"aten.{run.__name__}"))
    assert (found.cost.matmul_flops, found.cost.vector_flops) == (0, 3 * b * t * d + b * t * d)
    assert found.cost.bytes == F32 * (3 * b * t * d + 3 * d + 3 * b * t * d)


def test_jagged_rows_are_moved_once() -> None:
    offsets, width = torch.tensor([0, 3, 8]), 4
    aten = torch.ops.aten
    spread = price(
        only_op(
            lambda: aten._jagged_to_padded_dense_forward(torch.randn(8, width), [offsets], [5]),
            "aten._jagged_to_padded_dense_forward",
        )
    ).cost
    assert (spread.flops, spread.read_bytes) == (0, F32 * 8 * width + 3 * 8)
    assert spread.write_bytes == F32 * 2 * 5 * width
    packed = price(
        only_op(
            lambda: aten._padded_dense_to_jagged_forward(torch.randn(2, 5, width), [offsets], 8),
            "aten._padded_dense_to_jagged_forward",
        )
    ).cost
    assert (packed.flops, packed.read_bytes) == (0, F32 * 8 * width + 3 * 8)
    assert packed.write_bytes == F32 * 8 * width


def test_a_list_of_tensors_is_copied_into_one_buffer() -> None:
    pieces = [torch.randn(3, 8), torch.randn(5, 8)]
    op = only_op(lambda: torch.nested.nested_tensor(pieces), "aten._nested_tensor_from_tensor_list")
    found = price(op)
    assert found.status == "priced"
    assert (found.cost.flops, found.cost.read_bytes, found.cost.write_bytes) == (0, F32 * 64, F32 * 64)


def test_questions_about_a_nested_tensor_are_free() -> None:
    x = torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(5, 8)])
    assert price(only_op(x._nested_tensor_size, "aten._nested_tensor_size")).status == "free"
