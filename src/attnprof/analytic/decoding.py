"""Decoding: a step of attention or of a layer with cached keys and values, and T steps with a cache or without."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from sympy import Add, And, Dummy, Expr, Gt, Integer, Mul, Ne, Or, Piecewise, Poly, factor, summation, true
from sympy.logic.boolalg import Boolean

from attnprof.analytic.attention import Heads, cache, explicit, head_width, project, project_back
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


def _attention(tape: Tape, at: Heads, x: Tensor, cached: Tensor | None, joined: Boolean = true) -> Tensor:
    """T new tokens against the keys of all S; the cached ones may need a gradient.

    Without ``cached`` there is nothing before them. ``joined``: sizes for which there is.
    """
    q, k, v = project(tape, replace(at, S=at.T), x, x)
    if cached is None:
        several, heads, more = Ne(at.B, 1), Ne(at.Hkv, 1), Ne(at.T, 1)
        apart = And(several, heads, more)
        k = tape.copy(tape.copied_back(k, only_if=And(several, more)), only_if=apart)
        v = tape.copy(tape.copied_back(v, only_if=And(heads, more)), only_if=apart)
    else:
        apart = And(joined, Or(Ne(at.Hkv, 1), And(Ne(at.B, 1), Ne(at.T, 1))))
        if joined is true:  # in a sequence of steps the gradient of k stays transposed, as the product leaves it
            tape.copied_back(k, only_if=apart)
        tape.copied_back(v, only_if=apart)
        k, v = (_joined(tape, at, t, cached, joined) for t in (k, v))
    y = explicit(tape, at, q, k, v, causal=True, cached=True)
    return project_back(tape, at, y)


def _joined(tape: Tape, at: Heads, new: Tensor, cached: Tensor, joined: Boolean) -> Tensor:
    """Old and new keys, or values; backward they are views of the gradient.

    They are returned, too: a gradient comes from there, besides that of their use.
    """
    whole = tape.tensor(new.name, at.B * at.S * at.m, new.needs_grad or cached.needs_grad)
    tape.moved(f"join of {new.name}", whole.elements * e, whole.elements * e, only_if=joined)
    tape.arrive(new)
    tape.arrive(whole)
    return whole


def _layer(tape: Tape, at: Heads, x: Tensor, f: Expr, cached: Tensor | None, joined: Boolean = true) -> Tensor:
    """A pre-norm layer: cached attention, and a GELU network without biases."""
    rows = at.B * at.T
    normed = tape.layer_norm(x, rows, at.d, "norm_1", "norm_1 output")
    with tape.scope("attention"):
        y = _attention(tape, at, normed, cached, joined)
    h = tape.add(x, y, "h", "residual_1")
    normed = tape.layer_norm(h, rows, at.d, "norm_2", "norm_2 output")
    hidden = tape.activation(tape.linear("up", normed, rows, at.d, f, "hidden"), "gelu")
    return tape.add(h, tape.linear("down", hidden, rows, f, at.d, "output"), "x", "residual_2")


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
    tape.conditions.add(Gt(S, T))  # nothing before: fewer copies
    return _attention(tape, at, x, cached)


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
    tape.conditions.add(Gt(S, T))
    return _layer(tape, at, x, 4 * d if f is None else f, cached)


@lru_cache
def _sum_of_powers(power: int, T: Expr) -> Expr:
    """1 + 2^p + ... + T^p."""
    t = Dummy("t", integer=True, positive=True)
    return summation(t**power, (t, 1, T))


def _sum(expression: Expr, t: Expr, T: Expr) -> Expr:
    """A polynomial in t over t = 1 .. T; cases, of which none is about t, are summed one by one."""
    total = Integer(0)
    for term in Add.make_args(expression.expand()):
        cases = [part for part in Mul.make_args(term) if isinstance(part, Piecewise)]
        if cases:
            rest = Mul(*(part for part in Mul.make_args(term) if part is not cases[0]))
            summed = ((_sum(rest * part, t, T), condition) for part, condition in cases[0].args)
            total += Piecewise(*summed)
        else:
            total += Add(*(c * _sum_of_powers(power, T) for (power,), c in Poly(term, t).terms()))
    return total


def _over_steps(expression: Expr, t: Expr, T: Expr) -> Expr:
    """The sum over t = 1 .. T of what is a polynomial in t after the first step, which has a single token."""
    later = expression.xreplace({Ne(t, 1): true})
    first = expression.subs(t, 1)
    total = _sum(later, t, T) - later.subs(t, 1) + first
    return total.expand() if total.has(Piecewise) else factor(total)


def _steps(tape: Tape, step: Heads, L: Expr, f: Expr, t: Expr, T: Expr, cached: bool) -> None:
    """L layers in a step of sizes in t, summed over t = 1 .. T; the weights are those of one step, x is kept once."""
    one = tape.child()
    x = one.input("inputs", step.B * step.T * step.d)
    before = one.tensor("cache", 2 * step.B * (t - 1) * step.m, False) if cached else None

    def layer(x: Tensor) -> Tensor:
        return _layer(one, step, x, f, before, Ne(t, 1))

    def summed(term: Term) -> Term:
        if term.quantity in ("parameters", "trainable_parameters"):
            return term
        if term.quantity == "saved_bytes" and term.name == "layers.inputs":
            return term.map(lambda _: step.B * T * step.d * e)
        if cached and term.name.endswith(("gradients of k", "gradients of v")):  # the last cache is used no more
            return term.map(lambda expression: _over_steps(expression, t, T) - expression.subs(t, T))
        return term.map(lambda expression: _over_steps(expression, t, T))

    with one.scope("layers"):
        h = layer(x)
        h = one.repeat(L - 1, h, layer)
    tape.inputs.append("x")
    tape.take(one, summed)
    trained = sum((term.expression for term in one.terms if term.quantity == "trainable_parameters"), Integer(0))
    if trained != 0:  # every step adds its gradients to those of the others
        again = (T - 1) * trained
        tape.moved("gradients of weights", 2 * again * e, again * e, "backward", flops=again)
    _pieces(tape, step.B * step.d, T, x.needs_grad, h.needs_grad, cached)


def _pieces(tape: Tape, token: Expr, T: Expr, x_needs_grad: bool, y_needs_grad: bool, cached: bool) -> None:
    """The inputs cut into steps, the outputs joined: one token each, or without a cache all so far."""
    whole = T * token
    tape.moved("join of outputs", whole * e, whole * e)
    if cached:
        if x_needs_grad:
            tape.moved("parts of x", whole * e, whole * e, "backward")
        return
    if y_needs_grad:  # of the last token of each step
        tape.moved("last tokens", whole * e, T * (T + 1) / 2 * token * e, "backward")
    if x_needs_grad:  # of all steps but the last, which has all of x; all added up
        tape.moved("parts of x", T * (T - 1) / 2 * token * e, (T - 1) * whole * e, "backward")
        again = (T - 1) * whole
        tape.moved("gradients of x", 2 * again * e, again * e, "backward", flops=again)


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
    _steps(tape, Heads(B, t, t, d, H, at.Hkv, at.dh), L, 4 * d if f is None else f, t, T, cached=False)


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
    _steps(tape, Heads(B, Integer(1), t, d, H, at.Hkv, at.dh), L, 4 * d if f is None else f, t, T, cached=True)
    tape.note("kv_cache", "kv_cache_bytes", 2 * B * L * T * at.m * e)
