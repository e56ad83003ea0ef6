"""Convolutions against brute force: a loop that visits every tap, and the input positions it touches."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import only_op, ops_of

F32 = 4  # bytes


def visit(x: Tensor, layer: nn.Module, out: Tensor) -> tuple[int, int, int]:
    """Taps visited (padding included); distinct input and output elements that a tap connects."""
    kernel, stride, padding, dilation = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    groups, transposed = layer.groups, layer.transposed
    taps, touched, met = 0, set(), set()
    # The side that loops: outputs look for inputs; with transposed, inputs look for outputs.
    here, there = (x, out) if transposed else (out, x)
    for n, c in product(range(here.shape[0]), range(here.shape[1])):
        group = c * groups // here.shape[1]
        width = there.shape[1] // groups
        for position in product(*map(range, here.shape[2:])):
            for other, tap in product(range(group * width, (group + 1) * width), product(*map(range, kernel))):
                taps += 1
                end = tuple(
                    p * s + u * d - pad
                    for p, s, u, d, pad in zip(position, stride, tap, dilation, padding, strict=True)
                )
                if all(0 <= e < size for e, size in zip(end, there.shape[2:], strict=True)):
                    near, far = (n, c, *position), (n, other, *end)
                    touched.add(near if transposed else far)
                    met.add(far if transposed else near)
    return taps, len(touched), len(met)


layers = st.fixed_dictionaries(
    {
        "groups": st.integers(1, 2),
        "kernel_size": st.integers(1, 3),
        "stride": st.integers(1, 4),
        "padding": st.integers(0, 2),
        "dilation": st.integers(1, 3),
        "bias": st.booleans(),
    }
)


def costs(layer: nn.Module, x: Tensor) -> tuple[Tensor, Cost, Cost]:
    """The output, the forward's and the backward's cost."""
    outs: list[Tensor] = []

    def run() -> None:
        outs.append(layer(x))
        outs[0].backward(torch.randn_like(outs[0]))

    ops = ops_of(run)
    forward = next(price(op).cost for op in ops if op.packet == "aten.convolution")
    backward = next(price(op).cost for op in ops if op.packet == "aten.convolution_backward")
    return outs[0].detach(), forward, backward


@given(layers, st.integers(1, 2), st.sampled_from([(7,), (8,), (5, 6)]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_forward_and_backward_against_brute_force(
    how: dict[str, Any], batch: int, extent: tuple[int, ...], transposed: bool, input_grad: bool
) -> None:
    c_in, c_out = 2 * how["groups"], 3 * how["groups"]
    kinds = {(1, False): nn.Conv1d, (2, False): nn.Conv2d, (1, True): nn.ConvTranspose1d, (2, True): nn.ConvTranspose2d}
    layer = kinds[len(extent), transposed](c_in, c_out, **how)
    x = torch.randn(batch, c_in, *extent, requires_grad=input_grad)
    try:
        layer(x)
    except RuntimeError:  # the kernel does not fit the input, or the output would be empty
        reject()
    out, forward, backward = costs(layer, x)
    taps, touched, met = visit(x, layer, out)
    weight, bias = layer.weight.numel(), how["bias"]

    assert forward.matmul_flops == 2 * taps
    assert forward.vector_flops == bias * out.numel()
    assert forward.read_bytes == F32 * (touched + weight + bias * c_out)
    assert forward.write_bytes == F32 * out.numel()

    assert backward.matmul_flops == (1 + input_grad) * 2 * taps  # dW always, dX if asked
    assert backward.vector_flops == bias * (out.numel() - c_out)
    assert backward.read_bytes == F32 * ((out.numel() if bias else met) + touched + input_grad * weight)
    assert backward.write_bytes == F32 * (input_grad * x.numel() + weight + bias * c_out)


def test_output_padding_adds_outputs_but_no_taps() -> None:
    x = torch.randn(2, 4, 5)
    plain = nn.ConvTranspose1d(4, 3, 3, stride=2, bias=False)
    padded = nn.ConvTranspose1d(4, 3, 3, stride=2, output_padding=1, bias=False)
    a, b = (price(only_op(lambda layer=layer: layer(x), "aten.convolution")).cost for layer in (plain, padded))
    assert a.matmul_flops == b.matmul_flops == 2 * x.numel() * 3 * 3
    assert b.write_bytes - a.write_bytes == F32 * 2 * 3 * 1


def test_a_strided_pointwise_convolution_reads_only_what_it_uses() -> None:
    x = torch.randn(1, 5, 4, 4)
    found = price(only_op(lambda: nn.Conv2d(5, 1, 1, stride=2, bias=False)(x), "aten.convolution")).cost
    assert found.read_bytes == F32 * (5 * 2 * 2 + 5)  # 2 of 4 rows, 2 of 4 columns
    assert found.matmul_flops == 2 * (2 * 2) * 5


def test_an_unbatched_and_an_expanded_input() -> None:
    layer = nn.Conv1d(4, 6, 3, bias=False)
    found = price(only_op(lambda: layer(torch.randn(4, 8)), "aten.convolution")).cost
    assert found.matmul_flops == 2 * 6 * 6 * 4 * 3
    expanded = torch.randn(1, 4, 8).expand(5, 4, 8)
    found = price(only_op(lambda: layer(expanded), "aten.convolution")).cost
    assert found.matmul_flops == 5 * 2 * 6 * 6 * 4 * 3
    assert found.read_bytes == F32 * (4 * 8 + 6 * 4 * 3)  # the one stored sample


def test_depthwise_weight_gradient_is_not_multiplied_by_groups() -> None:
    channels, length, k = 8, 10, 3
    layer = nn.Conv1d(channels, channels, k, padding=1, groups=channels, bias=False)
    x = torch.randn(2, channels, length, requires_grad=True)
    _, forward, backward = costs(layer, x)
    assert forward.matmul_flops == 2 * 2 * channels * length * k
    assert backward.matmul_flops == 2 * forward.matmul_flops


def test_double_backward_is_made_of_convolutions() -> None:
    n, c, o, k, length = 1, 2, 3, 2, 5
    layer = nn.Conv1d(c, o, k, bias=False)
    positions = length - k + 1
    forward = 2 * n * o * positions * c * k

    def run() -> None:
        x = torch.randn(n, c, length, requires_grad=True)
        (g,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        g.square().sum().backward()

    total = sum(price(op).cost.matmul_flops for op in ops_of(run) if op.packet.startswith("aten.convolution"))
    # y; dX; of dX's own backward: d(dY) = conv(ddX, W) and dW = ddX * dY; then y's backward, dX and dW.
    assert total == 6 * forward


@pytest.mark.parametrize("padding", ["same", 1])
def test_composites_that_inference_mode_leaves_whole(padding: str | int) -> None:
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    with torch.inference_mode():
        op = only_op(lambda: torch.nn.functional.conv2d(x, w, padding=padding), "aten.conv2d")
    found = price(op).cost
    assert found.matmul_flops == 2 * 3 * 5 * 5 * 2 * 3 * 3
    assert found.read_bytes == F32 * (2 * 5 * 5 + 3 * 2 * 3 * 3)


def test_backend_variants_cost_what_convolution_costs() -> None:
    x, w, b = torch.randn(2, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(5)
    aten = torch.ops.aten
    reference = price(only_op(lambda: aten.convolution(x, w, b, [1], [1], [1], False, [0], 1), "aten.convolution")).cost
    assert reference.matmul_flops == 2 * 2 * 5 * 6 * 6 * 4 * 3 * 3
    runs = {
        "aten._slow_conv2d_forward": lambda: aten._slow_conv2d_forward(x, w, [3, 3], b, [1, 1], [1, 1]),
        "aten.slow_conv_dilated2d": lambda: aten.slow_conv_dilated2d(x, w, [3, 3], b, [1, 1], [1, 1], [1, 1]),
        "aten.mkldnn_convolution": lambda: aten.mkldnn_convolution(x, w, b, [1, 1], [1, 1], [1, 1], 1),
        "aten._convolution": lambda: aten._convolution(
            x, w, b, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, False, False, True, True
        ),
    }
    for name, run in runs.items():
        assert price(only_op(run, name)).cost == reference, name


def test_slow_transposed_convolution() -> None:
    x, w, b = torch.randn(2, 4, 6, 6), torch.randn(4, 5, 3, 3), torch.randn(5)
    run = torch.ops.aten.slow_conv_transpose2d
    found = price(
        only_op(lambda: run(x, w, [3, 3], b, [2, 2], [1, 1], [0, 0], [1, 1]), "aten.slow_conv_transpose2d")
    ).cost
    assert found.matmul_flops == 2 * x.numel() * 5 * 3 * 3


def test_conv_tbc() -> None:
    t, b, i, k, o, pad = 5, 2, 3, 3, 4, 1
    found = price(
        only_op(
            lambda: torch.conv_tbc(torch.randn(t, b, i), torch.randn(k, i, o), torch.randn(o), pad), "aten.conv_tbc"
        )
    )
    outputs = (t + 2 * pad - k + 1) * b * o
    assert (found.cost.matmul_flops, found.cost.vector_flops) == (2 * outputs * k * i, outputs)


def test_complex_convolution_runs_as_three_real_ones() -> None:
    x, w = torch.randn(1, 2, 5, dtype=torch.complex64), torch.randn(3, 2, 3, dtype=torch.complex64)
    ops = [op for op in ops_of(lambda: torch.nn.functional.conv1d(x, w)) if op.packet == "aten.convolution"]
    assert [price(op).cost.matmul_flops for op in ops] == [2 * prod((3, 3, 2, 3))] * 3
