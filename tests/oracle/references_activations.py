"""Activations and their gradients, as functions of scalars. Constants fold; nothing else is rearranged."""

from __future__ import annotations

import math
from typing import Any

import torch

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import (
    clamp,
    erf,
    exp,
    expm1,
    log1p,
    maximum,
    minimum,
    scaled,
    select,
    sigmoid,
    tanh,
)
from oracle.references_pointwise import pointwise


def relu(x: Any) -> Any:
    return maximum(x, 0)


def threshold_backward(m: Machine, grad: Buffer, x: Buffer, threshold: float) -> Buffer:
    """The gradient of relu and threshold: g where x exceeds the threshold."""
    return pointwise(m, lambda g, v: select(v <= threshold, 0.0, g), grad, x)


def sigmoid_backward(g: Any, y: Any) -> Any:
    return g * (1 - y) * y


def tanh_backward(g: Any, y: Any) -> Any:
    return g * (1 - y * y)


def silu(x: Any) -> Any:
    return x / (1 + exp(-x))


def silu_backward(g: Any, x: Any) -> Any:
    s = sigmoid(x)
    return g * s * (1 + x * (1 - s))


_K = math.sqrt(0.5)
_SIXTH = torch.tensor(1 / 6, dtype=torch.float32).item()  # torch holds this constant in single precision
_BETA, _KAPPA = math.sqrt(2 / math.pi), 0.044715


def gelu(m: Machine, x: Buffer, *, approximate: str = "none") -> Buffer:
    """x Phi(x), or its tanh approximation."""

    def exact(v: Any) -> Any:
        return 0.5 * v * (1 + erf(v * _K))

    def approximated(v: Any) -> Any:
        return 0.5 * v * (1 + tanh(_BETA * (v + _KAPPA * (v * v * v))))

    return pointwise(m, exact if approximate == "none" else approximated, x)


def gelu_backward(m: Machine, grad: Buffer, x: Buffer, *, approximate: str = "none") -> Buffer:
    """g (Phi(x) + x phi(x)), or the derivative of the approximation by the product rule."""

    def exact(g: Any, v: Any) -> Any:
        cdf = 0.5 * (1 + erf(v * _K))
        pdf = exp(-0.5 * (v * v)) * (1 / math.sqrt(2 * math.pi))
        return g * (cdf + v * pdf)

    def approximated(g: Any, v: Any) -> Any:
        square = v * v
        inner = _BETA * (v + _KAPPA * (square * v))
        t = tanh(inner)
        left, right = 0.5 * v, 1 + t
        d_left = 0.5 * right
        d_tanh = 1 - t * t
        d_inner = _BETA * (1 + 3 * _KAPPA * square)
        return g * (d_left + left * d_tanh * d_inner)

    return pointwise(m, exact if approximate == "none" else approximated, grad, x)


def hardswish(x: Any) -> Any:
    return x * clamp(x + 3, 0, 6) / 6


def hardswish_backward(g: Any, x: Any) -> Any:
    low, high = x < -3, x <= 3
    middle = g * (x / 3 + 0.5)
    return select(low, 0.0, select(high, middle, g))


def hardsigmoid(x: Any) -> Any:
    return clamp(x + 3, 0, 6) / 6


def hardsigmoid_backward(g: Any, x: Any) -> Any:
    low, high = x > -3, x < 3
    middle = g * _SIXTH
    return select(low and high, middle, 0.0)


def leaky_relu(m: Machine, x: Buffer, negative_slope: float = 0.01) -> Buffer:
    return pointwise(m, lambda v: select(v > 0, v, v * negative_slope), x)


def leaky_relu_backward(m: Machine, grad: Buffer, x: Buffer, negative_slope: float, self_is_result: bool) -> Buffer:
    return pointwise(m, lambda g, v: select(v > 0, g, g * negative_slope), grad, x)


def hardtanh(m: Machine, x: Buffer, min_val: float = -1, max_val: float = 1) -> Buffer:
    return pointwise(m, lambda v: clamp(v, min_val, max_val), x)


def hardtanh_backward(m: Machine, grad: Buffer, x: Buffer, min_val: float, max_val: float) -> Buffer:
    def f(g: Any, v: Any) -> Any:
        low, high = v <= min_val, v >= max_val
        return select(low or high, 0.0, g)

    return pointwise(m, f, grad, x)


