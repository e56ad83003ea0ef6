"""``output_mask``: what a backward is not asked for it does not write, whatever its kernel gives back.

The fake kernel of batch norm makes a gradient of the input each time, oneDNN's convolution one of the weight
whenever it makes one of the bias.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attnprof

F32 = 4  # bytes
B, C, L = 4, 8, 5


def written(net: nn.Module, x: Tensor, op: str, fake: bool) -> int:
    report = attnprof.run(net, (x,), backward=True, fake=fake)
    return report.by_operator("backward")[op].write_bytes


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("input_grad", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_batch_norm(fake: bool, input_grad: bool, trained: bool) -> None:
    net = nn.BatchNorm1d(C)
    net.weight.requires_grad_(trained)
    x = torch.randn(B, C, L, requires_grad=input_grad)
    found = written(net, x, "aten.native_batch_norm_backward.default", fake)
    assert found == F32 * (input_grad * B * C * L + trained * C + C)  # dx, dw, and db, which is always trained here


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("input_grad", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_convolution(fake: bool, input_grad: bool, trained: bool) -> None:
    net = nn.Conv1d(C, C, 3)
    net.weight.requires_grad_(trained)
    x = torch.randn(B, C, L, requires_grad=input_grad)
    found = written(net, x, "aten.convolution_backward.default", fake)
    assert found == F32 * (input_grad * B * C * L + trained * C * C * 3 + C)
