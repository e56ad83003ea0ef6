"""Documents A and B: attention, convolution and recurrence as operators; a survey of attention."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attnprof
from attnprof import zoo
from attnprof.zoo.linear import feature_map
from claims.of_attention import block
from claims.runs import experts, measured, of
from claims.topics import CLAIMS, Topic, exact, percent, said, value


def attention_as_operators() -> Topic:
    """Document A."""
    shares = [
        1 - Fraction(measured("mha-no-output", s, d=d, H=h).forward, measured("mha", s, d=d, H=h).forward)
        for s, d, h in ((128, 256, 4), (512, 768, 12))
    ]
    assert shares == [Fraction(2 * d, 8 * d + 4 * s) for s, d in ((128, 256), (512, 768))]
    sizes = (8, 64, 1024)
    scans = {name: [exact(value(f"A.scan.{name}.T{T}")) for T in sizes] for name in ("seq", "hillis", "brentkung")}
    rows = [
        (
            "attention, s = 512, d = 768, h = 12",
            "6sd² + 4s²d + 3hs² = " + exact(said("A.mha.time").document),
            exact(value("A.mha.time")),
            "reproduced, without the output projection",
        ),
        (
            "its matmul FLOPs with the output projection",
            exact(said("A.mha.matmul_with_WO").document),
            exact(value("A.mha.matmul_with_WO")),
            f"wrong for a whole layer: {percent(shares[1], 2)} are missing; s = 128, d = 256: {percent(shares[0])}",
        ),
        (
            "its softmax",
            f"3hs² = {exact(said('A.softmax').document)}",
            f"hs(5s - 2) = {exact(value('A.softmax'))}",
            "convention: maximum, difference, exp, sum, division",
        ),
        (
            "its space",
            exact(said("A.mha.space").document) + " elements",
            exact(value("A.mha.space")),
            "reproduced (by arithmetic); input and weights are left out",
        ),
        (
            "depthwise convolution, C = 4, L = 20, k = 3",
            "O(CkL)",
            f"2CkL = {exact(value('A.dwconv.flops.k3'))}",
            "reproduced",
        ),
        (
            "its taps inside the sequence, of one channel",
            "kL",
            f"kL - q(q + 1) = {exact(value('A.dwconv.inrange.k3'))}",
            "an upper bound, q = (k - 1) / 2",
        ),
        (
            "offset of the symmetric convolution, t = 1 ... k",
            "[k/2]",
            f"(k + 1) / 2 = {exact(value('A.dwconv.pad'))}, k = 3",
            "ambiguous: rounded down it is wrong, rounded up it is right",
        ),
        ("recurrence, T = 8, 64, 1024", "O(T)", f"2(T - 1) = {', '.join(scans['seq'])} FLOPs a channel", "reproduced"),
        (
            "Hillis-Steele scan",
            "O(T) in log depth",
            f"T log₂ T - T + 1 = {', '.join(scans['hillis'])} joins of 3 FLOPs",
            "misleading: log depth costs T log T",
        ),
        ("Brent-Kung scan", "O(T)", f"2T - 2 - log₂ T = {', '.join(scans['brentkung'])} joins", "reproduced"),
    ]
    return Topic("Attention, convolution and recurrence as operators (A)", "", CLAIMS, rows)


def survey() -> Topic:
    """Document B on attention and networks."""
    rows = [
        (
            "N at which attention's N² term overtakes",
            "N > d = 768",
            f"{value('B.crossover.attn')} = 2d in a layer, {value('B.crossover.block')} = 6d in a block",
            "misleading",
        ),
        (
            "the N² term at n = 10,000, d = 768",
            "dominates",
            f"{percent(_share_of_the_core(10_000, 768))} of a block's forward",
            "reproduced",
        ),
        (
            "feed-forward network of width 4d, n = 20, d = 64",
            "O(nd²)",
            f"16nd² = {exact(value('B.ffn'))}",
            "reproduced",
        ),
        (
            "pairs of a two-sided window, n = 1024, w = 64",
            exact(said("B.window.bidir.n1024").document),
            exact(value("B.window.bidir.n1024")),
            "wrong: n(2w + 1) - w(w + 1)",
        ),
        (
            "of a causal window",
            exact(said("B.window.causal.n1024").document),
            exact(value("B.window.causal.n1024")),
            "an upper bound of nw - w(w - 1)/2",
        ),
        (
            "of Longformer, causal, g = 16",
            exact(said("B.longformer.causal.n1024").document),
            exact(value("B.longformer.causal.n1024")),
            "an upper bound",
        ),
        (
            "causal window in blocks, n = 512, w = 16, d = 64",
            "O(nwd)",
            f"8nwd = {exact(value('B.window.chunked'))} executed",
            "reproduced; twice what is useful",
        ),
        (
            "top-k attention, n = 512, k = 8, d = 64",
            "O(nkd)",
            f"2n²d + 2nkd = {exact(value('B.topk.scored'))}",
            f"wrong where all scores choose: {float(Fraction(value('B.topk.scored')) / (4 * 512 * 8 * 64)):.1f} × 4nkd",
        ),
        (
            "clusters, n = 512, C = 16, d = 64",
            "O(nkd)",
            f"4nCd + 4n²d/C = {exact(value('B.cluster.balanced'))}",
            "reproduced for k = n/C, and routing",
        ),
        ("masking saves FLOPs", "sparse is cheaper", _masked(), "wrong: a mask hides work, it does not save it"),
        ("the same, causal and fused", "half", _causal(), "wrong by the count; a kernel may skip hidden blocks"),
        ("Linear attention's normaliser", "sum of Kᵀ", _normaliser(), "wrong: Q(Kᵀ1) is needed"),
        ("FlashAttention's saved activations, d = 768, h = 12", "-70%", _saved_less(), "only near N = 747"),
        ("FlashAttention's FLOPs", "the same, lower constant", _flash(), "wrong: it computes the scores twice"),
    ]
    return Topic("A survey of attention (B)", "", CLAIMS, rows)


def _share_of_the_core(N: int, d: int) -> Fraction:
    """Scores and weighted sum in the forward of a block."""
    found = block("mha", N, d, 4, backward=False)
    assert (found.core, found.forward) == (4 * N * N * d, 24 * N * d * d + 4 * N * N * d)
    return Fraction(found.core, found.forward)


class _Masked(nn.Module):
    """Fused attention with a window as a mask."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.w = w

    def forward(self, x: Tensor) -> Tensor:
        at = torch.arange(x.shape[2])
        return F.scaled_dot_product_attention(x, x, x, attn_mask=(at[:, None] - at).abs() <= self.w)


