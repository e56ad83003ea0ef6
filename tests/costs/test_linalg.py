"""Linear algebra against textbook algorithms that count themselves, and its models against their tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, linalg

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import only_op, ops_of

F32 = 4  # bytes


def cost(run: Callable[[], Any], name: str) -> Cost:
    return price(only_op(run, name)).cost


def spd(n: int, batch: int = 1) -> Tensor:
    a = torch.randn(batch, n, n)
    return a @ a.mT + n * torch.eye(n)


# Textbook algorithms: every scalar operation they do, for an n x n or m x n matrix.


def cholesky_operations(n: int) -> int:
    count = 0
    for j in range(n):
        count += 2 * j + 1  # the diagonal: j squares subtracted, a square root
        for _ in range(j + 1, n):
            count += 2 * j + 1  # j products subtracted, a division
    return count


def lu_operations(n: int) -> int:
    count = 0
    for j in range(n):
        for _ in range(j + 1, n):
            count += 1 + 2 * (n - j - 1)  # the multiplier, then a row minus a multiple of another
    return count


def householder_operations(m: int, n: int) -> int:
    count = 0
    for j in range(n):
        for _ in range(j, n):
            count += 4 * (m - j)  # v . a and a minus a multiple of v
    return count


def leading_coefficient(count: Callable[[int], int]) -> int:
    """Six times the coefficient of n^3 of a cubic: its third difference."""
    values = [count(n) for n in range(20, 24)]
    return values[3] - 3 * values[2] + 3 * values[1] - values[0]


@pytest.mark.parametrize(
    ("run", "name", "algorithm"),
    [
        (lambda n: linalg.cholesky(spd(n)), "aten.linalg_cholesky_ex", cholesky_operations),
        (lambda n: linalg.ldl_factor(spd(n)), "aten.linalg_ldl_factor_ex", cholesky_operations),
        (lambda n: linalg.lu_factor(torch.randn(n, n)), "aten.linalg_lu_factor_ex", lu_operations),
        (lambda n: linalg.lu(torch.randn(n, n)), "aten.linalg_lu", lu_operations),
        (lambda n: linalg.qr(torch.randn(n, n), mode="r"), "aten.linalg_qr", lambda n: householder_operations(n, n)),
        (lambda n: torch.geqrf(torch.randn(2 * n, n)), "aten.geqrf", lambda n: householder_operations(2 * n, n)),
    ],
)
def test_factorisations_have_the_textbook_leading_term(
    run: Callable[[int], Any], name: str, algorithm: Callable[[int], int]
) -> None:
    n = 12  # a multiple of 3: nothing is rounded
    found = cost(lambda: run(n), name)
    assert 6 * found.matmul_flops == leading_coefficient(algorithm) * n**3
    assert found.vector_flops == 0


@given(st.integers(1, 6), st.integers(1, 5), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_triangular_solve_is_n_squared_per_right_hand_side(n: int, r: int, left: bool, unit: bool) -> None:
    a = torch.randn(2, n, n).triu()
    b = torch.randn(2, n, r) if left else torch.randn(2, r, n)

    def run() -> Tensor:
        return linalg.solve_triangular(a, b, upper=True, left=left, unitriangular=unit)

    found = cost(run, "aten.linalg_solve_triangular")
    per_side = sum(2 * i + 1 for i in range(n))  # unknown i: i products subtracted, a division
    assert found.matmul_flops == 2 * r * per_side
    kept = sum(range(n)) if unit else sum(range(n + 1))
    assert found.read_bytes == F32 * 2 * (kept + n * r)
    assert found.write_bytes == F32 * 2 * n * r


def test_solves() -> None:
    batch, n, r = 2, 6, 3
    a, b = spd(n, batch), torch.randn(batch, n, r)
    lu, pairs = 2 * n**3 // 3, 2 * n * n * r  # two triangular solves
    assert cost(lambda: linalg.solve(a, b), "aten._linalg_solve_ex").matmul_flops == batch * (lu + pairs)
    factor = linalg.cholesky(a)
    solved = cost(lambda: torch.cholesky_solve(b, factor), "aten.cholesky_solve")
    assert solved.matmul_flops == batch * pairs
    assert solved.read_bytes == F32 * batch * (n * (n + 1) // 2 + n * r)
    factors = linalg.lu_factor(a)
    assert cost(lambda: linalg.lu_solve(*factors, b), "aten.linalg_lu_solve").matmul_flops == batch * pairs
    right = cost(lambda: linalg.lu_solve(*factors, b.mT.contiguous(), left=False), "aten.linalg_lu_solve")
    assert right.matmul_flops == batch * pairs
    ldl = linalg.ldl_factor(a)
    assert cost(lambda: linalg.ldl_solve(*ldl, b), "aten.linalg_ldl_solve").matmul_flops == batch * pairs
    assert cost(lambda: torch.triangular_solve(b, a), "aten.triangular_solve").matmul_flops == batch * n * n * r
    assert cost(lambda: linalg.inv(a), "aten.linalg_inv_ex").matmul_flops == batch * 2 * n**3
    inverse = cost(lambda: torch.cholesky_inverse(factor), "aten.cholesky_inverse")
    assert inverse.matmul_flops == batch * 2 * n**3 // 3


def test_a_solve_s_backward_is_a_solve_and_a_product() -> None:
    n, r = 6, 3
    a, b = torch.randn(n, n, requires_grad=True), torch.randn(n, r, requires_grad=True)
    total = sum(price(op).cost.matmul_flops for op in ops_of(lambda: linalg.solve(a, b).sum().backward()))
    forward = 2 * n**3 // 3 + 2 * n * n * r
    # dB = A^-T dX from the factors of the forward; dA = -dB X^T
    assert total == forward + 2 * n * n * r + 2 * n * n * r


def test_determinants() -> None:
    batch, n = 2, 6
    a = torch.randn(batch, n, n)
    det = cost(lambda: linalg.det(a), "aten._linalg_det")
    assert (det.matmul_flops, det.vector_flops) == (batch * (2 * n**3 // 3), batch * n)
    slogdet = cost(lambda: linalg.slogdet(a), "aten._linalg_slogdet")
    assert slogdet.vector_flops == batch * (n + n + (n - 1) + 2 * n)


def test_orthogonal_factors() -> None:
    m, n = 9, 6
    a = torch.randn(m, n)
    reflectors = 2 * m * n * n - 2 * n**3 // 3
    assert cost(lambda: linalg.qr(a, mode="r"), "aten.linalg_qr").matmul_flops == reflectors
    assert cost(lambda: linalg.qr(a), "aten.linalg_qr").matmul_flops == 2 * reflectors  # Q costs what R did
    complete = 4 * m * m * n - 2 * (2 * m) * n * n + 4 * n**3 // 3
    assert cost(lambda: linalg.qr(a, mode="complete"), "aten.linalg_qr").matmul_flops == reflectors + complete
    raw = torch.geqrf(a)
    formed = cost(lambda: linalg.householder_product(*raw), "aten.linalg_householder_product")
    assert formed.matmul_flops == reflectors
    r = 4
    applied = cost(lambda: torch.ormqr(*raw, torch.randn(m, r)), "aten.ormqr")
    # reflector j changes m - j of m rows: 4 (m - j) per column, of which the leading terms are kept
    assert applied.matmul_flops == r * (4 * m * n - 2 * n * n)
    least = cost(lambda: linalg.lstsq(a, torch.randn(m, r)), "aten.linalg_lstsq")
    assert least.matmul_flops == reflectors + r * (4 * m * n - 2 * n * n) + r * n * n


def test_models_of_iterative_methods() -> None:
    m, n = 9, 6
    a, square = torch.randn(m, n), torch.randn(n, n)
    reduced = 14 * m * n * n + 8 * n**3
    assert cost(lambda: linalg.svd(a, full_matrices=False), "aten._linalg_svd").matmul_flops == reduced
    assert cost(lambda: linalg.svd(a.mT, full_matrices=False), "aten._linalg_svd").matmul_flops == reduced
    full = 4 * m * m * n + 8 * m * n * n + 9 * n**3
    assert cost(lambda: linalg.svd(a), "aten._linalg_svd").matmul_flops == full
    values = torch.ops.aten._linalg_svd
    assert cost(lambda: values(a, False, False), "aten._linalg_svd").matmul_flops == 4 * m * n * n - 4 * n**3 // 3
    assert cost(lambda: linalg.eigh(spd(n)), "aten._linalg_eigh").matmul_flops == 9 * n**3
    without = torch.ops.aten._linalg_eigh
    assert cost(lambda: without(square, "L", False), "aten._linalg_eigh").matmul_flops == 4 * n**3 // 3
    assert cost(lambda: linalg.eig(square), "aten.linalg_eig").matmul_flops == 25 * n**3
    eigenvalues = torch.ops.aten._linalg_eigvals
    assert cost(lambda: eigenvalues(square), "aten._linalg_eigvals").matmul_flops == 10 * n**3
    assert cost(lambda: linalg.matrix_exp(square), "aten.linalg_matrix_exp").matmul_flops == 5 * 2 * n**3
    pseudo = cost(lambda: linalg.pinv(a), "aten.linalg_pinv")
    assert (pseudo.matmul_flops, pseudo.vector_flops) == (reduced + 2 * m * n * n, n + n * n)


def test_complex_matrices_cost_four_times_the_real() -> None:
    n = 6
    real, complex_ = torch.randn(n, n), torch.randn(n, n, dtype=torch.complex64)
    for run, name in ((linalg.lu_factor, "aten.linalg_lu_factor_ex"), (linalg.inv, "aten.linalg_inv_ex")):
        a, b = (cost(lambda run=run, x=x: run(x), name).matmul_flops for x in (real, complex_))
        assert 4 * a == b


def test_triangles_are_read_once() -> None:
    n = 5
    a = spd(n)[0]
    found = cost(lambda: linalg.cholesky(a), "aten.linalg_cholesky_ex")
    assert (found.read_bytes, found.write_bytes) == (F32 * n * (n + 1) // 2, F32 * n * n + 4)  # L whole, and info
    # The upper triangle is not read: the factor is the same without it.
    poisoned = a.tril() + torch.full((n, n), float("nan")).triu(1)
    assert torch.equal(linalg.cholesky(a), linalg.cholesky(poisoned))


def test_movement_and_vector_ops_beside_them() -> None:
    n = 4
    lu, pivots = linalg.lu_factor(torch.randn(n, n))
    both = cost(lambda: torch.lu_unpack(lu, pivots), "aten.lu_unpack")
    assert (both.flops, both.read_bytes, both.write_bytes) == (0, F32 * n * n + 4 * n, 3 * F32 * n * n)
    data = cost(lambda: torch.lu_unpack(lu, pivots, unpack_pivots=False), "aten.lu_unpack")
    assert (data.read_bytes, data.write_bytes) == (F32 * n * n, 2 * F32 * n * n)
    rows = 5
    found = cost(lambda: linalg.cross(torch.randn(rows, 3), torch.randn(rows, 3)), "aten.linalg_cross")
    assert (found.matmul_flops, found.vector_flops) == (0, rows * 3 * 3)
    checked = cost(lambda: linalg.inv(torch.eye(3)), "aten._linalg_check_errors")
    assert (checked.flops, checked.bytes) == (0, 4)


def test_composites_arrive_as_products() -> None:
    n = 4
    a = torch.randn(n, n)

    def total(run: Callable[[], Any]) -> int:
        return sum(price(op).cost.matmul_flops for op in ops_of(run))

    assert total(lambda: linalg.matrix_power(a, 3)) == 2 * 2 * n**3
    assert total(lambda: linalg.multi_dot([torch.randn(2, 3), torch.randn(3, 4)])) == 2 * 2 * 3 * 4
