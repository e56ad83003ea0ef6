"""Normalisations. All of them centre once, then form x̂ per element; statistics are hoisted per row or channel."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import rsqrt, total

Place = tuple[int, ...]
Masks = Sequence[bool]


def _standardise(row: list[Any], eps: float) -> tuple[Any, Any, Any, list[Any]]:
    """Mean, biased variance, 1/sqrt(variance + eps) and the standardised row."""
    n = len(row)
    mean = total(row) / n
    centred = [v - mean for v in row]
    variance = total([v * v for v in centred]) / n
    scale = rsqrt(variance + eps)
    return mean, variance, scale, [v * scale for v in centred]


def _input_gradient(grad: list[Any], normalised: list[Any], scale: Any) -> list[Any]:
    """scale (g - mean(g) - x̂ mean(g x̂)): the derivative of x̂ through its own mean and variance."""
    n = len(grad)
    dot = total([g * v for g, v in zip(grad, normalised, strict=True)]) / n
    mean = total(grad) / n
    return [(g - mean - v * dot) * scale for g, v in zip(grad, normalised, strict=True)]


def _affine(v: Any, weight: Any, bias: Any) -> Any:
    v = v if weight is None else v * weight
    return v if bias is None else v + bias


def _rows_and_columns(shape: Sequence[int], normalized: Sequence[int]) -> tuple[list[Place], list[Place]]:
    outer = shape[: len(shape) - len(normalized)]
    return list(indices(outer)), list(indices(normalized))


def layer_norm(
    m: Machine, x: Buffer, normalized_shape: Sequence[int], weight: Buffer | None, bias: Buffer | None, eps: float
) -> tuple[Buffer, Buffer, Buffer]:
    """(x - mean) rstd weight + bias over the last dimensions; mean and rstd are kept for the backward."""
    outer, inner = _rows_and_columns(x.shape, normalized_shape)
    kept = [*x.shape[: len(x.shape) - len(normalized_shape)], *[1] * len(normalized_shape)]
    out, means, scales = m.new(x.shape, x.dtype), m.new(kept, x.dtype), m.new(kept, x.dtype)
    ones = (0,) * len(normalized_shape)
    for r in outer:
        mean, _, scale, normalised = _standardise([x[r + s] for s in inner], eps)
        means[r + ones], scales[r + ones] = mean, scale
        for s, v in zip(inner, normalised, strict=True):
            out[r + s] = _affine(v, weight[s] if weight else None, bias[s] if bias else None)
    return out, means, scales


def layer_norm_backward(
    m: Machine,
    grad: Buffer,
    x: Buffer,
    normalized_shape: Sequence[int],
    mean: Buffer,
    rstd: Buffer,
    weight: Buffer | None,
    bias: Buffer | None,
    output_mask: Masks,
) -> tuple[Buffer | None, ...]:
    """dX, dgamma and dbeta, those asked for; x̂ is rebuilt once if dX or dgamma needs it."""
    outer, inner = _rows_and_columns(x.shape, normalized_shape)
    ones = (0,) * len(normalized_shape)
    dx = m.new(x.shape, x.dtype) if output_mask[0] else None
    dgamma = m.new(normalized_shape, x.dtype) if output_mask[1] else None
    dbeta = m.new(normalized_shape, x.dtype) if output_mask[2] else None
    hats: dict[Place, Any] = {}
    if output_mask[0] or output_mask[1]:
        for r in outer:
            centre, scale = mean[r + ones], rstd[r + ones]
            hats.update({r + s: (x[r + s] - centre) * scale for s in inner})
    if dx is not None:
        for r in outer:
            grads = [grad[r + s] * weight[s] if weight else grad[r + s] for s in inner]
            for s, v in zip(inner, _input_gradient(grads, [hats[r + s] for s in inner], rstd[r + ones]), strict=True):
                dx[r + s] = v
    for s in inner:
        if dgamma is not None:
            dgamma[s] = total([grad[r + s] * hats[r + s] for r in outer])
        if dbeta is not None:
            dbeta[s] = total([grad[r + s] for r in outer])
    return dx, dgamma, dbeta


def rms_norm_backward(
    m: Machine,
    grad: Buffer,
    x: Buffer,
    normalized_shape: Sequence[int],
    rstd: Buffer,
    weight: Buffer | None,
    output_mask: Masks,
) -> tuple[Buffer | None, ...]:
    """x̂ = x rstd; dX = rstd (g w - x̂ mean(g w x̂)); dgamma = sum over rows of g x̂."""
    outer, inner = _rows_and_columns(x.shape, normalized_shape)
    ones = (0,) * len(normalized_shape)
    dx = m.new(x.shape, x.dtype) if output_mask[0] else None
    dgamma = m.new(normalized_shape, x.dtype) if output_mask[1] else None
    hats = {r + s: x[r + s] * rstd[r + ones] for r in outer for s in inner}
    if dx is not None:
        for r in outer:
            grads = [grad[r + s] * weight[s] if weight else grad[r + s] for s in inner]
            dot = total([g * hats[r + s] for g, s in zip(grads, inner, strict=True)]) / len(inner)
            for g, s in zip(grads, inner, strict=True):
                dx[r + s] = (g - hats[r + s] * dot) * rstd[r + ones]
    if dgamma is not None:
        for s in inner:
            dgamma[s] = total([grad[r + s] * hats[r + s] for r in outer])
    return dx, dgamma


def rms_norm(
    m: Machine, x: Buffer, normalized_shape: Sequence[int], weight: Buffer | None, eps: float
) -> tuple[Buffer, Buffer]:
    """x / sqrt(mean(x²) + eps) weight; the reciprocal root is kept for the backward."""
    outer, inner = _rows_and_columns(x.shape, normalized_shape)
    kept = [*x.shape[: len(x.shape) - len(normalized_shape)], *[1] * len(normalized_shape)]
    out, scales = m.new(x.shape, x.dtype), m.new(kept, x.dtype)
    for r in outer:
        row = [x[r + s] for s in inner]
        scale = rsqrt(total([v * v for v in row]) / len(row) + eps)
        scales[r + (0,) * len(normalized_shape)] = scale
        for s, v in zip(inner, row, strict=True):
            out[r + s] = _affine(v * scale, weight[s] if weight else None, None)
    return out, scales


def _of_channel(shape: Sequence[int], c: int) -> list[Place]:
    """Every index of channel ``c`` of a [N, C, ...] tensor."""
    return [i for i in indices(shape) if i[1] == c]


def batch_norm(
    m: Machine,
    x: Buffer,
    weight: Buffer | None,
    bias: Buffer | None,
    running_mean: Buffer | None,
    running_var: Buffer | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Buffer, Buffer, Buffer]:
    """Statistics of the batch (and the running ones moved towards them), or the running ones as they are."""
    channels = x.shape[1]
    out = m.new(x.shape, x.dtype)
    kept = [channels if training else 0]
    means, scales = m.new(kept, x.dtype), m.new(kept, x.dtype)
    for c in range(channels):
        places = _of_channel(x.shape, c)
        row = [x[i] for i in places]
        if training:
            mean, variance, scale, normalised = _standardise(row, eps)
            means[c], scales[c] = mean, scale
            if running_mean is not None and running_var is not None:
                unbiased = variance * (len(row) / (len(row) - 1))
                running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean
                running_var[c] = (1 - momentum) * running_var[c] + momentum * unbiased
        else:
            assert running_mean is not None
            assert running_var is not None
            mean, scale = running_mean[c], rsqrt(running_var[c] + eps)
            normalised = [(v - mean) * scale for v in row]
        for i, v in zip(places, normalised, strict=True):
            out[i] = _affine(v, weight[c] if weight else None, bias[c] if bias else None)
    return out, means, scales


def batch_norm_backward(
    m: Machine,
    grad: Buffer,
    x: Buffer,
    weight: Buffer | None,
    running_mean: Buffer | None,
    running_var: Buffer | None,
    save_mean: Buffer | None,
    save_invstd: Buffer | None,
    train: bool,
    eps: float,
    output_mask: Masks,
) -> tuple[Buffer | None, ...]:
    """In training through the batch's statistics; in evaluation the statistics are constants, dX = g weight scale."""
    channels = x.shape[1]
    dx = m.new(x.shape, x.dtype) if output_mask[0] else None
    dgamma = m.new([channels], x.dtype) if output_mask[1] else None
    dbeta = m.new([channels], x.dtype) if output_mask[2] else None
    for c in range(channels):
        places = _of_channel(x.shape, c)
        grads = [grad[i] for i in places]
        n = len(grads)
        hats, scale, dot = [], None, None
        if dx is not None or dgamma is not None:
            if train:
                assert save_invstd is not None
                scale = save_invstd[c]
            else:
                assert running_var is not None
                scale = rsqrt(running_var[c] + eps)
        if dgamma is not None or (dx is not None and train):
            centre = (save_mean if train else running_mean)[c]  # type: ignore[index]
            hats = [(x[i] - centre) * scale for i in places]
            dot = total([g * v for g, v in zip(grads, hats, strict=True)])
        summed = total(grads) if dbeta is not None or (dx is not None and train) else None
        if dx is not None:
            factor = scale * weight[c] if weight else scale
            if train:
                mean_dot, mean_grad = dot / n, summed / n
                moved = [g - mean_grad - v * mean_dot for g, v in zip(grads, hats, strict=True)]
            else:
                moved = grads
            for i, v in zip(places, moved, strict=True):
                dx[i] = v * factor
        if dgamma is not None:
            dgamma[c] = dot
        if dbeta is not None:
            dbeta[c] = summed
    return dx, dgamma, dbeta


