"""Fused attention on the CPU: causal, masked, grouped heads, unequal lengths; forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import references_attention as ref
from oracle.agreement import agree
from oracle.layouts import few

aten = torch.ops.aten
forward = aten._scaled_dot_product_flash_attention_for_cpu.default
backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
many = settings(few, max_examples=30)


@st.composite
def _attention(draw: Any, grouped: bool = False) -> list[torch.Tensor]:
    batch, kv_heads, dim = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(2, 4))
    heads = kv_heads * (draw(st.integers(2, 3)) if grouped else 1)
    queries, keys = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    torch.manual_seed(draw(st.integers(0, 999)))

    def part(h: int, length: int) -> torch.Tensor:  # as a projection leaves it: [B, T, H, d], seen as [B, H, T, d]
        return torch.randn(batch, length, h, dim, dtype=torch.float64).transpose(1, 2)

    return [part(heads, queries), part(kv_heads, keys), part(kv_heads, keys)]


def _both(qkv: list[torch.Tensor], is_causal: bool = False, **options: Any) -> None:
    agree(forward, *qkv, 0.0, is_causal, **options, by=ref.flash)
    out, lse = forward(*qkv, 0.0, is_causal, **options)
    agree(backward, torch.randn_like(out), *qkv, out, lse, 0.0, is_causal, **options, by=ref.flash_backward)


@pytest.mark.parametrize("grouped", [False, True])
@many
@given(data=st.data())
def test_plain(grouped: bool, data: st.DataObject) -> None:
    _both(data.draw(_attention(grouped)))


@many
@given(qkv=_attention())
def test_causal_counts_the_pairs_it_needs(qkv: list[torch.Tensor]) -> None:
    _both(qkv, is_causal=True)


@pytest.mark.parametrize("scale", [1.0, 0.3])
@few
@given(qkv=_attention())
def test_a_scale_of_one_is_not_multiplied(scale: float, qkv: list[torch.Tensor]) -> None:
    _both(qkv, scale=scale)


@many
@given(qkv=_attention(), layout=st.sampled_from(["whole", "by query and key", "by key"]))
def test_additive_mask_is_read_and_added(qkv: list[torch.Tensor], layout: str) -> None:
    q, k, _ = qkv
    shape = {
        "whole": (*q.shape[:3], k.shape[2]),
        "by query and key": (q.shape[2], k.shape[2]),
        "by key": (1, 1, 1, k.shape[2]),
    }[layout]
    mask = torch.randn(shape, dtype=torch.float64).expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    _both(qkv, attn_mask=mask)
