"""Decoding: a step of attention or of a layer with cached keys and values, and T steps with a cache or without."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from sympy import Add, Dummy, Eq, Expr, Integer, Piecewise, Poly, factor, summation

from attnprof.analytic.attention import Heads, cache, explicit_pairs, head_width, project, project_back
from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.latent import new_tokens
from attnprof.analytic.prediction import Term
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e


def _heads(sizes: Sizes, B: Expr, T: Expr, S: Expr, d: Expr, H: Expr, Hkv: Expr | None, dh: Expr | None) -> Heads:
    if Hkv is not None:
        sizes.divides("H", "Hkv")
    if "S" in sizes.values and "T" in sizes.values:
        new_tokens(sizes)
    return Heads(B, T, S, d, H, H if Hkv is None else Hkv, head_width(sizes, d, H, dh))


def _attention(tape: Tape, at: Heads, x: Tensor, cached: bool, mask: Expr | None) -> Tensor:
    """T new tokens against the keys of all S; the cached ones may need a gradient."""
    q, k, v = project(tape, replace(at, S=at.T), x, x)
    useful = at.T * at.S - at.T * (at.T - 1) / 2
    k, v = (tape.tensor(t.name, at.B * at.S * at.m, t.needs_grad or cached) for t in (k, v))
    y = explicit_pairs(tape, at, q, k, v, at.T * at.S, useful, at.T, mask)
    return project_back(tape, at, tape.copy(y, "heads merged"))


def _layer(tape: Tape, at: Heads, x: Tensor, f: Expr, cached: bool, mask: Expr | None) -> Tensor:
    """A pre-norm layer: cached attention, and a GELU network without biases."""
    rows = at.B * at.T
    normed = tape.layer_norm(x, rows, at.d, "norm_1", "norm_1 output")
    with tape.scope("attention"):
        y = _attention(tape, at, normed, cached, mask)
    h = tape.add(x, y, "h", "residual_1")
    normed = tape.layer_norm(h, rows, at.d, "norm_2", "norm_2 output")
    hidden = tape.activation(tape.linear("up", normed, rows, at.d, f, "hidden"), "gelu")
    return tape.add(h, tape.linear("down", hidden, rows, f, at.d, "output"), "x", "residual_2")


def _of_several(T: Expr, elements: Expr) -> Expr:
    """A single token sees every key, and has no mask."""
    return Piecewise((0, Eq(T, 1)), (elements, True))


@formula("decode-attention")
def decode_attention(
    tape: Tape,
    sizes: Sizes,
    B: Expr,
    T: Expr,
    S: Expr,
    d: Expr,
    H: Expr,
    Hkv: Expr | None = None,
    dh: Expr | None = None,
) -> Tensor:
    """A decoding step of attention: T new tokens of S, against cached keys and values and their own."""
    at = _heads(sizes, B, T, S, d, H, Hkv, dh)
    x, cached = tape.input("x", B * T * d), tape.input("kv_cache", 2 * B * (S - T) * at.m)
    cache(tape, at)
    return _attention(tape, at, x, cached.needs_grad, _of_several(T, T * S))


@formula("decode-layer")
def decode_layer(
    tape: Tape,
    sizes: Sizes,
    B: Expr,
    T: Expr,
    S: Expr,
    d: Expr,
    H: Expr,
    Hkv: Expr | None = None,
    dh: Expr | None = None,
    f: Expr | None = None,
) -> Tensor:
    """A decoding step of a pre-norm layer: cached attention, then a GELU network of width f, 4 d unless given."""
    at = _heads(sizes, B, T, S, d, H, Hkv, dh)
    x, cached = tape.input("x", B * T * d), tape.input("kv_cache", 2 * B * (S - T) * at.m)
    cache(tape, at)
    return _layer(tape, at, x, 4 * d if f is None else f, cached.needs_grad, _of_several(T, T * S))


@lru_cache
def _sum_of_powers(power: int, T: Expr) -> Expr:
    """1 + 2^p + ... + T^p."""
    t = Dummy("t", integer=True, positive=True)
    return summation(t**power, (t, 1, T))


def _sum(expression: Expr, t: Expr, T: Expr) -> Expr:
    """A polynomial in t over t = 1 .. T."""
    return Add(*(c * _sum_of_powers(power, T) for (power,), c in Poly(expression, t).terms()))


def _steps(tape: Tape, step: Heads, L: Expr, f: Expr, t: Expr, T: Expr, mask: Expr | None) -> None:
    """L layers in a step of sizes in t, summed over t = 1 .. T; the weights are those of one step, x is kept once."""
    one = tape.child()
    x = one.input("inputs", step.B * step.T * step.d)

    def layer(x: Tensor) -> Tensor:
        return _layer(one, step, x, f, False, mask)

    def summed(term: Term) -> Term:
        if term.quantity in ("parameters", "trainable_parameters"):
            return term
        if term.quantity == "saved_bytes" and term.name == "layers.inputs":
            return term.map(lambda _: step.B * T * step.d * e)
        unmasked = 1 if term.name.endswith("mask") else 0  # the first step has a single token, and no mask
        return term.map(lambda expression: factor(_sum(expression, t, T) - unmasked * expression.subs(t, 1)))

    with one.scope("layers"):
        h = layer(x)
        one.repeat(L - 1, h, layer)
    tape.inputs.append("x")
    tape.take(one, summed)


@formula("decode-naive")
def decode_naive(
    tape: Tape,
    sizes: Sizes,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    L: Expr,
    Hkv: Expr | None = None,
    dh: Expr | None = None,
    f: Expr | None = None,
) -> None:
    """T steps of decoding without a cache: step t runs L layers on the whole sequence of t tokens."""
    at = _heads(sizes, B, T, T, d, H, Hkv, dh)
    t = Dummy("t", integer=True, positive=True)
    _steps(tape, Heads(B, t, t, d, H, at.Hkv, at.dh), L, 4 * d if f is None else f, t, T, mask=t * t)


@formula("decode-cached")
def decode_cached(
    tape: Tape,
    sizes: Sizes,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    L: Expr,
    Hkv: Expr | None = None,
    dh: Expr | None = None,
    f: Expr | None = None,
) -> None:
    """T steps of decoding with a key-value cache: step t runs L layers on one token, against t keys."""
    at = _heads(sizes, B, T, T, d, H, Hkv, dh)
    t = Dummy("t", integer=True, positive=True)
    _steps(tape, Heads(B, Integer(1), t, d, H, at.Hkv, at.dh), L, 4 * d if f is None else f, t, T, mask=None)
    tape.note("kv_cache", "kv_cache_bytes", 2 * B * L * T * at.m * e)
