"""Elementwise ops over random layouts and broadcasts."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import counting as c
from oracle import references_pointwise as ref
from oracle.agreement import agree
from oracle.layouts import alike, broadcasting, few, more, shapes, tensors

aten = torch.ops.aten
Op = Any

UNARY: list[tuple[Op, Callable[[Any], Any]]] = [
    (aten.neg.default, operator.neg),
    (aten.abs.default, abs),
    (aten.exp.default, c.exp),
    (aten.expm1.default, c.expm1),
    (aten.sin.default, c.sin),
    (aten.cos.default, c.cos),
    (aten.tanh.default, c.tanh),
    (aten.erf.default, c.erf),
    (aten.sigmoid.default, c.sigmoid),
    (aten.relu.default, lambda x: c.maximum(x, 0)),
    (aten.floor.default, c.floor),
    (aten.ceil.default, c.ceil),
    (aten.round.default, c.rint),
    (aten.reciprocal.default, lambda x: 1 / x),
]
POSITIVE: list[tuple[Op, Callable[[Any], Any]]] = [
    (aten.log.default, c.log),
    (aten.log2.default, c.log2),
    (aten.log1p.default, c.log1p),
    (aten.sqrt.default, c.sqrt),
    (aten.rsqrt.default, c.rsqrt),
]
BINARY: list[tuple[Op, Callable[[Any, Any], Any]]] = [
    (aten.mul.Tensor, operator.mul),
    (aten.div.Tensor, operator.truediv),
    (aten.maximum.default, c.maximum),
    (aten.minimum.default, c.minimum),
    (aten.remainder.Tensor, operator.mod),
]
COMPARE: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("eq", operator.eq),
    ("ne", operator.ne),
    ("lt", operator.lt),
    ("le", operator.le),
    ("gt", operator.gt),
    ("ge", operator.ge),
]
LOGICAL: list[tuple[Op, Callable[[Any, Any], Any]]] = [
    (aten.logical_and.default, operator.and_),
    (aten.logical_or.default, operator.or_),
    (aten.logical_xor.default, operator.xor),
    (aten.bitwise_and.Tensor, operator.and_),
    (aten.bitwise_or.Tensor, operator.or_),
    (aten.bitwise_xor.Tensor, operator.xor),
]


def _name(value: Any) -> str | None:
    return str(value) if isinstance(value, torch._ops.OpOverload) else None


@pytest.mark.parametrize(("op", "f"), UNARY, ids=_name)
@few
@given(data=st.data())
def test_unary(op: Op, f: Callable[[Any], Any], data: st.DataObject) -> None:
    agree(op, data.draw(tensors(like=shapes(min_size=0))), by=ref.elementwise(f))


@pytest.mark.parametrize(("op", "f"), POSITIVE, ids=_name)
@few
@given(data=st.data())
def test_unary_of_positive_numbers(op: Op, f: Callable[[Any], Any], data: st.DataObject) -> None:
    agree(op, data.draw(tensors(kind="positive")), by=ref.elementwise(f))


@few
@given(data=st.data(), op=st.sampled_from([(aten.relu_.default, UNARY[9][1]), (aten.exp_.default, c.exp)]))
def test_unary_in_place(data: st.DataObject, op: tuple[Op, Any]) -> None:
    agree(op[0], data.draw(tensors(expanded=False)), by=ref.inplace(op[1]))


@pytest.mark.parametrize(("op", "f"), BINARY, ids=_name)
@few
@given(operands=broadcasting(2, kind="positive"))
def test_binary_broadcasts(op: Op, f: Callable[[Any, Any], Any], operands: list[torch.Tensor]) -> None:
    agree(op, *operands, by=ref.elementwise(f))


@few
@given(x=tensors(), op=st.sampled_from([(aten.mul.Tensor, operator.mul), (aten.div.Tensor, operator.truediv)]))
def test_binary_with_a_number(x: torch.Tensor, op: tuple[Op, Any]) -> None:
    agree(op[0], x, 3.0, by=ref.elementwise(op[1]))


@few
@given(x=tensors())
def test_a_tensor_times_itself_is_read_once(x: torch.Tensor) -> None:
    agree(aten.mul.Tensor, x, x, by=ref.elementwise(operator.mul))


@few
@given(length=st.integers(3, 9), size=st.integers(1, 3), step=st.integers(1, 3), width=st.integers(1, 2))
def test_sliding_windows_are_read_once(length: int, size: int, step: int, width: int) -> None:
    windows = torch.randn(2, length, width, dtype=torch.float64).unfold(1, size, step)
    agree(aten.mul.Tensor, windows, 2.0, by=ref.elementwise(operator.mul))


@pytest.mark.parametrize("alpha", [1, 2, 0.3])
@few
@given(operands=broadcasting(2))
def test_add_and_sub_with_alpha(alpha: float, operands: list[torch.Tensor]) -> None:
    agree(aten.add.Tensor, *operands, alpha=alpha, by=ref.add)
    agree(aten.sub.Tensor, *operands, alpha=alpha, by=ref.sub)
    agree(aten.rsub.Scalar, operands[0], 2.0, alpha, by=ref.rsub)


@few
@given(operands=alike(2), alpha=st.sampled_from([1, 2]))
def test_add_in_place(operands: list[torch.Tensor], alpha: int) -> None:
    agree(aten.add_.Tensor, operands[0].clone(), operands[1], alpha=alpha, by=ref.add_)
    agree(aten.mul_.Tensor, operands[0].clone(), operands[1], by=ref.inplace(operator.mul))


@few
@given(base=tensors(kind="positive"), exponent=st.sampled_from([2, 3, 0.5, -1.5]))
def test_pow(base: torch.Tensor, exponent: float) -> None:
    agree(aten.pow.Tensor_Scalar, base, exponent, by=ref.elementwise(operator.pow))
    agree(aten.pow.Scalar, 2.5, base, by=ref.elementwise(operator.pow))


@few
@given(operands=broadcasting(2, kind="positive"))
def test_pow_of_tensors(operands: list[torch.Tensor]) -> None:
    agree(aten.pow.Tensor_Tensor, *operands, by=ref.elementwise(operator.pow))


@pytest.mark.parametrize(("name", "f"), COMPARE)
@few
@given(operands=broadcasting(2, dtype=torch.int64))
def test_compare(name: str, f: Callable[[Any, Any], Any], operands: list[torch.Tensor]) -> None:
    agree(getattr(aten, name).Tensor, *operands, by=ref.comparing(f))
    agree(getattr(aten, name).Scalar, operands[0], 3, by=ref.comparing(f))


@pytest.mark.parametrize(("op", "f"), LOGICAL, ids=_name)
@few
@given(operands=broadcasting(2, dtype=torch.bool))
def test_logic(op: Op, f: Callable[[Any, Any], Any], operands: list[torch.Tensor]) -> None:
    agree(op, *operands, by=ref.comparing(f))


@few
@given(mask=tensors(dtype=torch.bool))
def test_not(mask: torch.Tensor) -> None:
    agree(aten.logical_not.default, mask, by=ref.comparing(operator.invert))
    agree(aten.bitwise_not.default, mask, by=ref.comparing(operator.invert))


@few
@given(operands=broadcasting(2, dtype=torch.int64))
def test_integers_count(operands: list[torch.Tensor]) -> None:
    agree(aten.add.Tensor, *operands, by=ref.add)
    agree(aten.mul.Tensor, *operands, by=ref.elementwise(operator.mul))


@few
@given(operands=alike(2, dtype=torch.float32))
def test_widths_follow_the_dtype(operands: list[torch.Tensor]) -> None:
    agree(aten.mul.Tensor, *operands, by=ref.elementwise(operator.mul))
    agree(aten.add.Tensor, operands[0].double(), operands[1], by=ref.add)
    agree(aten.add.Tensor, operands[0].bfloat16(), operands[1].bfloat16(), by=ref.add)


@pytest.mark.parametrize("bounds", [(-0.5, 0.5), (None, 0.5), (-0.5, None)])
@few
@given(x=tensors())
def test_clamp(bounds: tuple[float | None, float | None], x: torch.Tensor) -> None:
    agree(aten.clamp.default, x, *bounds, by=ref.clamp_between)


@few
@given(operands=alike(3))
def test_clamp_by_tensors(operands: list[torch.Tensor]) -> None:
    agree(aten.clamp.Tensor, *operands, by=ref.clamp_between)
    agree(aten.clamp_min.Tensor, operands[0], operands[1], by=ref.elementwise(c.maximum))
    agree(aten.clamp_min.default, operands[0], 0.1, by=ref.elementwise(c.maximum))
    agree(aten.clamp_max.default, operands[0], 0.1, by=ref.elementwise(c.minimum))


@few
@given(operands=broadcasting(3), weight=st.sampled_from([0.1, 0.75]))
def test_lerp(operands: list[torch.Tensor], weight: float) -> None:
    agree(aten.lerp.Scalar, operands[0], operands[1], weight, by=ref.lerp)
    agree(aten.lerp.Tensor, *operands, by=ref.lerp)


@pytest.mark.parametrize("value", [1, -0.5])
@more
@given(operands=broadcasting(3, kind="positive"))
def test_addcmul_and_addcdiv(value: float, operands: list[torch.Tensor]) -> None:
    agree(aten.addcmul.default, *operands, value=value, by=ref.addcmul)
    agree(aten.addcdiv.default, *operands, value=value, by=ref.addcdiv)


@few
@given(operands=alike(2), value=st.sampled_from([1, 0.1]))
def test_addcmul_in_place_squares_a_gradient(operands: list[torch.Tensor], value: float) -> None:
    v, g = operands[0].clone(), operands[1]
    agree(aten.addcmul_.default, v, g, g, value=value, by=ref.addcmul_)
    agree(aten.lerp_.Scalar, v, g, 0.1, by=ref.lerp_)
    agree(aten.addcdiv_.default, v, g, g.abs() + 1, value=value, by=ref.addcdiv_)


@more
@given(operands=broadcasting(2), mask=st.data())
def test_where_and_masked_fill_choose_without_arithmetic(operands: list[torch.Tensor], mask: st.DataObject) -> None:
    shape = torch.broadcast_shapes(*(t.shape for t in operands))
    condition = mask.draw(tensors(shape, torch.bool))
    agree(aten.where.self, condition, *operands, by=ref.where)
    whole = torch.randn(shape, dtype=torch.float64)
    agree(aten.masked_fill.Scalar, whole, condition, -1.0, by=ref.masked_fill)
    agree(aten.masked_fill_.Scalar, whole, condition, -1.0, by=ref.masked_fill_)
    agree(aten.masked_fill.Tensor, whole, condition, torch.tensor(2.0, dtype=torch.float64), by=ref.masked_fill)


@few
@given(operands=alike(2, dtype=torch.complex128))
def test_complex_arithmetic(operands: list[torch.Tensor]) -> None:
    agree(aten.add.Tensor, *operands, by=ref.add)
    agree(aten.sub.Tensor, *operands, by=ref.sub)
    agree(aten.mul.Tensor, *operands, by=ref.elementwise(operator.mul))
    agree(aten.neg.default, operands[0], by=ref.elementwise(operator.neg))
    agree(aten.abs.default, operands[0], by=ref.elementwise(abs, torch.float64))


@few
@given(operands=broadcasting(2, kind="positive"))
def test_xlogy_tests_for_zero(operands: list[torch.Tensor]) -> None:
    agree(aten.xlogy.Tensor, *operands, by=ref.elementwise(lambda x, y: c.select(x == 0, 0.0, x * c.log(y))))
