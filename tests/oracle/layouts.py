"""Random tensors in every layout a kernel can meet: contiguous, transposed, strided, offset, expanded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

Draw = Callable[[Any], Any]

#: Few examples per property: there are many properties, and each example is checked in full.
few = settings(max_examples=20, deadline=None, derandomize=True, database=None)
more = settings(few, max_examples=40)


def shapes(min_dims: int = 0, max_dims: int = 4, min_size: int = 1, max_size: int = 4) -> st.SearchStrategy[list[int]]:
    """Small shapes."""
    return st.lists(st.integers(min_size, max_size), min_size=min_dims, max_size=max_dims)


def _fill(kind: str, shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if dtype == torch.bool:
        return torch.rand(tuple(shape), generator=generator) < 0.5
    if not (dtype.is_floating_point or dtype.is_complex):
        return torch.randint(1, 6, tuple(shape), generator=generator).to(dtype)
    if dtype.is_complex:
        return torch.randn(tuple(shape), generator=generator, dtype=dtype)
    if kind == "unit":  # inside (0, 1), away from both ends
        return (torch.rand(tuple(shape), generator=generator, dtype=torch.float64) * 0.8 + 0.1).to(dtype)
    values = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    return (values.abs() + 0.25 if kind == "positive" else values).to(dtype)


@st.composite
def tensors(
    draw: Draw,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
    kind: str = "normal",
    expanded: bool = True,
    like: st.SearchStrategy[list[int]] | None = None,
) -> Tensor:
    """A tensor of ``shape`` (or of a drawn one) in a drawn layout."""
    shape = list(draw(like if like is not None else shapes()) if shape is None else shape)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    layout = draw(st.sampled_from(["contiguous", "transposed", "strided", *(["expanded"] if expanded else [])]))
    if not shape or layout == "contiguous":
        return _fill(kind, shape, dtype, generator)
    if layout == "transposed":
        order = draw(st.permutations(range(len(shape))))
        stored = _fill(kind, [shape[d] for d in order], dtype, generator)
        return stored.permute([list(order).index(d) for d in range(len(shape))])
    dim = draw(st.integers(0, len(shape) - 1))
    if layout == "strided":
        wide = [2 * n + 1 if d == dim else n for d, n in enumerate(shape)]
        return _fill(kind, wide, dtype, generator).narrow(dim, 1, 2 * shape[dim])[
            tuple(slice(None, None, 2) if d == dim else slice(None) for d in range(len(shape)))
        ]
    thin = [1 if d == dim else n for d, n in enumerate(shape)]
    return _fill(kind, thin, dtype, generator).expand(shape)


@st.composite
def broadcasting(draw: Draw, count: int, dtype: torch.dtype = torch.float64, kind: str = "normal") -> list[Tensor]:
    """Tensors whose shapes broadcast together."""
    shape = draw(shapes())
    drawn = []
    for _ in range(count):
        kept = shape[draw(st.integers(0, len(shape))) :] if draw(st.booleans()) else shape
        drawn.append(draw(tensors([1 if draw(st.integers(0, 4)) == 0 else n for n in kept], dtype, kind)))
    return drawn


@st.composite
def alike(
    draw: Draw, count: int, dtype: torch.dtype = torch.float64, like: st.SearchStrategy[list[int]] | None = None
) -> list[Tensor]:
    """Tensors of one shape, each in its own layout."""
    shape = draw(shapes() if like is None else like)
    return [draw(tensors(shape, dtype)) for _ in range(count)]


def spread(count: int, size: int, seed: int = 0) -> Tensor:
    """``count`` indices below ``size`` with as few repeats as possible: min(count, size) distinct ones."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order.repeat(-(-count // size))[:count]
