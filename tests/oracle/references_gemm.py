"""Contractions: multiply-adds accumulated onto zero; scaling and bias are vector work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import scaled


def _dot(m: Machine, pairs: Any) -> Any:
    accumulator: Any = 0
    for a, b in pairs:
        accumulator = m.multiply_add(accumulator, a, b)
    return accumulator


def _product(m: Machine, a: Buffer, b: Buffer) -> dict[tuple[int, ...], Any]:
    """The elements of a [m, k] x [k, n] product."""
    k = range(a.shape[1])
    return {(i, j): _dot(m, ((a[i, p], b[p, j]) for p in k)) for i, j in indices([a.shape[0], b.shape[1]])}


def mm(m: Machine, a: Buffer, b: Buffer) -> Buffer:
    out = m.new([a.shape[0], b.shape[1]], a.dtype)
    for i, v in _product(m, a, b).items():
        out[i] = v
    return out


def bmm(m: Machine, a: Buffer, b: Buffer) -> Buffer:
    out = m.new([a.shape[0], a.shape[1], b.shape[2]], a.dtype)
    for n in range(a.shape[0]):
        for i, v in _product(m, a.pick(0, n), b.pick(0, n)).items():
            out[(n, *i)] = v
    return out


def _combined(bias: Callable[[], Any], v: Any, beta: float, alpha: float) -> Any:
    """beta bias + alpha v; with beta 0 the bias is not even read."""
    v = scaled(v, alpha)
    return v if beta == 0 else scaled(bias(), beta) + v


def addmm(m: Machine, bias: Buffer, a: Buffer, b: Buffer, *, beta: float = 1, alpha: float = 1) -> Buffer:
    """beta bias + alpha a b."""
    out = m.new([a.shape[0], b.shape[1]], a.dtype)
    bias = bias.expand(out.shape)
    for i, v in _product(m, a, b).items():
        out[i] = _combined(lambda i=i: bias[i], v, beta, alpha)
    return out


def baddbmm(m: Machine, bias: Buffer, a: Buffer, b: Buffer, *, beta: float = 1, alpha: float = 1) -> Buffer:
    """beta bias + alpha a b, for every matrix of a batch."""
    out = m.new([a.shape[0], a.shape[1], b.shape[2]], a.dtype)
    bias = bias.expand(out.shape)
    for n in range(a.shape[0]):
        for i, v in _product(m, a.pick(0, n), b.pick(0, n)).items():
            out[(n, *i)] = _combined(lambda i=(n, *i): bias[i], v, beta, alpha)
    return out


def addbmm(m: Machine, bias: Buffer, a: Buffer, b: Buffer, *, beta: float = 1, alpha: float = 1) -> Buffer:
    """beta bias + alpha sum_n a_n b_n: one contraction over batch and k."""
    out = m.new([a.shape[1], b.shape[2]], a.dtype)
    bias = bias.expand(out.shape)
    for i, j in indices(out.shape):
        v = _dot(m, ((a[n, i, p], b[n, p, j]) for n, p in indices([a.shape[0], a.shape[2]])))
        out[i, j] = _combined(lambda i=i, j=j: bias[i, j], v, beta, alpha)
    return out


def mv(m: Machine, a: Buffer, x: Buffer) -> Buffer:
    out = m.new([a.shape[0]], a.dtype)
    for i in range(a.shape[0]):
        out[i] = _dot(m, ((a[i, p], x[p]) for p in range(x.shape[0])))
    return out


def addmv(m: Machine, bias: Buffer, a: Buffer, x: Buffer, *, beta: float = 1, alpha: float = 1) -> Buffer:
    """beta bias + alpha a x."""
    out = m.new([a.shape[0]], a.dtype)
    bias = bias.expand(out.shape)
    for i in range(a.shape[0]):
        v = _dot(m, ((a[i, p], x[p]) for p in range(x.shape[0])))
        out[i] = _combined(lambda i=i: bias[i], v, beta, alpha)
    return out


def addr(m: Machine, bias: Buffer, x: Buffer, y: Buffer, *, beta: float = 1, alpha: float = 1) -> Buffer:
    """beta bias + alpha x yᵀ: a contraction with k = 1."""
    out = m.new([x.shape[0], y.shape[0]], x.dtype)
    bias = bias.expand(out.shape)
    for i, j in indices(out.shape):
        out[i, j] = _combined(lambda i=i, j=j: bias[i, j], _dot(m, [(x[i], y[j])]), beta, alpha)
    return out


def dot(m: Machine, x: Buffer, y: Buffer) -> Buffer:
    out = m.new([], x.dtype)
    out[()] = _dot(m, ((x[i], y[i]) for i in range(x.shape[0])))
    return out


def int_mm(m: Machine, a: Buffer, b: Buffer) -> Buffer:
    """int8 x int8 accumulated and returned in int32."""
    out = m.new([a.shape[0], b.shape[1]], torch.int32)
    for i, v in _product(m, a, b).items():
        out[i] = v
    return out


def grouped_mm(m: Machine, a: Buffer, b: Buffer, offs: Buffer) -> Buffer:
    """Rows up to each offset go through their own matrix: b[g] is read only if group g has rows."""
    out = m.new([a.shape[0], b.shape[2]], a.dtype)
    start = 0
    for g in range(b.shape[0]):
        end = int(offs[g])
        for row in range(start, end):
            for j in range(b.shape[2]):
                out[row, j] = _dot(m, ((a[row, p], b[g, p, j]) for p in range(a.shape[1])))
        start = end
    return out
