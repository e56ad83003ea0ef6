"""Numbers that count the arithmetic done with them.

Every operator and function below adds its weight to a :class:`Tally`: 1 for real numbers, and for complex
ones 2 for an addition, 6 for a multiplication, 4 for an absolute value. Arithmetic between two plain Python
numbers is a folded constant and is not counted; choosing between values (:func:`select`) and using one as an
index are free.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

Number = Any  # int, float, bool, complex: whatever ``Tensor.tolist`` gives

#: Scalar operations in one complex operation; multiplication is 4 mul + 2 add.
_COMPLEX = {"add": 2, "sub": 2, "neg": 2, "mul": 6, "abs": 4, "eq": 2, "ne": 2}


class Tally:
    """What has been done so far: scalar operations, multiply-adds, and which of them were done again."""

    def __init__(self) -> None:
        self.vector = 0
        self.matmul = 0
        self.useful = 0
        self.recompute_vector = 0
        self.recompute_matmul = 0
        self._again = False

    @contextmanager
    def recompute(self) -> Iterator[None]:
        """Work inside is forward work that a backward op does again."""
        self._again = True
        yield
        self._again = False

    def scalar_op(self, weight: int) -> None:
        if self._again:
            self.recompute_vector += weight
        else:
            self.vector += weight

    def multiply_add(self, accumulator: Number, a: Number, b: Number, useful: bool = True) -> Number:
        """``accumulator + a b`` as a contraction counts it: 2, or 8 for complex numbers."""
        x, y = value(a), value(b)
        flops = 8 if isinstance(x, complex) or isinstance(y, complex) else 2
        if self._again:
            self.recompute_matmul += flops
        else:
            self.matmul += flops
            self.useful += flops if useful else 0
        return Scalar(value(accumulator) + x * y, self)


class Scalar:
    """One number whose arithmetic is counted."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("tally", "value")

    def __init__(self, number: Number, tally: Tally) -> None:
        self.value = number
        self.tally = tally

    def _do(self, name: str, f: Callable[..., Number], *operands: Number) -> Scalar:
        values = [value(o) for o in operands]
        weight = _COMPLEX[name] if any(isinstance(v, complex) for v in values) else 1
        self.tally.scalar_op(weight)
        return Scalar(f(*values), self.tally)

    def __add__(self, other: Number) -> Scalar:
        return self._do("add", operator.add, self, other)

    def __radd__(self, other: Number) -> Scalar:
        return self._do("add", operator.add, other, self)

    def __sub__(self, other: Number) -> Scalar:
        return self._do("sub", operator.sub, self, other)

    def __rsub__(self, other: Number) -> Scalar:
        return self._do("sub", operator.sub, other, self)

    def __mul__(self, other: Number) -> Scalar:
        return self._do("mul", operator.mul, self, other)

    def __rmul__(self, other: Number) -> Scalar:
        return self._do("mul", operator.mul, other, self)

    def __truediv__(self, other: Number) -> Scalar:
        return self._do("div", _divide, self, other)

    def __rtruediv__(self, other: Number) -> Scalar:
        return self._do("div", _divide, other, self)

    def __mod__(self, other: Number) -> Scalar:
        return self._do("mod", operator.mod, self, other)

    def __pow__(self, other: Number) -> Scalar:
        return self._do("pow", _power, self, other)

    def __rpow__(self, other: Number) -> Scalar:
        return self._do("pow", _power, other, self)

    def __neg__(self) -> Scalar:
        return self._do("neg", operator.neg, self)

    def __abs__(self) -> Scalar:
        return self._do("abs", abs, self)

    def __invert__(self) -> Scalar:
        return self._do("invert", lambda v: not v if isinstance(v, bool) else ~v, self)

    def __and__(self, other: Number) -> Scalar:
        return self._do("and", operator.and_, self, other)

    def __or__(self, other: Number) -> Scalar:
        return self._do("or", operator.or_, self, other)

    def __xor__(self, other: Number) -> Scalar:
        return self._do("xor", operator.xor, self, other)

    def __lt__(self, other: Number) -> Scalar:
        return self._do("lt", operator.lt, self, other)

    def __le__(self, other: Number) -> Scalar:
        return self._do("le", operator.le, self, other)

    def __gt__(self, other: Number) -> Scalar:
        return self._do("gt", operator.gt, self, other)

    def __ge__(self, other: Number) -> Scalar:
        return self._do("ge", operator.ge, self, other)

    def __eq__(self, other: Number) -> Scalar:  # type: ignore[override]
        return self._do("eq", operator.eq, self, other)

    def __ne__(self, other: Number) -> Scalar:  # type: ignore[override]
        return self._do("ne", operator.ne, self, other)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __index__(self) -> int:
        return int(self.value)

    __int__ = __index__


