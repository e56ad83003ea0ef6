"""Sparse operands: nnz, not the dense shape; conversions move what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import only_op, ops_of

F32, INDEX = 4, 8  # bytes


def cost(run: Callable[[], Any], name: str) -> Cost:
    op = price(only_op(run, name))
    assert op.status == "priced"
    return op.cost


def scattered(m: int, k: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, k, generator=generator) * (torch.rand(m, k, generator=generator) < 0.4)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "coo": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
    "csc": Tensor.to_sparse_csc,
}


def stored(layout: str, m: int, k: int, nnz: int) -> int:
    """Bytes of values and indices: two per entry for coo, else one per entry and the row (column) pointers."""
    pointers = {"coo": 0, "csr": m + 1, "csc": k + 1}[layout]
    return nnz * (F32 + INDEX * (2 if layout == "coo" else 1)) + pointers * INDEX


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.sampled_from(["coo", "csr"]), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_product_takes_the_stored_entries_times_the_columns(m: int, k: int, n: int, layout: str, seed: int) -> None:
    dense = scattered(m, k, seed)
    nnz = int(dense.count_nonzero())
    a, b = LAYOUTS[layout](dense), torch.randn(k, n)
    found = cost(lambda: a @ b, "aten.mm")
    assert found.matmul_flops == 2 * nnz * n
    assert found.read_bytes == stored(layout, m, k, nnz) + F32 * k * n
    assert found.write_bytes == F32 * m * n
    biased = cost(lambda: torch.addmm(torch.randn(m, n), a, b), "aten.addmm")
    assert (biased.matmul_flops, biased.vector_flops) == (2 * nnz * n, m * n)
    vector = cost(lambda: a @ torch.randn(k), "aten.mv")
    assert vector.matmul_flops == 2 * nnz


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dense_times_a_sparse_matrix_and_a_sparse_batch() -> None:
    dense = scattered(4, 5)
    nnz = int(dense.count_nonzero())
    sparse = dense.to_sparse_csr()
    assert cost(lambda: torch.randn(3, 4) @ sparse, "aten.mm").matmul_flops == 2 * 3 * nnz
    batch = torch.stack([dense, 2 * dense]).to_sparse()
    assert cost(lambda: torch.bmm(batch, torch.randn(2, 5, 3)), "aten.bmm").matmul_flops == 2 * (2 * nnz) * 3


def test_sparse_mm_forward_and_backward() -> None:
    m, k, n = 4, 5, 3
    dense = scattered(m, k)
    nnz = int(dense.count_nonzero())
    a, b = dense.to_sparse().requires_grad_(), torch.randn(k, n, requires_grad=True)
    ops = ops_of(lambda: torch.sparse.mm(a, b).sum().backward())
    product = next(price(op).cost for op in ops if op.packet == "aten._sparse_addmm")
    assert (product.matmul_flops, product.vector_flops) == (2 * nnz * n, 0)  # beta is 0: nothing is added
    assert product.read_bytes == stored("coo", m, k, nnz) + F32 * k * n  # nor read
    # torch forms the whole dense dY B^T before it masks it; dB = A^T dY is sparse.
    backward = [price(op).cost.matmul_flops for op in ops if op.packet == "aten.mm"]
    assert sorted(backward) == sorted([2 * m * n * k, 2 * nnz * n])
    mask = next(price(op).cost for op in ops if op.packet == "aten.sparse_mask")
    assert (mask.flops, mask.read_bytes) == (0, nnz * (2 * INDEX + F32))


def test_sampled_product_counts_only_the_samples() -> None:
    m, k, n = 4, 6, 5
    pattern = scattered(m, n)
    nnz = int(pattern.count_nonzero())
    csr, a, b = pattern.to_sparse_csr(), torch.randn(m, k), torch.randn(k, n)
    found = cost(lambda: torch.sparse.sampled_addmm(csr, a, b), "aten.sparse_sampled_addmm")
    assert (found.matmul_flops, found.vector_flops) == (2 * nnz * k, nnz)
    found = cost(lambda: torch.sparse.sampled_addmm(csr, a, b, beta=0, alpha=3), "aten.sparse_sampled_addmm")
    assert (found.matmul_flops, found.vector_flops) == (2 * nnz * k, nnz)  # one scale, no addition
    indices = nnz * INDEX + (m + 1) * INDEX
    assert found.read_bytes == indices + F32 * (m + n) * k  # nnz > m, n: every row and column is needed
    assert found.write_bytes == indices + nnz * F32


def test_sparse_times_sparse_is_the_mean_of_an_even_spread() -> None:
    k = 4
    a, b = torch.eye(k).to_sparse(), torch.eye(k).to_sparse()
    # Identity times identity meets 1 entry of b per entry of a, as the even spread says.
    assert cost(lambda: torch.sparse.mm(a, b), "aten._sparse_sparse_matmul").matmul_flops == 2 * k * k // k


@pytest.mark.parametrize(("reduce", "matmul", "vector"), [("sum", 2, 0), ("mean", 2, 0), ("max", 0, 2), ("min", 0, 2)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_reducing_products(reduce: Any, matmul: int, vector: int) -> None:
    m, k, n = 4, 5, 3
    dense = scattered(m, k)
    nnz = int(dense.count_nonzero())
    csr, b = dense.to_sparse_csr(), torch.randn(k, n)
    found = cost(lambda: torch.sparse.mm(csr, b, reduce), "aten._sparse_mm_reduce_impl")
    division = m * n if reduce == "mean" else 0
    assert (found.matmul_flops, found.vector_flops) == (matmul * nnz * n, vector * nnz * n + division)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gradient_of_a_reducing_product() -> None:
    dense = scattered(4, 5)
    nnz, n = int(dense.count_nonzero()), 3
    csr, b = dense.to_sparse_csr().requires_grad_(), torch.randn(5, n, requires_grad=True)
    name = "aten._sparse_mm_reduce_impl_backward"
    found = cost(lambda: torch.sparse.mm(csr, b, "sum").sum().backward(), name)
    assert found.matmul_flops == 2 * (2 * nnz * n)


def test_softmax_and_sums_run_over_stored_entries() -> None:
    rows, columns = 2, 3
    x = torch.tensor([[1.0, 0, 2], [0, 3, 0]]).to_sparse().requires_grad_()
    nnz = 3  # rows of 2 and of 1
    assert cost(lambda: torch.sparse.softmax(x, 1), "aten._sparse_softmax").vector_flops == (5 * 2 - 2) + (5 * 1 - 2)
    log = cost(lambda: torch.sparse.log_softmax(x, 1), "aten._sparse_log_softmax")
    assert log.vector_flops == (5 * 2 - 1) + (5 * 1 - 1)
    back = cost(lambda: torch.sparse.softmax(x, 1).to_dense().sum().backward(), "aten._sparse_softmax_backward_data")
    assert back.vector_flops == (4 * 2 - 1) + (4 * 1 - 1)
    assert cost(lambda: torch.sparse.sum(x, 1), "aten._sparse_sum").vector_flops == nnz - rows
    summed = cost(lambda: torch.sparse.sum(x, 1).to_dense().sum().backward(), "aten._sparse_sum_backward")
    gradient = rows * (F32 + INDEX)
    assert (summed.flops, summed.read_bytes) == (0, gradient + nnz * 2 * INDEX)
    assert columns * rows == x.numel()


def test_coalescing_adds_the_duplicates() -> None:
    x = torch.sparse_coo_tensor(torch.tensor([[0, 0, 1], [1, 1, 2]]), torch.tensor([1.0, 2.0, 3.0]), (2, 3))
    found = cost(x.coalesce, "aten._coalesce")
    assert found.vector_flops == 1
    assert (found.read_bytes, found.write_bytes) == (stored("coo", 2, 3, 3), stored("coo", 2, 3, 2))


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_conversions_read_one_form_and_write_the_other(layout: str) -> None:
    m, k = 4, 5
    dense = scattered(m, k)
    nnz = int(dense.count_nonzero())
    suffix = "" if layout == "coo" else f"_{layout}"
    into = cost(lambda: LAYOUTS[layout](dense), f"aten._to_sparse{suffix}")
    assert into == Cost(read_bytes=F32 * m * k, write_bytes=stored(layout, m, k, nnz))
    sparse = LAYOUTS[layout](dense)
    back = cost(lambda: sparse.to_dense(), "aten._to_dense")
    assert back == Cost(read_bytes=stored(layout, m, k, nnz), write_bytes=F32 * m * k)


def test_conversions_with_other_contents_are_other_signatures() -> None:
    ops = ops_of(lambda: [x.to_sparse() for x in (torch.zeros(3, 3), torch.eye(3), torch.ones(3, 3))])
    assert [op.out.nnz for op in ops if op.packet == "aten._to_sparse"] == [0, 3, 9]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_handing_out_the_parts_is_free() -> None:
    dense = scattered(4, 5)
    coo, csr = dense.to_sparse(), dense.to_sparse_csr()

    def parts() -> None:
        coo.values(), coo.indices(), coo._values(), coo.is_coalesced(), coo.sparse_dim()
        csr.values(), csr.crow_indices(), csr.col_indices()
        torch.sparse_coo_tensor(coo.indices(), coo.values(), (4, 5), check_invariants=False)
        torch.sparse_csr_tensor(csr.crow_indices(), csr.col_indices(), csr.values(), (4, 5), check_invariants=False)

    found = [price(op) for op in ops_of(parts)]
    assert found
    assert {op.status for op in found} == {"free"}, [op.signature.op for op in found if op.status != "free"]


def test_a_sparse_tensor_of_rows_has_one_index_for_each_row() -> None:
    """Four rows of four floats and four int64 row numbers, read and written: no index for each element."""
    rows = torch.sparse_coo_tensor(torch.tensor([[0, 2, 5, 7]]), torch.ones(4, 4), (9, 4), check_invariants=True)
    found = cost(lambda: rows * 2.0, "aten.mul")
    assert (found.read_bytes, found.write_bytes) == (4 * 4 * F32 + 4 * INDEX,) * 2