def _masked() -> str:
    T, H, dh, w = 256, 4, 16, 8
    found = of(_Masked(w), (torch.randn(1, H, T, dh),), backward=False).forward
    assert found == 4 * H * T * T * dh
    useful = 4 * H * dh * (T * (2 * w + 1) - w * (w + 1))
    return f"window of 8 as a mask, n = 256: {exact(found)}, useful {exact(useful)}"


def _causal() -> str:
    T, H, d = 256, 4, 64
    with attnprof.fake_tensors():
        net, args = zoo.build("mha-sdpa", d=d, H=H, causal=True), zoo.inputs("mha-sdpa", d=d, T=T)
    operators = attnprof.run(net, args, fake=True).by_operator()
    (core,) = [cost for name, cost in operators.items() if "scaled_dot_product" in name]
    assert (core.matmul_flops, core.useful_matmul_flops) == (4 * T * T * d, 4 * T * (T + 1) // 2 * d)
    return f"n = 256: {exact(core.matmul_flops)}, useful {exact(core.useful_matmul_flops)}"


def _normaliser() -> str:
    """Weights of linear attention under three normalisers; random numbers in float64 with a fixed seed."""
    q, k = (
        feature_map(torch.randn(64, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(i)))
        for i in (0, 1)
    )
    weights = q @ k.T
    right = (weights / (q @ k.sum(0))[:, None]).sum(1)
    assert torch.allclose(right, torch.ones_like(right))
    by_total = (weights / k.sum()).sum(1)
    assert by_total.min() < 0.8
    assert by_total.max() > 1.2
    return f"rows of weights sum to 1; by the sum of Kᵀ alone to {by_total.min():.1f} ... {by_total.max():.1f}"


def _saved_less() -> str:
    d, H = 768, 12
    shares = {}
    for N in (128, 512, 747, 4096):
        written, fused = (measured(name, N, d=d, H=H).saved for name in ("mha", "mha-sdpa"))
        assert (written, fused) == (4 * (5 * N * d + H * N * N), 4 * (5 * N * d + H * N))
        shares[N] = 1 - Fraction(fused, written)
    assert shares[747] == value("B.flash.saved_mem70")
    return ", ".join(f"-{percent(share)} (N = {N})" for N, share in shares.items())


def _flash() -> str:
    P, A = 128 * 64 * 64, 128 * 128 * 64
    flash, written = (measured(name, 128, d=64, H=4) for name in ("flash", "mha"))
    assert flash.forward == written.forward
    assert (flash.backward, written.backward) == (16 * P + 10 * A, 16 * P + 8 * A)
    return "forward the same; backward 10 N²d for 8 N²d"


def mixture() -> Topic:
    """The mixture of experts of document B."""
    n, d = 256, 128
    rows = []
    for E in (8, 16):
        for k in (1, 2, 4, 8):
            found = experts(n, d, E, k).forward
            assert found == 16 * k * n * d * d + 2 * n * d * E
            rows.append([f"{E}, {k}", exact(said(f"B.moe.E{E}.k{k}").document), exact(found)])
    return Topic(
        "Mixture of experts (B: O(n(d²/k + dE)))",
        "Wrong: k is upside down. FLOPs of a forward, n = 256 tokens, d = 128, experts of width 4d; B's formula with "
        "coefficients 1 falls as k rises.",
        ("E, k", "B", "measured"),
        rows,
        "16 k n d² + 2 n d E, and twice that backward: each token is in k experts, and the router rates all E.",
    )


def checkpoints() -> Topic:
    """Recomputation, document B."""
    rows = []
    for mixer in ("mha", "mha-sdpa"):
        for how in ("reentrant", "non-reentrant"):
            cells = [f"{'fused' if mixer == 'mha-sdpa' else 'written out'}, {how}"]
            for N in (256, 1024):
                plain, kept = (block(mixer, N, 256, 4, checkpoint=c) for c in (None, how))
                more = Fraction(kept.recompute - plain.recompute, plain.step + plain.recompute)
                P, A = N * 256 * 256, N * N * 256
                again, fused = (24 if how == "reentrant" else 16), (2 * A if mixer == "mha-sdpa" else 0)
                assert more == Fraction(again * P + 4 * A, 72 * P + 12 * A + fused)
                cells.append(f"+{percent(more)}")
            rows.append(cells)
    live = value("B.ckpt.live")
    at = [_peak(checkpoint) for checkpoint in (None, "reentrant")]
    return Topic(
        "Activation checkpointing (B: +20 to 30% compute, -50 to 70% memory)",
        "Matmul FLOPs of a step, blocks of d = 256, 4 heads, width 4d, each checkpointed.",
        ("attention, checkpoint", "N = 256", "N = 1024"),
        rows,
        f"Wrong for the whole forward again (+1/3 written out); right for torch's non-reentrant checkpoint, which "
        f"stops before a block's last product. Saved activations fall by {percent(live)} (8 blocks, N = 512), and the "
        f"peak of a step, parameters and gradients in it, by {percent(1 - Fraction(at[1], at[0]))}.",
    )


def _peak(checkpoint: str | None) -> int:
    """The most bytes alive in a step of 8 blocks."""
    with attnprof.fake_tensors():
        net = zoo.build("transformer", d=256, H=4, L=8, activation="gelu", checkpoint=checkpoint)
        (x,) = zoo.inputs("transformer", d=256, T=512)
    memory = attnprof.run(net, (x.requires_grad_(),), backward=True, fake=True).memory
    assert memory is not None
    return memory.peak.bytes


TOPICS = (attention_as_operators, survey, mixture, checkpoints)
