"""What autograd keeps of attention, feed-forward networks and blocks is their closed form, byte for byte."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memory.nets import ReluFFN, Stack, SwiGLU, attention_bytes, block_bytes, probabilities
from memory.readings import read_call
from training.attention import Attention, Block

N, D, H, F = 5, 12, 3, 20
WIDTH = {torch.float32: 4, torch.bfloat16: 2}

both_kinds = pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
dtypes = pytest.mark.parametrize("dtype", WIDTH, ids=str)
batches = pytest.mark.parametrize("batch", [1, 2])
kernels = pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])


def rows(batch: int, dtype: torch.dtype = torch.float32, *, grad: bool = True) -> torch.Tensor:
    return torch.randn(batch, N, D, dtype=dtype, requires_grad=grad)


@both_kinds
@dtypes
@batches
@kernels
def test_attention(fused: bool, batch: int, dtype: torch.dtype, fake: bool) -> None:
    reading = read_call(Attention(D, H, fused).to(dtype), (rows(batch, dtype),), fake=fake)
    e = WIDTH[dtype]
    one = e * batch * N * D
    assert reading.saved.bytes == attention_bytes(batch, N, D, H, e, fused)
    assert reading.saved.input_bytes == one
    inside = 3 * one + probabilities(batch, N, H, e, fused)
    if fused:  # the kernel saves its output, which is what o saves too
        assert reading.saved_by_name() == {"q": one, "": inside + one}
    else:
        assert reading.saved_by_name() == {"q": one, "": inside, "o": one}  # q: x, that k and v save again
    assert reading.saved.held == {}


@both_kinds
@dtypes
@batches
@kernels
def test_block(fused: bool, batch: int, dtype: torch.dtype, fake: bool) -> None:
    reading = read_call(Block(D, H, fused).to(dtype), (rows(batch, dtype),), fake=fake)
    row = WIDTH[dtype] * batch * N
    assert reading.saved.bytes == block_bytes(batch, N, D, H, WIDTH[dtype], fused)
    assert reading.saved.input_bytes == row * D
    expected = {
        "norm_1": row * (D + 2),
        "attention.q": row * D,
        "attention": row * 3 * D + probabilities(batch, N, H, WIDTH[dtype], fused),
        "attention.o": row * D,
        "norm_2": row * (D + 2),
        "up": row * D,
        "": row * 4 * D,
        "down": row * 4 * D,
    }
    if fused:  # the weighted sum is saved by the kernel that made it
        expected["attention"] += expected.pop("attention.o")
    assert reading.saved_by_name() == expected


@both_kinds
@dtypes
@batches
def test_relu_feed_forward(batch: int, dtype: torch.dtype, fake: bool) -> None:
    """The ReLU saves its output, which is what ``down`` saves too."""
    reading = read_call(ReluFFN(D, F).to(dtype), (rows(batch, dtype),), fake=fake)
    row = WIDTH[dtype] * batch * N
    assert reading.saved_by_name() == {"up": row * D, "": row * F}


@both_kinds
@dtypes
@batches
def test_swiglu(batch: int, dtype: torch.dtype, fake: bool) -> None:
    """Before and after silu, the other factor, and their product."""
    reading = read_call(SwiGLU(D, F).to(dtype), (rows(batch, dtype),), fake=fake)
    row = WIDTH[dtype] * batch * N
    assert reading.saved_by_name() == {"gate": row * D, "": row * 3 * F, "down": row * F}


@both_kinds
@kernels
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_stack_of_blocks(layers: int, fused: bool, fake: bool) -> None:
    reading = read_call(Stack(layers, D, H, fused), (rows(1),), fake=fake)
    assert reading.saved.bytes == layers * block_bytes(1, N, D, H, 4, fused)
    by_name = reading.saved_by_name()
    for layer in range(layers):
        own = [size for name, size in by_name.items() if name.startswith(f"blocks.{layer}")]
        assert sum(own) == block_bytes(1, N, D, H, 4, fused)


@both_kinds
@kernels
def test_an_input_that_needs_no_gradient_is_saved_all_the_same(fused: bool, fake: bool) -> None:
    """The gradient of the weights needs it."""
    reading = read_call(Attention(D, H, fused), (rows(1, grad=False),), fake=fake)
    assert (reading.saved.bytes, reading.saved.input_bytes) == (attention_bytes(1, N, D, H, 4, fused), 4 * N * D)


@both_kinds
@pytest.mark.parametrize("head_groups", [1, 3])
def test_torch_encoder_layer(head_groups: int, fake: bool) -> None:
    """torch's own block packs q, k and v in one storage, of which attention saves views."""
    layer = nn.TransformerEncoderLayer(
        D, head_groups, 4 * D, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    reading = read_call(layer, (rows(1),), fake=fake)
    assert reading.saved.bytes == block_bytes(1, N, D, head_groups, 4, fused=True)


@both_kinds
@batches
def test_torch_attention_that_returns_its_weights(batch: int, fake: bool) -> None:
    """It scales q before the product, so the scaled q is saved besides the packed q, k and v: 6 N d.

    It works with tokens first: of several samples, its projection saves a contiguous copy, not the input.
    """
    attention = nn.MultiheadAttention(D, H, batch_first=True)
    x = rows(batch)
    reading = read_call(attention, (x, x, x), fake=fake)
    assert reading.saved.bytes == 4 * batch * (6 * N * D + H * N * N)
    assert reading.saved.input_bytes == (4 * N * D if batch == 1 else 0)
