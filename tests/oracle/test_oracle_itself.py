"""The oracle can fail: a definition with one operation, read or write too many is caught, and so is a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof.core.tensor import TensorMeta
from oracle import counting as c
from oracle.agreement import agree
from oracle.buffers import Buffer, Machine, indices
from oracle.layouts import few
from oracle.references_attention import flash
from oracle.references_convolution import convolution
from oracle.references_gemm import addmm, mm
from oracle.references_indexing import index_select
from oracle.references_norms import layer_norm
from oracle.references_pointwise import add
from oracle.references_reductions import softmax

aten = torch.ops.aten
Reference = Callable[..., Any]


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


#: Ops of different families, with arguments whose first output has at least two elements.
SUBJECTS: list[tuple[Any, Reference, tuple[Any, ...]]] = [
    (aten.add.Tensor, add, (_normal(2, 3), _normal(2, 3))),
    (aten.mm.default, mm, (_normal(2, 3), _normal(3, 2))),
    (aten.addmm.default, addmm, (_normal(2), _normal(2, 3), _normal(3, 2))),
    (aten._softmax.default, softmax, (_normal(2, 3), 1, False)),
    (aten.native_layer_norm.default, layer_norm, (_normal(2, 3), [3], _normal(3), _normal(3), 1e-5)),
    (aten.index_select.default, index_select, (_normal(4, 2), 0, torch.tensor([1, 3]))),
    (aten.convolution.default, convolution, (_normal(1, 1, 3), _normal(1, 1, 1), None, [2], [0], [1], False, [0], 1)),
    (aten._scaled_dot_product_flash_attention_for_cpu.default, flash, (_normal(1, 1, 2, 2),) * 3),
]


def _first(outputs: Any) -> Buffer:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _one_operation_more(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    m.scalar_op(1)


def _one_operation_less(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    m.scalar_op(-1)


def _one_multiply_add_more(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    m.multiply_add(0, 1.0, 1.0)


def _one_multiply_add_masked(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    m.useful -= 2


def _one_operation_again(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    with m.recompute():
        m.scalar_op(1)


def _one_read_more(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    m.load(torch.zeros(1))[0]


def _one_read_less(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    m.read.pop()


def _one_write_more(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    m.new([1], torch.float64)[0] = 0.0


def _one_write_less(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    m.written.pop()


def _a_wrong_number(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    out = _first(outputs)
    place = next(indices(out.shape))
    out[place] = out[place].value + 1e-3


def _an_input_changed(m: Machine, arguments: tuple[Any, ...], outputs: Any) -> None:
    x = next(a for a in arguments if isinstance(a, Buffer))
    x[next(indices(x.shape))] = 0.0


MUTATIONS: list[tuple[Callable[..., None], str]] = [
    (_one_operation_more, "vector_flops: priced"),
    (_one_operation_less, "vector_flops: priced"),
    (_one_multiply_add_more, "matmul_flops: priced"),
    (_one_multiply_add_masked, "useful_matmul_flops: priced"),
    (_one_operation_again, "recompute_vector_flops: priced"),
    (_one_read_more, "read_bytes: priced"),
    (_one_read_less, "read_bytes: priced"),
    (_one_write_more, "write_bytes: priced"),
    (_one_write_less, "write_bytes: priced"),
    (_a_wrong_number, "output of"),
    (_an_input_changed, "argument of"),
]


@pytest.mark.parametrize(("op", "by", "arguments"), SUBJECTS, ids=lambda v: str(v) if hasattr(v, "_schema") else None)
def test_a_spoiled_definition_is_caught(op: Any, by: Reference, arguments: tuple[Any, ...]) -> None:
    agree(op, *arguments, by=by)
    for mutate, complaint in MUTATIONS:

        def spoiled(m: Machine, *lifted: Any, mutate: Callable[..., None] = mutate) -> Any:
            outputs = by(m, *lifted)
            mutate(m, lifted, outputs)
            return outputs

        with pytest.raises(AssertionError, match=complaint):
            agree(op, *arguments, by=spoiled)


def test_scalars_count_each_operation_once() -> None:
    m = Machine()
    x = c.Scalar(2.0, m)
    assert ((x + 1) * 3 - x / 2).value == 8.0
    assert m.vector == 4  # +, *, /, -
    assert c.sigmoid(x).value == pytest.approx(torch.tensor(2.0, dtype=torch.float64).sigmoid().item())
    assert m.vector == 8  # neg, exp, add, div


def test_constants_fold_and_selection_is_free() -> None:
    m = Machine()
    x = c.Scalar(3.0, m)
    assert c.exp(0.0) == 1.0
    assert c.scaled(x, 1) is x
    assert c.select(x > 2, x, 0.0) is x
    assert m.vector == 1  # the comparison


def test_complex_arithmetic_weighs_more() -> None:
    m = Machine()
    z = c.Scalar(3 + 4j, m)
    assert (z + z).value == 6 + 8j
    assert m.vector == 2
    assert (z * z).value == (3 + 4j) ** 2
    assert m.vector == 2 + 6
    assert abs(z).value == 5.0
    assert m.vector == 2 + 6 + 4
    assert m.multiply_add(0, z, z).value == (3 + 4j) ** 2
    assert m.matmul == 8  # 4 mul, 2 add inside the product, 2 to accumulate


def test_an_expanded_dimension_is_read_once() -> None:
    m = Machine()
    x = m.load(torch.randn(3, 1, dtype=torch.float64).expand(3, 5))
    for i in indices(x.shape):
        x[i]
    assert m.read_bytes == 3 * 8


def test_what_the_op_wrote_is_on_the_chip() -> None:
    m = Machine()
    x = m.load(torch.zeros(2))
    x[0] = 1.0
    assert (x[0] + x[1]).value == 1.0
    assert (m.read_bytes, m.write_bytes) == (4, 4)  # x[1] read, x[0] written


def test_views_of_one_storage_share_their_elements() -> None:
    m = Machine()
    base = torch.arange(6.0)
    whole, tail = m.load(base), m.load(base[2:])
    assert tail[0].value == whole[2].value == 2.0
    assert m.read_bytes == 4


@settings(few, max_examples=200)
@given(dims=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=4))
def test_distinct_elements_of_any_strides(dims: list[tuple[int, int]]) -> None:
    shape, stride = tuple(n for n, _ in dims), tuple(s for _, s in dims)
    offsets = {sum(i * s for i, s in zip(index, stride, strict=True)) for index in indices(shape)}
    assert TensorMeta(shape, stride, "float32").distinct == len(offsets)
