"""Facts about attention and its relatives, by running them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import nn

import attnprof
from attnprof import zoo
from attnprof.analysis.study import crossing
from attnprof.analytic import predict
from claims.facts import source
from claims.runs import Measured, measured, of, states

MIB = 2**20


def block(mixer: str, N: int, d: int, H: int = 1, **more: Any) -> Measured:
    """A pre-norm block with a network of width 4 d."""
    return measured("transformer", N, d=d, H=H, L=1, mixer=mixer, **more)


def giga(flops: int) -> Fraction:
    return Fraction(flops, 10**9)


# Forward and backward of attention


@source("measured", r"D\.ops_true\.fwd\..*")
def forward(N: int, d: int) -> Fraction:
    return giga(measured("mha", N, d=d, H=12).forward)


@source("measured", r"D\.ops_true\.ortho_bwd\..*")
def backward(N: int, d: int) -> Fraction:
    return giga(measured("orthogonal", N, d=d, H=12).backward)


@source("measured", r"D\.bwd\.(?P<how>explicit|sdpa)\.(?P<weights>train|frozen)\.(?P<x>xgrad|xconst)\.N\d+")
def backward_of(N: int, d: int, how: str, weights: str, x: str) -> int:
    """The products of a backward, those of fused attention's scores computed again among them; as theory has it."""
    kind = ("mha" if weights == "train" else "orthogonal") + ("-sdpa" if how == "sdpa" else "")
    found = measured(kind, N, d=d, H=12, input_grad=x == "xgrad")
    theory = predict(kind, B=1, T=N, d=d, H=12, input_grad=x == "xgrad")
    for phase in ("backward", "recompute"):
        assert getattr(found, phase) == (
            theory.evaluate("matmul_flops", phase) if phase in theory.phases("matmul_flops") else 0
        )
    return found.backward + found.recompute


@source("closed form", r"D\.ops\.(?P<name>std|ortho_fwd)\..*")
def growth(N: int, d: int, name: str) -> Fraction:
    """The growth of the closed form, with every coefficient 1."""
    from sympy import sympify

    theory = predict("mha" if name == "std" else "orthogonal")
    grows = theory.big_o(("T", "d"), phase="forward").removeprefix("O")
    return giga(int(sympify(grows, {}).subs({"T": N, "d": d})))


@source("measured", r"D\.speedup\.true_attn_reduction\..*")
def reduction(N: int, d: int) -> Fraction:
    full, frozen = measured("mha", N, d=d, H=4).step, measured("orthogonal", N, d=d, H=4).step
    return 100 * (1 - Fraction(frozen, full))


@source("measured", r"D\.speedup\.true_attn\..*")
def speedup(N: int, d: int) -> Fraction:
    full, frozen = measured("mha", N, d=d, H=4).step, measured("orthogonal", N, d=d, H=4).step
    return 100 * (Fraction(full, frozen) - 1)


@source("measured", r"D\.(speedup\.true_block|scenario\.speedup_true_block)\..*")
def block_speedup(N: int, d: int) -> Fraction:
    full, frozen = block("mha", N, d, 4).step, block("orthogonal", N, d, 4).step
    return 100 * (Fraction(full, frozen) - 1)


@source("measured", r"A\.mha\.matmul_with_WO")
def with_output(s: int, d: int, h: int) -> int:
    return measured("mha", s, d=d, H=h).forward


@source("measured", r"A\.mha\.time")
def without_output(s: int, d: int, h: int) -> int:
    """The document's softmax is exp, sum and division: 3 per score."""
    return measured("mha-no-output", s, d=d, H=h).forward + 3 * h * s * s


@source("measured", r"A\.softmax")
def softmax(s: int, d: int, h: int) -> int:
    with attnprof.fake_tensors():
        scores = torch.randn(h, s, s)
    return of(nn.Softmax(-1), (scores,), fake=True).vector


@source("measured", r"C\.gqa\..*")
def grouped_block(T: int, d: int, H: int, Hk: int) -> int:
    return block("gqa", T, d, H, Hkv=Hk).forward


@source("measured", r"B\.crossover\.(?P<of_what>attn|block)")
def core_overtakes(d: int, of_what: str) -> int:
    """Where scores and weighted sum cost as much as everything else."""

    def excess(N: int) -> int:
        at = (
            measured("mha", N, d=d, H=4, backward=False) if of_what == "attn" else block("mha", N, d, 4, backward=False)
        )
        return 2 * at.core - at.forward

    equal = crossing(excess, 1, 16 * d) - 1
    assert excess(equal) == 0
    return equal


