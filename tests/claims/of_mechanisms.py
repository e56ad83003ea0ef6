"""Facts about other mechanisms, by running them: linear, sparse, feed-forward, decoding, convolutions, recurrences."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import nn

import attnprof
from attnprof import zoo
from claims.facts import source
from claims.runs import experts, measured


@source("measured", r"D\.performer\.r\d+")
def performer(N: int, d: int, r: int, H: int) -> int:
    return measured("performer", N, d=d, r=r, H=H).forward


@source("measured", r"D\.performer\.bwd\..*")
def performer_backward(N: int, d: int, h: int, r: int) -> int:
    return measured("performer", N, d=d, r=r, H=h).backward


@source("measured", r"D\.linear\.(?P<phase>fwd|bwd)\..*")
def linear(N: int, d: int, h: int, phase: str) -> int:
    at = measured("linear", N, d=d, H=h)
    return at.forward if phase == "fwd" else at.backward


@source("measured", r"D\.linear\.core")
def linear_core(N: int, dh: int) -> int:
    """Without the projections and the normaliser, 2 N dh."""
    return measured("efficient-attention", N, d=dh, H=1).core


@source("measured", r"E\.linear_attn")
def linear_by_two_softmaxes(B: int, n: int, d: int) -> int:
    return measured("efficient-attention", n, B=B, d=d, H=1).core


@source("measured", r"B\.ffn")
def ffn(n: int, d: int) -> int:
    return measured("ffn", n, d=d, f=4 * d).forward


@source("measured", r"C\.ffn\.swiglu")
def swiglu(B: int, T: int, d: int, f: int) -> int:
    return measured("swiglu", T, B=B, d=d, f=f).forward


@source("measured", r"B\.moe\.E\d+\.k\d+")
def experts_forward(n: int, d: int, E: int, k: int) -> int:
    return experts(n, d, E, k).forward


@source("measured", r"B\.moe\.bwd")
def experts_backward(n: int, d: int, E: int, k: int) -> int:
    return experts(n, d, E, k, backward=True).backward


@source("measured", r"B\.topk\.scored")
def topk(N: int, k: int, d: int) -> int:
    return measured("topk", N, d=d, H=1, k=k).core


@source("measured", r"B\.cluster\.balanced")
def clustered(N: int, C: int, d: int) -> int:
    return measured("clustered", N, d=d, H=1, C=C).core


@source("measured", r"B\.window\.chunked")
def chunked(N: int, w: int, d: int) -> int:
    return measured("sliding-window", N, d=d, H=1, w=w, causal=True).core


@source("closed form", r"B\.window\.(?P<kind>bidir|causal)\..*")
def window_pairs(n: int, w: int, g: int, kind: str) -> int:
    """The module's own count, which the tests of the zoo hold against its rule."""
    net = zoo.build("local-window", d=8, H=2, w=w, causal=kind == "causal")
    pairs: Any = net.pairs
    return int(pairs(n))


@source("closed form", r"B\.longformer\.causal\..*")
def longformer_pairs(n: int, w: int, g: int) -> int:
    pairs: Any = zoo.build("longformer", d=8, H=2, w=w, g=g, causal=True).pairs
    return int(pairs(n))


@source("closed form", r"E\.sparse\.intended")
def local_atrous_pairs(N: int, k: int) -> int:
    pairs: Any = zoo.build("local-atrous", d=8, H=2, k=k).pairs
    return int(pairs(N))


# Decoding


@source("measured", r"B\.kv\.cached_total")
def cached(d: int, T: int) -> int:
    return measured("decode-cached", T, d=d, H=4, backward=False).forward


@source("measured", r"C\.kv\.naive_total")
def naive(d: int, T: int) -> int:
    return measured("decode-naive", T, d=d, H=4, backward=False).forward


@source("measured", r"C\.decode_score")
def decoding_scores(B: int, H: int, S: int, dh: int) -> Fraction:
    """Half of the products with the cache: the other half is the weighted sum."""
    return Fraction(measured("decode-attention", S, B=B, d=H * dh, H=H, backward=False).core, 2)


@source("measured", r"C\.rule2N\..*")
def missed_by_two_per_parameter(W: int, L: int, d: int, T: int) -> Fraction:
    """GPT-2 small: 12 heads, 50257 tokens, a position for each token."""
    model = measured("lm", T, backward=False, d=d, L=L, V=50257, N=T, H=12, causal=False)
    return 1 - Fraction(2 * W * T, model.forward)


@source("measured", r"C\.gemm_ai\..*")
def intensity_of_a_product(m: int, n: int, k: int) -> Fraction:
    with attnprof.fake_tensors():
        net, x = nn.Linear(k, n, bias=False, dtype=torch.half), torch.randn(m, k, dtype=torch.half)
    total = attnprof.run(net, (x,), fake=True).total
    return Fraction(total.flops, total.bytes)


# Convolutions and recurrences


@source("measured", r"A\.dwconv\.flops\..*")
def convolution(C: int, L: int, k: int) -> int:
    return measured("depthwise-conv", L, d=C, k=k).forward


@source("closed form", r"A\.dwconv\.inrange\..*")
def taps(L: int, k: int) -> int:
    pairs: Any = zoo.build("depthwise-conv", d=1, k=k).pairs
    return int(pairs(L))


@source("measured", r"A\.dwconv\.pad")
def offset(k: int) -> int:
    """The p with which sum over t = 1 ... k of w[t] x[l + t - p] is the symmetric convolution, by trying each."""
    net = zoo.build("depthwise-conv", d=1, k=k).double()
    weight: Any = net.weight
    x = torch.randn(1, 9, 1, dtype=torch.float64)
    padded = {i: x[0, i, 0] for i in range(9)}
    zero = torch.zeros((), dtype=torch.float64)

    def written_out(p: int) -> torch.Tensor:
        taps = range(1, k + 1)
        return torch.stack(
            [sum((weight[0, t - 1] * padded.get(at + t - p, zero) for t in taps), zero) for at in range(9)]
        )

    (found,) = [p for p in range(2 * k) if torch.allclose(written_out(p), net(x)[0, :, 0])]
    return found


@source("measured", r"A\.scan\.seq\..*")
def recurrence(T: int) -> int:
    return measured("diagonal-rnn", T, d=1).vector


@source("measured", r"A\.scan\.(?P<name>hillis|brentkung)\..*")
def joins(T: int, name: str) -> Fraction:
    """A join is 3 FLOPs."""
    return Fraction(
        measured({"hillis": "diagonal-rnn-hillis-steele", "brentkung": "diagonal-rnn-brent-kung"}[name], T, d=1).vector,
        3,
    )
