"""Scalar arithmetic, spelled out: a definition is a row of words, its price the sum of the words' prices.

``flops("neg exp add div")`` is the price of a sigmoid. A word is 1 for real, integer and bool operands. A
complex operand costs the real operations of the word's definition, z = a + bi:
"""

from __future__ import annotations

from functools import lru_cache

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta

#: Real operations of each word on complex operands.
COMPLEX = {
    "add": 2,  # both parts; so sub, neg
    "sub": 2,
    "neg": 2,
    "shift": 1,  # plus a real number: one part
    "mul": 6,  # 4 products, 2 sums
    "scale": 2,  # times or over a real number: both parts
    "div": 11,  # z conj(w) 6, |w|^2 3, both parts divided 2
    "reciprocal": 6,  # |z|^2 3, a / |z|^2, -b / |z|^2
    "square": 3,  # |z|^2 = a a + b b
    "abs": 4,  # |z|^2 3, sqrt
    "eq": 3,  # both parts compared, and
    "exp": 5,  # e^a, cos b, sin b, 2 products
    "log": 6,  # |z| 4, log, atan2
    "sqrt": 9,  # |z| 4; re = sqrt((|z| + a) / 2) 3; im = b / (2 re) 2
    "rsqrt": 15,  # sqrt 9, reciprocal 6
    "sgn": 6,  # z / |z|: 4 + 2
    "conj": 1,  # the imaginary part negated
    "angle": 1,  # atan2
    "pow": 17,  # exp(w log z): 6 + 6 + 5
    "sin": 6,  # sin a cosh b, cos a sinh b: 4 functions, 2 products
    "cos": 7,  # cos a cosh b, -sin a sinh b
    "sinh": 6,
    "cosh": 6,
    "tan": 20,  # sin and cos share 4 functions, 2 and 3 for their products, 11 to divide
    "tanh": 19,
    "asin": 27,  # -i log(iz + sqrt(1 - z^2)): 6 + 2 + 9 + 1 + 2 + 6 + 1
    "acos": 29,  # pi/2 - asin z: 27 + 1 + 1
    "asinh": 24,  # log(z + sqrt(z^2 + 1)): 6 + 1 + 9 + 2 + 6
    "acosh": 34,  # log(z + sqrt(z + 1) sqrt(z - 1)): 1 + 1 + 9 + 9 + 6 + 2 + 6
    "atanh": 19,  # (log(1 + z) - log(1 - z)) / 2: 1 + 2 + 6 + 6 + 2 + 2
    "atan": 21,  # -i atanh(iz): 1 + 19 + 1
}


@lru_cache
def flops(words: str, is_complex: bool = False) -> int:
    """Scalar operations of a definition, ``"neg exp add div"``; ``"2*mul"`` is two of a word."""
    total = 0
    for word in words.split():
        count, _, name = word.rpartition("*")
        total += int(count or 1) * (COMPLEX.get(name, 1) if is_complex else 1)
    return total


def elements(tensor: TensorMeta) -> int:
    """The elements an op works on: of a sparse tensor its stored entries."""
    return tensor.numel if tensor.nnz is None else tensor.nnz


def is_complex(op: OpSignature) -> bool:
    """Whether some operand or result is complex."""
    return any(t.is_complex for t in (*op.outs, *op.inputs))