# What is saved, and what is moved


@source("measured", r"D\.act\.attn\.(?P<how>explicit|sdpa)\..*")
def saved(N: int, d: int, h: int, how: str) -> int:
    return measured("mha" if how == "explicit" else "mha-sdpa", N, d=d, H=h).saved


@source("measured", r"D\.act\.block\.explicit\..*")
def saved_by_a_block(N: int, d: int, h: int) -> int:
    return block("mha", N, d, h, activation="gelu").saved


@source("measured", r"B\.flash\.saved_mem70")
def saved_less(N: int, d: int, h: int) -> Fraction:
    return 1 - Fraction(measured("mha-sdpa", N, d=d, H=h).saved, measured("mha", N, d=d, H=h).saved)


@source("measured", r"D\.bytes\.(?P<how>explicit|sdpa)\..*")
def traffic(B: int, N: int, d: int, h: int, how: str, cp: int = 0) -> Fraction:
    """In elements of 4 bytes."""
    name = "mha" if how == "explicit" else "mha-sdpa"
    return Fraction(measured(name, N, B=B, d=d, H=h).traffic, 4)


@source("measured", r"D\.scores_(?P<unit>mb|mib_h12)\..*")
def scores(N: int, unit: str, h: int = 1) -> Fraction:
    """Bytes that a softmax over all scores writes in half precision."""
    with attnprof.fake_tensors():
        net, args = zoo.build("mha", d=h, H=h), zoo.inputs("mha", d=h, T=N)
    report = attnprof.run(net, args, plan=attnprof.Plan(dtype="fp16"), fake=True)
    return Fraction(report.by_operator()["aten._softmax.default"].write_bytes, 10**6 if unit == "mb" else MIB)


@source("measured", r"B\.ckpt\.(?P<how>full|earlystop)\..*")
def recomputed(N: int, d: int, how: str) -> Fraction:
    at = block("mha", N, d, 4, checkpoint="reentrant" if how == "full" else "non-reentrant")
    return Fraction(at.recompute, at.step)


@source("measured", r"B\.ckpt\.live")
def no_longer_saved(h: int, N: int, d: int) -> Fraction:
    """The formula leaves out mean and deviation of both norms, 4 numbers a token: so does this."""
    whole = measured("transformer", N, d=d, H=h, L=8, activation="gelu").saved - 8 * 4 * N * 4
    kept = measured("transformer", N, d=d, H=h, L=8, activation="gelu", checkpoint="reentrant").saved
    return 1 - Fraction(kept, whole)


# Parameters and states


@source("measured", r"D\.params\.d\d+")
def parameters(d: int) -> int:
    return measured("mha", 2, d=d, H=4).parameters


@source("measured", r"D\.synth\.params")
def synthesizer(h: int, N: int, d: int) -> int:
    return measured("synthesizer-random", N, d=d, H=h, N=N).trainable


@source("measured", r"D\.mem\.(?P<what>std|ortho|saved)\.d\d+")
def memory(d: int, what: str) -> Fraction:
    full, frozen = (sum(states(name, d, H=4).values()) for name in ("mha", "orthogonal"))
    return Fraction({"std": full, "ortho": frozen, "saved": full - frozen}[what], MIB)


@source("measured", r"D\.mem\.ratio\.d(?P<d>\d+)")
def memory_ratio(d: str) -> Fraction:
    return 100 * memory(int(d), "saved") / memory(int(d), "std")


@source("measured", r"D\.mem\.row\.(?P<what>params|grads|adam)(_(?P<weights>std|ortho))?")
def memory_row(d: int, what: str, weights: str | None) -> Fraction:
    row = {"params": "parameters", "grads": "gradients", "adam": "adam"}[what]
    return Fraction(states("orthogonal" if weights == "ortho" else "mha", d, H=4)[row], MIB)


@source("measured", r"D\.mem\.block_ratio")
def memory_of_a_block(d: int) -> Fraction:
    full, frozen = (
        sum(states("transformer", d, "fp32", H=4, L=1, mixer=mixer).values()) for mixer in ("mha", "orthogonal")
    )
    return 100 * (1 - Fraction(frozen, full))


@source("measured", r"D\.mem\.(?P<model>12layers|24layers|gpt2m|bert)")
def memory_of_layers(d: int, model: str) -> Fraction:
    return {"12layers": 12, "24layers": 24, "gpt2m": 24, "bert": 12}[model] * memory(d, "saved")
