"""Resampling in one, two and three dimensions, antialiased filters, and sampling at the points of a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as fn

from support import cost_of

F32 = 4  # bytes
B, C = 2, 3
PLANES = B * C


def image(*size: int) -> torch.Tensor:
    return torch.randn(B, C, *size, requires_grad=True)


def resized(x: torch.Tensor, size: Any, mode: str, **options: Any) -> Callable[[], None]:
    return lambda: fn.interpolate(x, size, mode=mode, **options).sum().backward()


@pytest.mark.parametrize(
    ("mode", "dims", "name", "forward", "backward"),
    [
        ("nearest", 1, "upsample_nearest1d", 0, 1),  # the adjoint adds
        ("nearest", 3, "upsample_nearest3d", 0, 1),
        ("nearest-exact", 2, "_upsample_nearest_exact2d", 0, 1),
        ("linear", 1, "upsample_linear1d", 3, 2 + 2),  # a w + b v; g w and g v, added at 2
        ("trilinear", 3, "upsample_trilinear3d", 4 * 3 + 2 * 3 + 3, 2 + 4 + 8 + 8),  # 4 lines, 2 planes, 1 volume
        ("bicubic", 2, "upsample_bicubic2d", 4 * 7 + 7, 4 + 16 + 16),
    ],
)
def test_per_result(mode: str, dims: int, name: str, forward: int, backward: int) -> None:
    small, large = (4,) * dims, (7,) * dims
    inputs, outputs = PLANES * 4**dims, PLANES * 7**dims
    run = resized(image(*small), large, mode)
    cost, adjoint = cost_of(run, f"aten.{name}"), cost_of(run, f"aten.{name}_backward")
    assert (cost.vector_flops, adjoint.vector_flops) == (forward * outputs, backward * outputs)
    assert (cost.read_bytes, cost.write_bytes) == (F32 * inputs, F32 * outputs)
    # the summed gradient is one expanded number; the gradient of the input is written whole
    assert (adjoint.read_bytes, adjoint.write_bytes) == (F32, F32 * inputs)


def test_an_antialiased_cubic_filter_and_its_adjoint() -> None:
    # 8 to 4: centres 1, 3, 5, 7, support 4: positions [0, 5), [0, 7), [1, 8), [3, 8)
    taps = 5 + 7 + 7 + 5
    across, down = PLANES * 8 * taps, PLANES * 4 * taps
    run = resized(image(8, 8), (4, 4), "bicubic", antialias=True)
    assert cost_of(run, "aten._upsample_bicubic2d_aa").vector_flops == (
        2 * across - PLANES * 8 * 4 + 2 * down - PLANES * 4 * 4
    )
    assert cost_of(run, "aten._upsample_bicubic2d_aa_backward").vector_flops == 2 * across + 2 * down


def test_an_antialiased_pass_that_changes_nothing_is_not_made() -> None:
    run = resized(image(4, 8), (4, 4), "bilinear", antialias=True)
    taps = 3 + 4 + 4 + 3  # centres 1, 3, 5, 7, support 2: [0, 3), [1, 5), [3, 7), [5, 8)
    assert cost_of(run, "aten._upsample_bilinear2d_aa").vector_flops == PLANES * 4 * (2 * taps - 4)


CENTRE = 4  # ((c + 1) n - 1) / 2
ALIGNED = 2  # (c + 1) times a constant


@pytest.mark.parametrize(
    ("mode", "options", "per_sample", "per_result"),
    [
        # the distance to the corner and its complement, and four products
        ("bilinear", {"align_corners": False}, 2 * (CENTRE + 2) + 4, 4 + 3),
        ("bilinear", {"align_corners": True}, 2 * (ALIGNED + 2) + 4, 4 + 3),
        ("bilinear", {"align_corners": False, "padding_mode": "border"}, 2 * (CENTRE + 2 + 2) + 4, 4 + 3),
        ("nearest", {"align_corners": False}, 2 * (CENTRE + 1), 0),  # rounded
        # the distance; three arguments, two inner polynomials of 5, two outer of 6; 4 rows of 4 taps, then 4 rows
        ("bicubic", {"align_corners": False}, 2 * (CENTRE + 1 + 3 + 2 * 5 + 2 * 6), 4 * 7 + 7),
    ],
)
def test_sampling_at_a_grid(mode: str, options: dict[str, Any], per_sample: int, per_result: int) -> None:
    grid = torch.rand(B, 5, 4, 2) * 2 - 1
    run = lambda: fn.grid_sample(image(6, 6), grid, mode=mode, **options)  # noqa: E731
    samples = B * 5 * 4
    assert cost_of(run, "aten.grid_sampler_2d").vector_flops == samples * per_sample + C * samples * per_result


def test_sampling_a_volume() -> None:
    grid = torch.rand(B, 2, 3, 4, 3) * 2 - 1
    run = lambda: fn.grid_sample(image(5, 5, 5), grid, align_corners=False)  # noqa: E731
    samples = B * 2 * 3 * 4
    per_sample = 3 * (CENTRE + 2) + 4 + 8  # the products of eight corners share those of four edges
    assert cost_of(run, "aten.grid_sampler_3d").vector_flops == samples * per_sample + C * samples * (8 + 7)


@pytest.mark.parametrize("needs_grid", [True, False])
def test_gradients_of_sampling(needs_grid: bool) -> None:
    x, grid = image(6, 6), (torch.rand(B, 5, 4, 2) * 2 - 1).requires_grad_(needs_grid)
    weights = torch.rand(B, C, 5, 4)
    run = lambda: (fn.grid_sample(x, grid, align_corners=False) * weights).sum().backward()  # noqa: E731
    cost = cost_of(run, "aten.grid_sampler_2d_backward")
    samples, results = B * 5 * 4, PLANES * 5 * 4
    again = 2 * (CENTRE + 2) + 4
    to_input = 4 * 2  # a product and an addition at each corner
    to_grid = 4 * (1 + 2 * 2)  # value times gradient, then a product and an addition for x and for y
    assert cost.vector_flops == samples * (again + 2 * needs_grid) + results * (to_input + needs_grid * to_grid)
    assert cost.read_bytes == F32 * (results + samples * 2 + needs_grid * PLANES * 6 * 6)


def test_an_affine_grid_is_a_product_with_homogeneous_coordinates() -> None:
    theta = torch.rand(B, 2, 3)
    cost = cost_of(lambda: fn.affine_grid(theta, [B, C, 5, 4], align_corners=False), "aten.affine_grid_generator")
    assert cost.matmul_flops == 2 * B * (5 * 4) * 3 * 2
    assert (cost.read_bytes, cost.write_bytes) == (F32 * B * 2 * 3, F32 * B * 5 * 4 * 2)


def test_shuffles_move() -> None:
    x = torch.randn(1, 8, 3, 3)
    n = F32 * x.numel()
    cost = cost_of(lambda: fn.pixel_shuffle(x, 2), "aten.pixel_shuffle")
    assert (cost.flops, cost.read_bytes, cost.write_bytes) == (0, n, n)
    cost = cost_of(lambda: torch.channel_shuffle(x, 2), "aten.channel_shuffle")
    assert (cost.flops, cost.read_bytes, cost.write_bytes) == (0, n, n)


@pytest.mark.parametrize(("mode", "corners"), [("nearest", 1), ("bilinear", 4), ("bicubic", 16)])
def test_a_sample_reads_its_corners_and_not_the_image(mode: str, corners: int) -> None:
    grid = torch.zeros(2, 1, 3, 2)
    run = lambda: fn.grid_sample(torch.ones(2, C, 50, 50), grid, mode=mode, align_corners=False)  # noqa: E731
    samples = 2 * 1 * 3
    assert cost_of(run, "aten.grid_sampler_2d").read_bytes == 4 * (samples * 2 + samples * corners * C)
    whole = lambda: fn.grid_sample(torch.ones(2, C, 1, 2), grid, mode=mode, align_corners=False)  # noqa: E731
    assert cost_of(whole, "aten.grid_sampler_2d").read_bytes == 4 * (
        samples * 2 + min(2 * C * 2, samples * corners * C)
    )
