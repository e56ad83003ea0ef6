"""What is recovered of every mechanism of the zoo, from runs alone, is symbolically what theory says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sympy
import torch

import attnprof
from attnprof import zoo
from attnprof.analytic.registry import find as formula_of

_T, _B, _D = range(12, 129), range(2, 7), range(12, 129)
#: What else varies in the longer test, beside B, T and d: as much as theory has symbols of.
_MORE: dict[str, dict[str, range]] = {
    "block-window": {"H": range(1, 9), "w": range(2, 33)},
    "clustered": {"H": range(1, 9), "C": range(2, 17)},
    "cross-attention": {"H": range(1, 9), "S": range(12, 129)},
    "decode-attention": {"H": range(1, 9), "S": range(12, 129)},
    "decode-cached": {"T": range(2, 13)},
    "decode-layer": {"H": range(1, 9), "S": range(12, 129)},
    "decode-naive": {"T": range(2, 13)},
    "depthwise-conv": {"k": range(1, 9)},
    "depthwise-conv-im2col": {"k": range(1, 9)},
    "diagonal-rnn": {},
    "diagonal-rnn-brent-kung": {},
    "diagonal-rnn-hillis-steele": {},
    "dilated-window": {"H": range(1, 9), "w": range(2, 9), "dilation": range(1, 4)},
    "efficient-attention": {"H": range(1, 9)},
    "ffn": {"f": range(12, 129)},
    "flash": {"H": range(1, 9)},
    "gqa": {"H": range(1, 9), "Hkv": range(1, 9)},
    "gqa-sdpa": {"H": range(1, 9), "Hkv": range(1, 9)},
    "hybrid": {"H": range(1, 9), "w": range(2, 33)},
    "linear": {"H": range(1, 9)},
    "linear-causal": {"chunk": range(4, 65)},
    "lm": {"V": range(12, 129), "L": range(2, 6)},
    "local-atrous": {"k": range(2, 33)},
    "local-window": {"H": range(1, 9), "w": range(2, 33)},
    "longformer": {"w": range(2, 17), "g": range(1, 9)},
    "mha": {"H": range(1, 9)},
    "mha-no-output": {"H": range(1, 9)},
    "mha-sdpa": {"H": range(1, 9)},
    "mla": {"H": range(1, 9), "dr": range(2, 65, 2), "dc": range(4, 65), "dq": range(4, 65)},
    "mla-decode": {"H": range(1, 9), "S": range(12, 129), "dr": range(2, 65, 2), "dc": range(4, 65)},
    "moe": {"E": range(1, 9), "k": range(1, 5), "f": range(12, 65)},
    "mqa": {"H": range(1, 9)},
    "orthogonal": {"H": range(1, 9)},
    "orthogonal-sdpa": {"H": range(1, 9)},
    "performer": {"H": range(1, 9), "r": range(4, 65)},
    "sliding-window": {"w": range(2, 33)},
    "swiglu": {"f": range(12, 129)},
    "synthesizer-dense": {"H": range(1, 9)},
    "synthesizer-random": {"H": range(1, 9)},
    "topk": {"k": range(1, 9)},
    "transformer": {"L": range(2, 6)},
}
#: Values of symbols that do not vary, where the mechanism's own would be too large for small sequences.
_FIXED: dict[str, dict[str, Any]] = {
    "lm": {"H": 4, "L": 2},
    "transformer": {"H": 4},
    "hybrid": {"w": 4},
    "sliding-window": {"w": 4},
    "longformer": {"w": 4},
    "linear-causal": {"chunk": 8},
}
#: The rows that stand for their kind in the quick run.
_QUICK = {"decode-attention", "ffn", "gqa", "linear", "mha", "moe", "performer", "sliding-window", "topk"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_row_is_here() -> None:
    assert set(_MORE) == set(zoo.names())


def assert_same(name: str, sizes: Mapping[str, range], fixed: Mapping[str, Any]) -> None:
    """The recovered matmul FLOPs of forward and backward are theory's: their difference simplifies to 0."""
    both = attnprof.scaling(name, sizes, phase="backward", fixed=fixed, modules=False)
    entry = zoo.find(name)
    known = {**entry.shape, **{s: v for s, v in entry.symbols.items() if v is not None}, **fixed}
    theory_takes = formula_of(name).symbols
    given = {s: v for s, v in known.items() if s not in sizes and s in theory_takes}
    theory = attnprof.predict(name, **given).substituted()
    for found in (both.of("matmul", "forward"), both):
        whole = within(theory.total("matmul_flops", found.phase), sizes)
        for piece in found.formula.pieces:
            difference = piece.expression - where(piece.condition, whole)
            assert sympy.simplify(sympy.expand(difference)) == 0, (found.phase, piece)
        assert found.held_out >= 4


def within(expression: sympy.Expr, sizes: Mapping[str, range]) -> sympy.Expr:
    """Theory for sizes that vary like this: min(T, 8) is 8 where T is at least 12."""

    def ends(arg: sympy.Expr) -> tuple[int, int]:
        if arg.is_Integer:
            return int(arg), int(arg)
        given = sizes.get(str(arg), range(1, 10**9))
        return given[0], given[-1]

    def least(*args: sympy.Expr) -> sympy.Expr:
        always = [arg for arg in args if all(ends(arg)[1] <= ends(other)[0] for other in args if other != arg)]
        return always[0] if always else sympy.Min(*args)

    return expression.replace(sympy.Min, least)


def where(condition: Any, expression: sympy.Expr) -> sympy.Expr:
    """Theory where a piece holds: min(T, chunk) is T where T <= chunk."""
    known = {}
    for part in sympy.And.make_args(condition):
        if isinstance(part, sympy.Le | sympy.Gt):
            known[sympy.Min(*part.args)] = part.lhs if isinstance(part, sympy.Le) else part.rhs
    return expression.xreplace(known)


def shaped(name: str, sizes: Mapping[str, range]) -> dict[str, range]:
    """Those of B, T and d that the mechanism has; T is 1 in a step of decoding."""
    entry = zoo.find(name)
    own = {"B": _B, "T": _T, "d": _D, **sizes}
    return {s: v for s, v in own.items() if not (s == "T" and entry.shape.get("T") == 1)}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in _QUICK)) for n in sorted(_MORE)])
def test_what_grows_with_length_and_width(name: str) -> None:
    sizes = {s: v for s, v in shaped(name, {"T": _MORE[name].get("T", _T)}).items() if s != "B"}
    if "S" in _MORE[name] and "T" not in sizes:
        sizes["S"] = _MORE[name]["S"]
    assert_same(name, sizes, _FIXED.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(_MORE))
def test_every_symbol_at_once(name: str) -> None:
    sizes = shaped(name, _MORE[name])
    assert_same(name, sizes, {s: v for s, v in _FIXED.get(name, {}).items() if s not in sizes})
