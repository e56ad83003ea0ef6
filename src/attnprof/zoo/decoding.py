"""Decoding one token at a time, with a cache of keys and values or without.

With a cache a step handles its new tokens only, and they look back at the keys of all before; without one, every
step runs the whole sequence so far. Both give the same outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.core.errors import AttnprofError
from attnprof.zoo.attention import Attention, attend, head_width, merge_heads, split_heads
from attnprof.zoo.registry import mechanism, positive

#: The keys and the values of the tokens so far, [B, Hkv, S, dh] each.
KeyValue = tuple[Tensor, Tensor]


def step_inputs(
    B: int, T: int, S: int, d: int, H: int, Hkv: int | None = None, dh: int | None = None, **_: Any
) -> tuple[Tensor, KeyValue]:
    """T new tokens [B, T, d], and the cache of those before: S tokens in all."""
    cache = B, Hkv or H, tokens_before(S, T), head_width(d, H, dh)
    return torch.randn(B, T, d), (torch.randn(cache), torch.randn(cache))


def tokens_before(S: int, T: int) -> int:
    """How many tokens a cache holds before a step that adds T and ends at S."""
    if S < T:
        raise AttnprofError(f"S counts all tokens, the T new ones too: S={S} must be at least T={T}.")
    return S - T


@mechanism("decode-attention", shape={"B": 1, "T": 1, "S": 128}, inputs=step_inputs)
class CachedAttention(Attention):
    """A decoding step of attention: new tokens look at the cached keys and values, and at themselves.

    x [B, T, d], kv_cache 2 x [B, Hkv, S - T, dh] or None -> y [B, T, d], kv_cache 2 x [B, Hkv, S, dh]. T is 1 when
    decoding and the prompt's length in a prefill; S counts the new tokens too. H query heads of width dh (d / H
    unless given), Hkv key and value heads (H unless given), n = H dh, m = Hkv dh. Causal.

    Forward   q_proj, out_proj       2 B T d n each
              k_proj, v_proj         2 B T d m each
              scores, weighted_sum   2 B T S n each
              sum for n = m = d      8 B T d² + 4 B T S d
    Backward  twice the forward
    Saved     B (T d + 2 T n + 2 S m + H T S): x, q, the heads merged, all keys and values, the probabilities; and
              T S bytes of mask when T > 1
    Parameters  2 d n + 2 d m
    Cache     2 B S m numbers

    Shazeer, Fast Transformer Decoding, 2019 (incremental attention); Pope et al., Efficiently Scaling Transformer
    Inference, 2023.
    """

    def __init__(self, d: int = 64, H: int = 4, Hkv: int | None = None, dh: int | None = None) -> None:
        super().__init__(d, H, H if Hkv is None else Hkv, dh, causal=True)

    def forward(self, x: Tensor, kv_cache: KeyValue | None = None) -> tuple[Tensor, KeyValue]:  # type: ignore[override]
        q = split_heads(self.q_proj(x), self.H)
        k = split_heads(self.k_proj(x), self.Hkv)
        v = split_heads(self.v_proj(x), self.Hkv)
        if kv_cache is not None:
            k, v = torch.cat([kv_cache[0], k], 2), torch.cat([kv_cache[1], v], 2)
        y = attend(q, k, v, causal=x.shape[1] > 1)  # a single new token sees every key
        return self.out_proj(merge_heads(y)), (k, v)


@mechanism("decode-layer", shape={"B": 1, "T": 1, "S": 128}, inputs=step_inputs)
class DecoderLayer(nn.Module):
    """A decoding step of a pre-norm transformer layer: cached attention, then a GELU feed-forward network.

    x [B, T, d], kv_cache 2 x [B, Hkv, S - T, dh] or None -> y [B, T, d], kv_cache 2 x [B, Hkv, S, dh], as
    :class:`CachedAttention`; feed-forward width f (4 d unless given). Causal.

    Forward   attention   2 B T d (2 n + 2 m) + 4 B T S n
              up, down    2 B T d f each
              one token, n = m = d, f = 4 d: B (24 d² + 4 S d)
    Backward  twice the forward
    Saved     B (4 T d + 4 T + 2 T n + 2 S m + H T S + 2 T f): the attention, both norms with mean and deviation, the
              network before and after its GELU; and T S bytes of mask when T > 1
    Parameters  2 d n + 2 d m + 2 d f, and 4 d of the two norms
    Cache     2 B S m numbers

    Attention as :class:`CachedAttention`; Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
    """

    def __init__(
        self, d: int = 64, H: int = 4, Hkv: int | None = None, dh: int | None = None, f: int | None = None
    ) -> None:
        super().__init__()
        self.attention = CachedAttention(d, H, Hkv, dh)
        f = 4 * d if f is None else f
        positive(f=f)
        self.d, self.H, self.Hkv, self.dh, self.f = d, H, self.attention.Hkv, self.attention.dh, f
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, f, bias=False), nn.Linear(f, d, bias=False)

    def forward(self, x: Tensor, kv_cache: KeyValue | None = None) -> tuple[Tensor, KeyValue]:
        y, kv_cache = self.attention(self.norm_1(x), kv_cache)
        x = x + y
        return x + self.down(F.gelu(self.up(self.norm_2(x)))), kv_cache


class Decoding(nn.Module):
    """What both ways of decoding share: L decoder layers."""

    def __init__(self, d: int, H: int, Hkv: int | None, dh: int | None, f: int | None, L: int) -> None:
        super().__init__()
        positive(L=L)
        self.layers = nn.ModuleList(DecoderLayer(d, H, Hkv, dh, f) for _ in range(L))
        first: Any = self.layers[0]
        self.d, self.H, self.Hkv, self.dh, self.f, self.L = d, H, first.Hkv, first.dh, first.f, L


@mechanism("decode-naive", shape={"B": 1, "T": 32})
class NaiveDecoding(Decoding):
    """Decoding without a cache: each of T steps runs the whole sequence so far and keeps its last token.

    x [B, T, d] -> [B, T, d]: x has the embeddings of the tokens in the order they come. L layers, as
    :class:`DecoderLayer`. Causal.

    Forward   step t: L layers on t tokens; for n = m = d, f = 4 d: B L (24 t d² + 4 t² d)
              sum over t = 1 .. T: B L (12 d² T (T+1) + 2/3 d T (T+1) (2T+1))
    Backward  twice the forward
    Saved     what the layers save in each step, with T = S = t, but for x, which is kept once
    Parameters  those of L decoder layers

    Pope et al., Efficiently Scaling Transformer Inference, 2023.
    """

    def __init__(
        self,
        d: int = 64,
        H: int = 4,
        Hkv: int | None = None,
        dh: int | None = None,
        f: int | None = None,
        L: int = 1,
    ) -> None:
        super().__init__(d, H, Hkv, dh, f, L)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for t in range(1, x.shape[1] + 1):
            h = x[:, :t]
            for layer in self.layers:
                h, _ = layer(h)
            outputs.append(h[:, -1:])
        return torch.cat(outputs, 1)


@mechanism("decode-cached", shape={"B": 1, "T": 32})
class CachedDecoding(Decoding):
    """Decoding with a key-value cache: each of T steps runs its new token only.

    x [B, T, d] -> [B, T, d], the outputs of :class:`NaiveDecoding`. L layers, as :class:`DecoderLayer`. Causal.

    Forward   step t: L layers on 1 token and t keys; for n = m = d, f = 4 d: B L (24 d² + 4 t d)
              sum over t = 1 .. T: B L (24 d² T + 2 d T (T+1))
    Backward  twice the forward
    Saved     what the layers save in each step, with T = 1 and S = t: the keys and values anew each time
    Parameters  those of L decoder layers
    Cache     2 B L T m numbers in the end

    Shazeer, Fast Transformer Decoding, 2019 (incremental decoding).
    """

    def __init__(
        self,
        d: int = 64,
        H: int = 4,
        Hkv: int | None = None,
        dh: int | None = None,
        f: int | None = None,
        L: int = 1,
    ) -> None:
        super().__init__(d, H, Hkv, dh, f, L)

    def forward(self, x: Tensor) -> Tensor:
        caches: list[KeyValue | None] = [None] * self.L
        outputs = []
        for token in x.split(1, dim=1):
            h = token
            for i, layer in enumerate(self.layers):
                h, caches[i] = layer(h, caches[i])
            outputs.append(h)
        return torch.cat(outputs, 1)
