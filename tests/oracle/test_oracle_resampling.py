"""Interpolation in one, two and three dimensions, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import references_resampling as ref
from oracle.agreement import agree
from oracle.layouts import few, more

aten = torch.ops.aten

LINEAR: list[tuple[str, int, ref.TapRule]] = [
    ("upsample_linear1d", 1, ref.linear_taps),
    ("upsample_bilinear2d", 2, ref.linear_taps),
    ("upsample_trilinear3d", 3, ref.linear_taps),
    ("upsample_bicubic2d", 2, ref.cubic_taps),
]


@st.composite
def _image(draw: Any, dims: int) -> torch.Tensor:
    sizes = [draw(st.integers(1, 4 if dims < 3 else 2)) for _ in range(dims)]
    torch.manual_seed(draw(st.integers(0, 999)))
    return torch.randn(draw(st.integers(1, 2)), 2, *sizes, dtype=torch.float64)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("name", "dims", "rule"), LINEAR)
@few
@given(data=st.data())
def test_interpolation(name: str, dims: int, rule: ref.TapRule, align_corners: bool, data: st.DataObject) -> None:
    x = data.draw(_image(dims))
    size = [n * data.draw(st.integers(2, 3)) for n in x.shape[2:]]
    agree(getattr(aten, name).default, x, size, align_corners, by=ref.upsample(rule))
    grad = torch.randn(*x.shape[:2], *size, dtype=torch.float64)
    arguments = (grad, size, list(x.shape), align_corners)
    agree(getattr(aten, f"{name}_backward").default, *arguments, by=ref.upsample_backward(rule))


@pytest.mark.parametrize("dims", [1, 2, 3])
@more
@given(data=st.data())
def test_nearest_neighbours(dims: int, data: st.DataObject) -> None:
    x = data.draw(_image(dims))
    size = [data.draw(st.integers(1, 6 if dims < 3 else 3)) for _ in range(dims)]
    agree(getattr(aten, f"upsample_nearest{dims}d").default, x, size, by=ref.nearest)
    grad = torch.randn(*x.shape[:2], *size, dtype=torch.float64)
    arguments = (grad, size, list(x.shape))
    agree(getattr(aten, f"upsample_nearest{dims}d_backward").default, *arguments, by=ref.nearest_backward)
