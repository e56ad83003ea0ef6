"""Pointwise arithmetic: N results, each the scalar operations of the op's definition.

A function of the C library (exp, log, pow, erf, lgamma, fmod, ...) is one operation, a comparison is one,
selection and casts are none. A coefficient that is 1 is not multiplied by. Broadcast operands count once per
result. Integer and bool arithmetic counts like any other.
"""

from __future__ import annotations

from attnprof.core.signature import Argument, OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.arithmetic import elements, flops, is_complex
from attnprof.costs.registry import cost, movement, traffic
from attnprof.costs.traffic import default, stored_bytes

_ONE_FUNCTION = (
    "abs acos acosh asin asinh atan atanh ceil cos cosh digamma erf erfc erfinv exp exp2 expm1 floor lgamma log "
    "log10 log1p log2 neg reciprocal rsqrt sqrt sin sinh tan tanh trunc sign sgn signbit isnan isneginf isposinf "
    "logical_not bitwise_not frexp angle atan2 bitwise_and bitwise_or bitwise_xor bitwise_left_shift "
    "bitwise_right_shift __lshift__ __rshift__ __ilshift__ __irshift__ logical_and logical_or logical_xor eq ge gt "
    "le lt copysign nextafter gcd fmod remainder fmax fmin maximum minimum heaviside pow deg2rad rad2deg i0 igamma "
    "igammac polygamma clamp_min clamp_max"
)
_ONE_SPECIAL_FUNCTION = (
    "airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 chebyshev_polynomial_t chebyshev_polynomial_u "
    "chebyshev_polynomial_v chebyshev_polynomial_w erfcx hermite_polynomial_h hermite_polynomial_he i0e i1 i1e "
    "laguerre_polynomial_l legendre_polynomial_p log_ndtr modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 "
    "modified_bessel_k1 ndtri scaled_modified_bessel_k0 scaled_modified_bessel_k1 shifted_chebyshev_polynomial_t "
    "shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w "
    "spherical_bessel_j0 zeta"
)

#: The definition of one result, in words; complex operands are priced word by word.
DEFINITIONS = {
    **{f"aten.{name}": name for name in _ONE_FUNCTION.split()},
    **{f"aten.special_{name}": name for name in _ONE_SPECIAL_FUNCTION.split()},
    "aten.ne": "eq",
    "aten.square": "mul",
    "aten.frac": "trunc sub",
    "aten.isinf": "abs eq",
    "aten.nan_to_num": "isnan eq eq",  # three tests, three selections
    "aten.hypot": "mul mul add sqrt",
    "aten.lcm": "gcd div mul abs",
    "aten.ldexp": "exp2 mul",
    "aten.logaddexp": "max sub abs neg exp log1p add",  # max(a, b) + log1p(exp(-|a - b|))
    "aten.logaddexp2": "max sub abs neg exp2 add log2 add",
    "aten.floor_divide": "div floor",
    "aten.xlogy": "eq log mul",  # x log y, and 0 where x is 0
    "aten.special_xlog1py": "eq log1p mul",
    "aten.sinc": "eq scale sin div",  # sin(pi x) / (pi x), and 1 where x is 0
    "aten.special_entr": "eq lt log mul neg",  # -x log x for x > 0, 0 at 0, -inf below
    "aten.lerp": "sub mul add",  # a + w (b - a)
    "aten.sigmoid": "neg exp shift reciprocal",  # 1 / (1 + exp(-x))
}


def results(op: OpSignature) -> int:
    """N: the elements of the (first) result."""
    return elements(op.out)


@cost(*DEFINITIONS)
def pointwise(op: OpSignature) -> Work:
    """N results, each the words of its definition."""
    packet = op.packet
    words = DEFINITIONS.get(packet) or DEFINITIONS[packet.removesuffix("_")]
    return Work(vector=results(op) * flops(words, is_complex(op)))


def _is_complex(value: Argument) -> bool:
    """Whether an operand is complex; a complex number of Python's arrives as its text."""
    return value.is_complex if isinstance(value, TensorMeta) else isinstance(value, str)


def _coefficient(op: OpSignature, name: str, operand: Argument) -> int:
    """What multiplying an operand by the coefficient ``name`` costs per result: nothing by 1, nothing for a number."""
    if not isinstance(operand, TensorMeta) or op.value(name, 1) == 1:
        return 0
    if _is_complex(op.value(name, 1)):
        return flops("mul", operand.is_complex) if operand.is_complex else 2
    return flops("scale", operand.is_complex)


def _sum(a: Argument, b: Argument) -> int:
    """a + b: 1; both parts when both are complex, one when the other is real."""
    return 1 + (_is_complex(a) and _is_complex(b))


def _product(a: Argument, b: Argument) -> int:
    """a b: 1; complex 6; complex by real 2."""
    return {0: 1, 1: 2, 2: 6}[_is_complex(a) + _is_complex(b)]


def _quotient(a: Argument, b: Argument) -> int:
    """a / b: 1; complex by real 2; real by complex 8 (|b|^2 3, two products, a sign, two divisions); complex 11."""
    if not _is_complex(b):
        return flops("scale", _is_complex(a))
    return flops("div", True) if _is_complex(a) else 8


