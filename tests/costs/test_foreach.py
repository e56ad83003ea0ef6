"""Foreach ops: what each element costs, over every overload; bytes of the lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attnprof.costs import registry
from attnprof.costs.pricing import price
from support import only_op

aten = torch.ops.aten
F32 = 4  # bytes
SHAPES = [(3, 4), (5,), ()]
N = 3 * 4 + 5 + 1


def tensors() -> list[Tensor]:
    return [torch.rand(shape) + 0.5 for shape in SHAPES]


NUMBERS = [0.25, 0.75, 3.0]

#: FLOPs per element.
PER_ELEMENT: list[tuple[Any, Callable[[list[Tensor]], tuple[Any, ...]], int]] = [
    (aten._foreach_add.List, lambda x: (tensors(),), 1),
    (aten._foreach_add.Scalar, lambda x: (0.3,), 1),
    (aten._foreach_add.ScalarList, lambda x: (NUMBERS,), 1),
    (aten._foreach_add.Tensor, lambda x: (torch.tensor(0.3),), 1),
    (aten._foreach_sub.List, lambda x: (tensors(),), 1),
    (aten._foreach_mul.Tensor, lambda x: (torch.tensor(0.3),), 1),
    (aten._foreach_mul.ScalarList, lambda x: (NUMBERS,), 1),
    (aten._foreach_div.Scalar, lambda x: (0.3,), 1),
    (aten._foreach_maximum.List, lambda x: (tensors(),), 1),
    (aten._foreach_clamp_min.Scalar, lambda x: (0.3,), 1),
    (aten._foreach_clamp_max.List, lambda x: (tensors(),), 1),
    (aten._foreach_pow.Scalar, lambda x: (2.5,), 1),
    (aten._foreach_pow.List, lambda x: (tensors(),), 1),
    (aten._foreach_sign.default, lambda x: (), 1),
    (aten._foreach_sqrt.default, lambda x: (), 1),
    (aten._foreach_reciprocal.default, lambda x: (), 1),
    (aten._foreach_frac.default, lambda x: (), 2),  # trunc, sub
    (aten._foreach_sigmoid.default, lambda x: (), 4),  # neg, exp, add, div
    (aten._foreach_lerp.Scalar, lambda x: (tensors(), 0.3), 3),  # a + w (b - a)
    (aten._foreach_lerp.List, lambda x: (tensors(), tensors()), 3),
    (aten._foreach_lerp.ScalarList, lambda x: (tensors(), NUMBERS), 3),
    (aten._foreach_addcmul.Scalar, lambda x: (tensors(), tensors()), 2),  # value 1 multiplies nothing
    (aten._foreach_addcmul.Scalar, lambda x: (tensors(), tensors(), 0.3), 3),
    (aten._foreach_addcdiv.ScalarList, lambda x: (tensors(), tensors(), NUMBERS), 3),
    (aten._foreach_addcdiv.Tensor, lambda x: (tensors(), tensors(), torch.tensor(NUMBERS)), 3),
]


@pytest.mark.parametrize(
    ("func", "others", "per_element"), PER_ELEMENT, ids=lambda v: str(v) if "aten" in str(v) else ""
)
def test_every_element_of_every_list(
    func: Any, others: Callable[[list[Tensor]], tuple[Any, ...]], per_element: int
) -> None:
    x = tensors()
    rest = others(x)
    found = price(only_op(lambda: func(x, *rest), str(func))).cost
    elements = sum(t.numel() for a in (x, *rest) for t in (a if isinstance(a, list) else [a]) if isinstance(t, Tensor))
    assert found.vector_flops == per_element * N
    assert found.read_bytes == F32 * elements
    assert found.write_bytes == F32 * N


def test_in_place_reads_and_writes_the_same_tensors() -> None:
    x, y = tensors(), tensors()
    found = price(only_op(lambda: torch._foreach_addcmul_(x, y, y, value=0.3), "aten._foreach_addcmul_.Scalar")).cost
    assert found.vector_flops == 3 * N
    assert (found.read_bytes, found.write_bytes) == (F32 * 2 * N, F32 * N)  # y is read once


def test_an_alpha_is_a_multiplication() -> None:
    x, y = tensors(), tensors()
    found = price(only_op(lambda: torch._foreach_add_(x, y, alpha=-0.1), "aten._foreach_add_.List")).cost
    assert found.vector_flops == 2 * N


def test_one_of_several_values_that_is_one() -> None:
    x, a, b = tensors(), tensors(), tensors()
    run = only_op(lambda: torch._foreach_addcdiv_(x, a, b, [1.0, 0.5, 1.0]), "aten._foreach_addcdiv_.ScalarList")
    assert price(run).cost.vector_flops == 2 * 12 + 3 * 5 + 2 * 1


def test_a_number_to_the_power_of_each_tensor() -> None:
    x = tensors()
    found = price(only_op(lambda: torch._foreach_pow(0.9, x), "aten._foreach_pow.ScalarAndTensor")).cost
    assert (found.vector_flops, found.read_bytes, found.write_bytes) == (N, F32 * N, F32 * N)


@pytest.mark.parametrize(("order", "flops"), [(2, 2 * N), (1, 2 * N - 3), (float("inf"), 2 * N - 3), (3, 3 * N)])
def test_norms_one_per_tensor(order: float, flops: int) -> None:
    x = tensors()
    found = price(only_op(lambda: torch._foreach_norm(x, order), "aten._foreach_norm.Scalar")).cost
    # order 2: squares N, sums N - 3, three roots; 1 and inf: |x| N, joined N - 3; 3: |x|, powers, sums, roots
    assert (found.vector_flops, found.read_bytes, found.write_bytes) == (flops, F32 * N, F32 * 3)


def test_the_largest_of_each_tensor() -> None:
    x = tensors()
    found = price(only_op(lambda: torch._foreach_max(x), "aten._foreach_max.default")).cost
    assert (found.vector_flops, found.write_bytes) == (N - 3, F32 * 3)


def test_copies_and_zeros_move_and_only_write_their_target() -> None:
    x, y = tensors(), tensors()
    copied = price(only_op(lambda: torch._foreach_copy_(x, y), "aten._foreach_copy_.default")).cost
    assert (copied.flops, copied.read_bytes, copied.write_bytes) == (0, F32 * N, F32 * N)
    zeroed = price(only_op(lambda: torch._foreach_zero_(x), "aten._foreach_zero_.default")).cost
    assert (zeroed.flops, zeroed.read_bytes, zeroed.write_bytes) == (0, 0, F32 * N)


def test_complex_elements_cost_what_they_cost_alone() -> None:
    x = [torch.randn(4, dtype=torch.complex64), torch.randn(2, 3, dtype=torch.complex64)]
    found = price(only_op(lambda: torch._foreach_mul(x, x), "aten._foreach_mul.List")).cost
    assert found.vector_flops == 6 * (4 + 2 * 3)
    assert found.read_bytes == 8 * (4 + 2 * 3)


def test_a_product_per_pair() -> None:
    a, b = [torch.randn(2, 3), torch.randn(4, 5)], [torch.randn(3, 7), torch.randn(5, 2)]
    found = price(only_op(lambda: aten._foreach_mm(a, b), "aten._foreach_mm")).cost
    assert found.matmul_flops == 2 * 2 * 3 * 7 + 2 * 4 * 5 * 2


def test_every_foreach_op_of_torch_has_a_formula() -> None:
    names = [name.replace("::", ".") for name in torch._C._dispatch_get_all_op_names()]
    foreach = [
        name if name.count(".") == 2 else f"{name}.default" for name in names if name.startswith("aten._foreach_")
    ]
    assert len(foreach) > 100
    assert [name for name in foreach if registry.formula_of(name) is None] == []
