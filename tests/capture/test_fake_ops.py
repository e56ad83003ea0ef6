"""Ops on fake tensors that torch's own rules refuse in some dtypes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_impls import op_implementations_dict

import attnprof
from attnprof.capture import fake_ops


class Experts(nn.Module):
    """E matrices [k, n]; the rows of x are shared out to them."""

    def __init__(self, experts: int, k: int, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, k, n))

    def forward(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return nn.functional.grouped_mm(x, self.weight, offs=ends)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_grouped_products_are_counted_fake_in_every_dtype(dtype: torch.dtype) -> None:
    experts, rows, k, n = 3, 24, 16, 32
    with attnprof.fake_tensors():
        model = Experts(experts, k, n).to(dtype)
    args = (torch.zeros(rows, k, dtype=dtype, requires_grad=True), torch.tensor([8, 16, 24], dtype=torch.int32))
    report = attnprof.run(model, args, fake=True, backward=True)
    assert report.phases["forward"].matmul_flops == 2 * rows * k * n
    assert report.phases["backward"].matmul_flops == 2 * 2 * rows * k * n  # for the rows, and for the matrices


def test_the_rule_is_torchs_own_again_afterwards() -> None:
    before = dict(op_implementations_dict)

    def failing() -> None:
        with fake_ops.known():
            assert op_implementations_dict != before
            with fake_ops.known():
                pass
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert op_implementations_dict == before