@cost("aten.add", "aten.sub")
def add(op: OpSignature) -> Work:
    """self + alpha other: an addition, and a multiplication unless alpha is 1 or both are numbers."""
    a, b = op.value("self"), op.value("other")
    if isinstance(b, TensorMeta) and b.nnz is not None:
        return Work(vector=_meeting(op, b) * _sum(a, b) + b.nnz * _coefficient(op, "alpha", b))
    return Work(vector=results(op) * (_sum(a, b) + _coefficient(op, "alpha", b)))


def _meeting(op: OpSignature, other: TensorMeta) -> int:
    """How many entries of a sparse ``other`` are added to one that is there: all, where self is dense.

    Of two sparse operands, those without an entry of their own in the sum. In place, self's entries of before are not
    known: as if none met, as in gradients that accumulate uncoalesced and are put behind each other.
    """
    a = op.maybe("self")
    if a is None or a.nnz is None:
        return elements(other)
    return 0 if a.ident == op.out.ident else max(0, a.nnz + elements(other) - elements(op.out))


@traffic("aten.add", "aten.sub")
def sum_traffic(op: OpSignature) -> tuple[int, int]:
    """The default rule; a sparse tensor added in place to a dense one reads and writes only what it meets."""
    a, b = op.maybe("self"), op.maybe("other")
    if "self" not in op.mutated or a is None or a.nnz is not None or b is None or b.nnz is None:
        return default(op)
    touched = min(b.nnz, a.distinct) * a.width
    return stored_bytes(b) + touched, touched


@cost("aten.rsub")
def rsub(op: OpSignature) -> Work:
    """other - alpha self."""
    a, b = op.value("self"), op.value("other")
    return Work(vector=results(op) * (_sum(a, b) + _coefficient(op, "alpha", a)))


@cost("aten.mul")
def mul(op: OpSignature) -> Work:
    """self other."""
    return Work(vector=results(op) * _product(op.value("self"), op.value("other")))


@cost("aten.div")
def div(op: OpSignature) -> Work:
    """self / other, and its rounding when a rounding mode is given."""
    rounding = op.value("rounding_mode") is not None
    return Work(vector=results(op) * (_quotient(op.value("self"), op.value("other")) + rounding))


@cost("aten.addcmul")
def addcmul(op: OpSignature) -> Work:
    """self + value tensor1 tensor2: 2, and 1 unless value is 1."""
    return Work(vector=results(op) * (flops("mul add", is_complex(op)) + _scaled(op)))


@cost("aten.addcdiv")
def addcdiv(op: OpSignature) -> Work:
    """self + value tensor1 / tensor2: 2, and 1 unless value is 1."""
    return Work(vector=results(op) * (flops("div add", is_complex(op)) + _scaled(op)))


def _scaled(op: OpSignature) -> int:
    value = op.value("value", 1)
    return 0 if value == 1 else flops("scale", is_complex(op))


@cost("aten.clamp")
def clamp(op: OpSignature) -> Work:
    """One comparison for each bound that is given."""
    return Work(vector=results(op) * sum(op.value(bound) is not None for bound in ("min", "max")))


@cost("aten.round")
def round_(op: OpSignature) -> Work:
    """1; to some decimals: scale, round, divide."""
    return Work(vector=results(op) * (3 if op.number("decimals") else 1))


@cost("aten.mvlgamma")
def mvlgamma(op: OpSignature) -> Work:
    """Sum of lgamma(x + (1 - j) / 2) over j = 1..p, plus a constant: p functions, p - 1 shifts, p additions."""
    p = int(op.number("p"))
    return Work(vector=results(op) * (3 * p - 1))


@cost("aten.logit")
def logit(op: OpSignature) -> Work:
    """log(x / (1 - x)): sub, div, log; with eps, x is clamped first (2)."""
    return Work(vector=results(op) * (5 if op.value("eps") is not None else 3))


@cost("aten.logit_backward")
def logit_backward(op: OpSignature) -> Work:
    """g / (x (1 - x)): 3, and two comparisons for the range where it is not zero."""
    return Work(vector=results(op) * 5)


@cost("aten.polar")
def polar(op: OpSignature) -> Work:
    """r cos t, r sin t."""
    return Work(vector=results(op) * 4)


@cost("aten.conj_physical", "aten._conj_physical", "aten._conj_copy")
def conj_physical(op: OpSignature) -> Work:
    """The imaginary part's sign; nothing for real numbers."""
    return Work(vector=results(op) * int(is_complex(op)))


@cost("aten.isin")
def isin(op: OpSignature) -> Work:
    """Each of N elements against each of K: N K comparisons joined by N (K - 1) ors. A model: torch may sort."""
    tests = op.maybe("test_elements")
    k = tests.numel if tests else 1
    return Work(vector=results(op) * max(0, 2 * k - 1))


# Selection and assembly.
movement(("aten.where", "aten.masked_fill", "aten.complex"))