def elu(m: Machine, x: Buffer, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Buffer:
    """scale x where positive, alpha scale (e^(input_scale x) - 1) elsewhere."""

    def f(v: Any) -> Any:
        positive = v > 0
        return select(positive, scaled(v, scale), scaled(expm1(scaled(v, input_scale)), alpha, scale))

    return pointwise(m, f, x)


def elu_backward(
    m: Machine, grad: Buffer, alpha: float, scale: float, input_scale: float, is_result: bool, kept: Buffer
) -> Buffer:
    """g input_scale (y + alpha scale) of the result y, or g input_scale alpha scale e^(input_scale x) of the input."""

    def f(g: Any, v: Any) -> Any:
        negative = v <= 0
        if is_result:
            slope = scaled(v + alpha * scale, input_scale)
        else:
            slope = scaled(exp(scaled(v, input_scale)), alpha, scale, input_scale)
        return select(negative, g * slope, scaled(g, scale))

    return pointwise(m, f, grad, kept)


def softplus(m: Machine, x: Buffer, beta: float = 1, threshold: float = 20) -> Buffer:
    """log(1 + e^(beta x)) / beta, or x above the threshold."""

    def f(v: Any) -> Any:
        z = scaled(v, beta)
        smooth = log1p(exp(z))
        smooth = smooth if beta == 1 else smooth / beta
        return select(z > threshold, v, smooth)

    return pointwise(m, f, x)


def softplus_backward(m: Machine, grad: Buffer, x: Buffer, beta: float, threshold: float) -> Buffer:
    """g z / (z + 1) with z = e^(beta x), or g above the threshold."""

    def f(g: Any, v: Any) -> Any:
        scaled_x = scaled(v, beta)
        z = exp(scaled_x)
        return select(scaled_x > threshold, g, g * z / (z + 1))

    return pointwise(m, f, grad, x)


def mish(x: Any) -> Any:
    return x * tanh(log1p(exp(x)))


def mish_backward(g: Any, x: Any) -> Any:
    s, t = sigmoid(x), tanh(log1p(exp(x)))
    return g * (t + x * s * (1 - t * t))


def log_sigmoid_forward(m: Machine, x: Buffer) -> tuple[Buffer, Buffer]:
    """min(0, x) - log(1 + e^-|x|); the CPU kernel keeps e^-|x| for the backward."""
    out, buffer = m.new(x.shape, x.dtype), m.new(x.shape, x.dtype)
    for i in indices(x.shape):
        z = exp(-abs(x[i]))
        out[i], buffer[i] = minimum(0, x[i]) - log1p(z), z
    return out, buffer


def log_sigmoid_backward(m: Machine, grad: Buffer, x: Buffer, buffer: Buffer) -> Buffer:
    """g (max_derivative - sign z / (1 + z)) with z = e^-|x| kept by the forward."""

    def f(g: Any, v: Any, z: Any) -> Any:
        negative = v < 0
        sign, derivative = select(negative, 1.0, -1.0), select(negative, 1.0, 0.0)
        ratio = z / (1 + z)
        return g * (derivative - ratio * sign)

    return pointwise(m, f, grad, x, buffer)


def glu(m: Machine, x: Buffer, dim: int = -1) -> Buffer:
    """First half times the sigmoid of the second."""
    half = x.shape[dim] // 2
    shape = list(x.shape)
    shape[dim] = half
    out = m.new(shape, x.dtype)
    for i in indices(shape):
        out[i] = x[i] * sigmoid(x[_shifted(i, dim, half)])
    return out


def glu_backward(m: Machine, grad: Buffer, x: Buffer, dim: int) -> Buffer:
    """da = g s; db = g s (1 - s) a, with s = sigmoid(b)."""
    half = x.shape[dim] // 2
    out = m.new(x.shape, x.dtype)
    for i in indices(grad.shape):
        j = _shifted(i, dim, half)
        s = sigmoid(x[j])
        out[i] = da = grad[i] * s
        out[j] = da * (1 - s) * x[i]
    return out


def _shifted(index: tuple[int, ...], dim: int, by: int) -> tuple[int, ...]:
    moved = list(index)
    moved[dim] += by
    return tuple(moved)