def value(x: Number) -> Number:
    """The plain number behind a counted one."""
    return x.value if isinstance(x, Scalar) else x


def _divide(a: Number, b: Number) -> Number:
    if b == 0:
        return math.nan if a == 0 else math.copysign(math.inf, a)
    return a / b


def _power(a: Number, b: Number) -> Number:
    result = a**b
    return math.nan if isinstance(result, complex) and not isinstance(a, complex) else result


def _function(f: Callable[..., float]) -> Callable[[Number], Number]:
    """A function of one number: 1 operation on a counted number, none on a constant."""

    def safe(v: float) -> float:
        try:
            return f(v)
        except ValueError:  # outside the domain: torch gives nan, or -inf for the logarithm of 0
            return -math.inf if v == 0 else math.nan

    def apply(x: Number) -> Number:
        return x._do(f.__name__, safe, x) if isinstance(x, Scalar) else safe(x)

    return apply


def _rsqrt(v: float) -> float:
    return 1 / math.sqrt(v)


exp, expm1 = _function(math.exp), _function(math.expm1)
log, log1p, log2 = _function(math.log), _function(math.log1p), _function(math.log2)
sqrt, rsqrt = _function(math.sqrt), _function(_rsqrt)
sin, cos, tanh, erf = _function(math.sin), _function(math.cos), _function(math.tanh), _function(math.erf)
floor, ceil, rint = _function(math.floor), _function(math.ceil), _function(round)


def maximum(a: Number, b: Number) -> Number:
    """The larger of two, 1 operation."""
    counted = a if isinstance(a, Scalar) else b
    return counted._do("max", lambda x, y: x if x >= y else y, a, b)


def minimum(a: Number, b: Number) -> Number:
    """The smaller of two, 1 operation."""
    counted = a if isinstance(a, Scalar) else b
    return counted._do("min", lambda x, y: x if x <= y else y, a, b)


def clamp(x: Number, low: Number, high: Number) -> Number:
    """One comparison per bound."""
    return minimum(maximum(x, low), high)


def select(condition: Number, then: Number, otherwise: Number) -> Number:
    """One of two values already computed: free, as both branches were counted."""
    return then if value(condition) else otherwise


def scaled(x: Number, *factors: float) -> Number:
    """``x`` times scalar arguments, folded into one constant; nothing is multiplied when all of them are 1."""
    return x if all(f == 1 for f in factors) else x * math.prod(factors)


def total(terms: Sequence[Number]) -> Number:
    """A sum: one addition fewer than there are terms; nothing for no terms."""
    return reduce(operator.add, terms) if len(terms) else 0.0


def product(terms: Sequence[Number]) -> Number:
    """A product: one multiplication fewer than there are terms."""
    return reduce(operator.mul, terms) if len(terms) else 1.0


def largest(terms: Iterable[Number]) -> Number:
    """The maximum of at least one term."""
    return reduce(maximum, terms)


def smallest(terms: Iterable[Number]) -> Number:
    """The minimum of at least one term."""
    return reduce(minimum, terms)


def sigmoid(x: Number) -> Number:
    """1 / (1 + e^-x): neg, exp, add, div."""
    return 1 / (1 + exp(-x))