def group_norm(
    m: Machine,
    x: Buffer,
    weight: Buffer | None,
    bias: Buffer | None,
    n: int,
    channels: int,
    pixels: int,
    groups: int,
    eps: float,
) -> tuple[Buffer, Buffer, Buffer]:
    """Each sample's group of channels standardised together, then an affine map per channel."""
    out, means, scales = m.new(x.shape, x.dtype), m.new([n, groups], x.dtype), m.new([n, groups], x.dtype)
    for b, g in indices([n, groups]):
        places = _of_group(x.shape, b, g, channels // groups)
        means[b, g], _, scales[b, g], normalised = _standardise([x[i] for i in places], eps)
        for i, v in zip(places, normalised, strict=True):
            out[i] = _affine(v, weight[i[1]] if weight else None, bias[i[1]] if bias else None)
    return out, means, scales


def _of_group(shape: Sequence[int], sample: int, group: int, size: int) -> list[Place]:
    origin = (sample, group * size, *[0] * (len(shape) - 2))
    return [tuple(map(operator.add, origin, i)) for i in indices([1, size, *shape[2:]])]


def group_norm_backward(
    m: Machine,
    grad: Buffer,
    x: Buffer,
    mean: Buffer,
    rstd: Buffer,
    weight: Buffer | None,
    n: int,
    channels: int,
    pixels: int,
    groups: int,
    output_mask: Masks,
) -> tuple[Buffer | None, ...]:
    """The layer norm's gradient over each group, with dgamma and dbeta summed per channel over samples and pixels."""
    assert prod(x.shape) == n * channels * pixels
    dx = m.new(x.shape, x.dtype) if output_mask[0] else None
    dgamma = m.new([channels], x.dtype) if output_mask[1] else None
    dbeta = m.new([channels], x.dtype) if output_mask[2] else None
    hats: dict[Place, Any] = {}
    for b, g in indices([n, groups]):
        places = _of_group(x.shape, b, g, channels // groups)
        if output_mask[0] or output_mask[1]:
            centre, scale = mean[b, g], rstd[b, g]
            hats.update({i: (x[i] - centre) * scale for i in places})
        if dx is not None:
            grads = [grad[i] * weight[i[1]] if weight else grad[i] for i in places]
            for i, v in zip(places, _input_gradient(grads, [hats[i] for i in places], rstd[b, g]), strict=True):
                dx[i] = v
    for c in range(channels):
        places = _of_channel(x.shape, c)
        if dgamma is not None:
            dgamma[c] = total([grad[i] * hats[i] for i in places])
        if dbeta is not None:
            dbeta[c] = total([grad[i] for i in places])
    return dx, dgamma, dbeta
