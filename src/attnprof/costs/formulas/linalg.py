"""Dense linear algebra, booked as contractions (``matmul``): factorisations, solves, decompositions.

Direct methods have a fixed operation count; what is kept here is its leading polynomial (lower powers of n
dropped, as LAPACK's own reports do), rounded down to an integer per matrix. Iterative methods (SVD,
eigenvalues, the matrix exponential) do work that depends on the data: theirs is a **model**, said in each
docstring, with the constants of Golub and Van Loan's tables. Complex matrices cost four times the real.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost, movement, traffic
from attnprof.costs.traffic import default, distinct_bytes


def _matrices(a: TensorMeta) -> tuple[int, int, int]:
    """How many matrices, and their rows and columns."""
    return prod(a.shape[:-2]), a.shape[-2], a.shape[-1]


def _flops(a: TensorMeta, each: int, count: int | None = None) -> int:
    """``each`` for every matrix of a, four times that when complex."""
    return (_matrices(a)[0] if count is None else count) * each * (4 if a.is_complex else 1)


def _first(op: OpSignature) -> TensorMeta:
    """The matrix operand, which torch calls A in some ops and self in others."""
    return op.tensor("A" if "A" in op else "self")


def lu_flops(m: int, n: int) -> int:
    """m x n with k = min(m, n): 2mnk - (m + n) k^2 + 2k^3 / 3; 2n^3 / 3 when square."""
    k = min(m, n)
    return (6 * m * n * k - 3 * (m + n) * k * k + 2 * k**3) // 3


def qr_flops(m: int, n: int) -> int:
    """Householder reflectors of m x n, k = min(m, n): 4mnk - 2(m + n) k^2 + 4k^3 / 3; 2mn^2 - 2n^3 / 3 when tall."""
    k = min(m, n)
    return (12 * m * n * k - 6 * (m + n) * k * k + 4 * k**3) // 3


def form_q_flops(m: int, columns: int, k: int) -> int:
    """The first columns of Q from k reflectors: 4 m columns k - 2(m + columns) k^2 + 4k^3 / 3."""
    return (12 * m * columns * k - 6 * (m + columns) * k * k + 4 * k**3) // 3


@cost("aten.linalg_cholesky_ex", "aten.cholesky", "aten.linalg_ldl_factor_ex")
def symmetric_factor(op: OpSignature) -> Work:
    """Cholesky and LDL^T: n^3 / 3."""
    a = _first(op)
    return Work(matmul=_flops(a, a.shape[-1] ** 3 // 3))


@cost("aten.cholesky_inverse")
def cholesky_inverse(op: OpSignature) -> Work:
    """The inverse from a Cholesky factor: 2n^3 / 3."""
    a = _first(op)
    return Work(matmul=_flops(a, 2 * a.shape[-1] ** 3 // 3))


@cost("aten.linalg_lu_factor_ex", "aten.linalg_lu")
def lu_factor(op: OpSignature) -> Work:
    """LU with row exchanges (which are movement): :func:`lu_flops`."""
    a = _first(op)
    return Work(matmul=_flops(a, lu_flops(*a.shape[-2:])))


@cost("aten._linalg_det")
def det(op: OpSignature) -> Work:
    """LU, then the product of the diagonal and the sign of the exchanges: n multiplications."""
    a = _first(op)
    count, n, _ = _matrices(a)
    return Work(_flops(a, lu_flops(n, n)), count * n * (6 if a.is_complex else 1))


@cost("aten._linalg_slogdet")
def slogdet(op: OpSignature) -> Work:
    """LU, then |u| and log|u| n each and their sum n - 1; the signs of u and their product with the exchanges'
    2n. A complex |u| is 4, a sign u / |u| 2, a product 6."""
    a = _first(op)
    count, n, _ = _matrices(a)
    vector = 4 * n + n + n - 1 + 2 * n + 6 * n if a.is_complex else n + n + n - 1 + 2 * n
    return Work(_flops(a, lu_flops(n, n)), count * max(0, vector))


@cost("aten._linalg_solve_ex", "aten._spsolve")
def solve(op: OpSignature) -> Work:
    """LU 2n^3 / 3, then two triangular solves, n^2 each per right-hand side."""
    a, b = _first(op), op.tensor("B")
    n = a.shape[-1]
    return Work(matmul=_flops(a, lu_flops(n, n)) + _flops(a, 2 * n * b.numel, 1))


@cost("aten.linalg_inv_ex")
def inverse(op: OpSignature) -> Work:
    """LU, the inverse of U and the product with that of L: 2n^3."""
    a = _first(op)
    return Work(matmul=_flops(a, 2 * a.shape[-1] ** 3))


@cost("aten.linalg_solve_triangular", "aten.triangular_solve")
def solve_triangular(op: OpSignature) -> Work:
    """n^2 per right-hand side (n divisions and n (n - 1) / 2 multiply-adds), so n per element of the solution."""
    a = op.tensor("A" if op.packet == "aten.triangular_solve" else "self")
    return Work(matmul=_flops(a, a.shape[-1] * op.out.numel, 1))


@cost("aten.linalg_lu_solve", "aten.linalg_ldl_solve", "aten.cholesky_solve", "aten._cholesky_solve_helper")
def solve_factored(op: OpSignature) -> Work:
    """Two triangular solves: 2n^2 per right-hand side, 2n per element of the solution."""
    return Work(matmul=_flops(op.out, 2 * op.out.shape[-2 if op.number("left", 1) else -1] * op.out.numel, 1))


@cost("aten.linalg_qr")
def qr(op: OpSignature) -> Work:
    """The reflectors, and Q formed from them: m x k of it when reduced, m x m when complete, none for mode r."""
    a = _first(op)
    _, m, n = _matrices(a)
    k = min(m, n)
    columns = {"reduced": k, "complete": m, "r": 0}[str(op.value("mode"))]
    return Work(matmul=_flops(a, qr_flops(m, n) + (form_q_flops(m, columns, k) if columns else 0)))


@cost("aten.geqrf")
def geqrf(op: OpSignature) -> Work:
    """The reflectors and R: :func:`qr_flops`."""
    a = _first(op)
    return Work(matmul=_flops(a, qr_flops(*a.shape[-2:])))


@cost("aten.linalg_householder_product")
def householder_product(op: OpSignature) -> Work:
    """Q from its reflectors: :func:`form_q_flops`."""
    a, tau = op.tensor("input"), op.tensor("tau")
    return Work(matmul=_flops(a, form_q_flops(a.shape[-2], a.shape[-1], tau.shape[-1])))


@cost("aten.ormqr")
def ormqr(op: OpSignature) -> Work:
    """Q C or C Q from k reflectors of length q (q rows or columns of C): 4mnk - 2k^2 times the other side."""
    tau, c = op.tensor("input2"), op.tensor("input3")
    count, m, n = _matrices(c)
    k, other = tau.shape[-1], n if op.number("left", 1) else m
    return Work(matmul=_flops(c, 4 * m * n * k - 2 * k * k * other, count))


@cost("aten.linalg_lstsq")
def lstsq(op: OpSignature) -> Work:
    """By QR: the reflectors, Q^T applied to r right-hand sides, one triangular solve. A model where the driver
    is not QR, or A has not full rank."""
    a, b = _first(op), op.tensor("b")
    count, m, n = _matrices(a)
    k = min(m, n)
    r = b.shape[-1] if len(b.shape) == len(a.shape) else 1
    return Work(matmul=_flops(a, qr_flops(m, n) + r * (4 * m * k - 2 * k * k) + r * k * k, count))


@cost("aten._linalg_svd")
def svd(op: OpSignature) -> Work:
    """A model (Golub-Reinsch), m >= n: values alone 4mn^2 - 4n^3 / 3; with U of n columns 14mn^2 + 8n^3; with
    all of U 4m^2 n + 8mn^2 + 9n^3."""
    a = _first(op)
    _, rows, columns = _matrices(a)
    m, n = max(rows, columns), min(rows, columns)
    if not op.number("compute_uv", 1):
        return Work(matmul=_flops(a, (12 * m * n * n - 4 * n**3) // 3))
    each = 4 * m * m * n + 8 * m * n * n + 9 * n**3 if op.number("full_matrices") else 14 * m * n * n + 8 * n**3
    return Work(matmul=_flops(a, each))


@cost("aten._linalg_eigh")
def eigh(op: OpSignature) -> Work:
    """A model (symmetric QR): values alone 4n^3 / 3, with vectors 9n^3."""
    a = _first(op)
    n = a.shape[-1]
    return Work(matmul=_flops(a, 9 * n**3 if op.number("compute_v", 1) else 4 * n**3 // 3))


@cost("aten.linalg_eig")
def eig(op: OpSignature) -> Work:
    """A model (Hessenberg and QR iteration, with vectors): 25n^3."""
    a = _first(op)
    return Work(matmul=_flops(a, 25 * a.shape[-1] ** 3))


@cost("aten._linalg_eigvals")
def eigvals(op: OpSignature) -> Work:
    """A model (Hessenberg and QR iteration, values alone): 10n^3."""
    a = _first(op)
    return Work(matmul=_flops(a, 10 * a.shape[-1] ** 3))


@cost("aten.linalg_pinv")
def pinv(op: OpSignature) -> Work:
    """A model: the reduced SVD (or, hermitian, eigenvectors), V scaled by 1 / s, times U^T: 2mnk."""
    a = _first(op)
    count, m, n = _matrices(a)
    k = min(m, n)
    decomposition = 9 * n**3 if op.number("hermitian") else 14 * max(m, n) * k * k + 8 * k**3
    return Work(_flops(a, decomposition + 2 * m * n * k), count * (k + n * k))


@cost("aten.linalg_matrix_exp")
def matrix_exp(op: OpSignature) -> Work:
    """A model: the Taylor polynomial of degree 18, which takes 5 products, 10n^3.

    Matrices of small norm take fewer, those of norm above 1 are halved and squared again, 2n^3 each time.
    """
    a = _first(op)
    return Work(matmul=_flops(a, 10 * a.shape[-1] ** 3))


@cost("aten._compute_linear_combination")
def linear_combination(op: OpSignature) -> Work:
    """Each output sums over the leading dimension of the input."""
    x = op.tensor("input")
    return Work(matmul=2 * op.out.numel * x.shape[0])


@cost("aten.linalg_cross")
def cross(op: OpSignature) -> Work:
    """Each component is two products and their difference; a complex product is 6, a difference 2."""
    return Work(vector=op.out.numel * (14 if op.out.is_complex else 3))


movement(("aten.lu_unpack", "aten._linalg_check_errors"))


@traffic("aten.lu_unpack")
def lu_unpack_traffic(op: OpSignature) -> tuple[int, int]:
    """Only what is asked for is unpacked; L and U are written whole, their zeros included."""
    read = [op.tensor("LU_data")] if op.number("unpack_data", 1) else []
    read += [op.tensor("LU_pivots")] if op.number("unpack_pivots", 1) else []
    return distinct_bytes(read), default(op)[1]


def _triangle(a: TensorMeta, unit: bool = False) -> int:
    """Bytes of one triangle of every matrix, with its diagonal unless that is known to be 1."""
    n = a.shape[-1]
    kept = n * (n - 1) // 2 if unit else n * (n + 1) // 2
    return a.bytes * kept // (n * n) if n else 0


def _reading_a_triangle(name: str) -> Callable[[OpSignature], tuple[int, int]]:
    def rule(op: OpSignature) -> tuple[int, int]:
        """One triangle of the matrix, and everything else."""
        a = op.tensor(name)
        others = [t for argument, _ in op.args if argument not in (name, "out") for t in op.tensors(argument)]
        return _triangle(a, bool(op.number("unitriangular"))) + distinct_bytes(others), default(op)[1]

    return rule


traffic("aten.linalg_cholesky_ex", "aten.cholesky", "aten.cholesky_inverse")(_reading_a_triangle("self"))
traffic("aten.linalg_ldl_factor_ex", "aten.linalg_solve_triangular")(_reading_a_triangle("self"))
traffic("aten.cholesky_solve")(_reading_a_triangle("input2"))
traffic("aten._linalg_eigh")(_reading_a_triangle("A"))
