"""Predictions written down: a table for people, LaTeX for papers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection
from typing import Any

import sympy
from sympy import And, Expr, Or, false, true
from sympy.printing.str import StrPrinter

from attnprof.analytic.growth import leading
from attnprof.analytic.prediction import KINDS, PHASES, Kind, Phase, Prediction, Quantity, Term
from attnprof.core.latex_symbols import between_factors, symbol_in_latex
from attnprof.core.units import Kind as Unit
from attnprof.core.units import Units

#: What LaTeX reads as something else.
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "_%&#${}"},
}
#: Symbols as papers write them.
_NAMES = {name: f"{name[0]}_{{{name[1:]}}}" for name in ("Bc", "Br", "Hkv", "dc", "dh", "dq", "dr")}
#: What a quantity is called, and what kind of number it is.
TITLES: dict[Quantity, tuple[str, Unit]] = {
    "matmul_flops": ("matmul FLOPs", "matmul"),
    "useful_matmul_flops": ("useful matmul FLOPs", "matmul"),
    "vector_flops": ("vector FLOPs", "flops"),
    "read_bytes": ("bytes read", "bytes"),
    "write_bytes": ("bytes written", "bytes"),
    "saved_bytes": ("bytes saved for the backward", "bytes"),
    "parameters": ("parameters", "count"),
    "trainable_parameters": ("trainable parameters", "count"),
    "active_parameters": ("parameters that a token meets", "count"),
    "kv_cache_bytes": ("bytes of KV cache", "bytes"),
    "parameter_bytes": ("bytes of parameters", "bytes"),
    "gradient_bytes": ("bytes of gradients", "bytes"),
    "optimizer_bytes": ("bytes of optimizer state", "bytes"),
}
_DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class _Printer(StrPrinter):  # type: ignore[misc]  # sympy has no types
    """Functions and cases as people write them: ``ceil(T/w)``, ``(T if w=1 else 0)``."""

    def _print_ceiling(self, function: Any) -> str:
        return f"ceil({self.stringify(function.args, ', ')})"

    def _print_Min(self, function: Any) -> str:  # noqa: N802 - the name sympy asks for
        return f"min({self.stringify(sorted(function.args, key=str), ', ')})"

    def _print_Max(self, function: Any) -> str:  # noqa: N802
        return f"max({self.stringify(sorted(function.args, key=str), ', ')})"

    def _print_Piecewise(self, cases: Any) -> str:  # noqa: N802
        text = ""
        for expression, condition in cases.args:
            text += str(self._print(expression))
            text += "" if condition is true else f" if {self._print(condition)} else "
        return f"({text})"

    def _print_CeilLog2(self, function: Any) -> str:  # noqa: N802
        return f"ceil(log2({self._print(function.args[0])}))"

    def _print_FloorLog2(self, function: Any) -> str:  # noqa: N802
        return f"floor(log2({self._print(function.args[0])}))"

    def _print_BitCount(self, function: Any) -> str:  # noqa: N802
        return f"ones({self._print(function.args[0])})"

    def _print_Mod(self, remainder: Any) -> str:  # noqa: N802
        return " mod ".join(map(self._print, remainder.args))

    def _print_Relational(self, relation: Any) -> str:  # noqa: N802
        sign = {"==": "=", "!=": "≠", "<=": "≤", ">=": "≥"}.get(relation.rel_op, relation.rel_op)
        return f"{self._print(relation.lhs)}{sign}{self._print(relation.rhs)}"

    def _print_And(self, condition: Any) -> str:  # noqa: N802
        return " and ".join(sorted(self._grouped(arg) for arg in condition.args))

    def _print_Or(self, condition: Any) -> str:  # noqa: N802
        return " or ".join(sorted(self._grouped(arg) for arg in condition.args))

    def _grouped(self, condition: Any) -> str:
        return f"({self._print(condition)})" if isinstance(condition, And | Or) else str(self._print(condition))


def plain(expression: Expr) -> str:
    """An expression on one line: ``2·B·T·d²``."""
    text = re.sub(r"\*\*(\d+)", lambda m: m[1].translate(_DIGITS), str(_Printer().doprint(expression)))
    return text.replace("**", "^").replace("*", "·")


def table(
    prediction: Prediction, quantities: Collection[Quantity] | None = None, width: int = 120, units: Units | None = None
) -> str:
    """One block per quantity and phase: the terms, their sum, and how it grows."""
    known = " ".join(f"{name}={value}" for name, value in prediction.values.items())
    lines = textwrap.wrap(f"{prediction.name} · {known}" if known else prediction.name, width, subsequent_indent="  ")
    for quantity in prediction.quantities:
        if quantities is None or quantity in quantities:
            for phase in _known(prediction, quantity):
                lines += ["", *_block(prediction, quantity, phase, width, units or Units())]
    if quantities is None:
        for sentence in _limits(prediction):
            lines += ["", *textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)]
    return "\n".join(line.rstrip() for line in lines)


def _known(prediction: Prediction, quantity: Quantity) -> list[Phase]:
    """The phases of a quantity that has a closed form at these sizes."""
    kind = next((kind for kind, quantities in KINDS.items() if quantity in quantities), None)
    return [p for p in prediction.phases(quantity) if kind is None or prediction.work(kind, p) is not None]


def _limits(prediction: Prediction) -> list[str]:
    """What has no closed form, of the phases that are there, and for which sizes the rest holds."""
    phases = (
        [phase for phase in PHASES if any(t.phase == phase for t in prediction.terms)] if prediction.complete else []
    )
    found = []
    named: dict[Kind, str] = {"vector": "vector FLOPs", "traffic": "traffic"}
    for kind, name in named.items():
        condition = prediction.holds.get(kind, true)
        if prediction.condition(kind) is false:
            found.append(f"No closed form of {name} at these sizes: it holds for {_Printer().doprint(condition)}.")
            continue
        missing = [phase for phase in phases if prediction.work(kind, phase) is None]
        if missing:
            where = "" if missing == phases else f" in the {' and '.join(missing)}"
            found.append(f"No closed form of {name}{where}.")
        if missing != phases and prediction.condition(kind) is not true:
            found.append(f"The {name} holds for {_Printer().doprint(condition)}.")
    return found


def _block(prediction: Prediction, quantity: Quantity, phase: Phase, width: int, units: Units) -> list[str]:
    terms = [t for t in prediction.terms if (t.quantity, t.phase) == (quantity, phase)]
    kind = TITLES[quantity][1]
    rows = [(t.name, t.expression) for t in terms]
    total = prediction.total(quantity, phase)
    if len(terms) > 1:
        rows.append(("total", total))
    if _has_useful(quantity, terms):
        rows.append(("of it useful", prediction.total("useful_matmul_flops", phase)))
    header, cells = _values(prediction, [expression for _, expression in rows], kind, units)
    label = _label(quantity, phase)
    longest = max(len(label), *(len(name) + 2 for name, _ in rows))
    lines = [f"{label:<{longest}}  {header}"] if cells else [label]
    for index, (name, expression) in enumerate(rows):
        start = f"  {name:<{longest - 2}}" + (f"  {cells[index]}" if cells else "")
        lines += _beside(start, plain(expression), width)
    if total.free_symbols:
        lines += textwrap.wrap(
            f"O({plain(leading(total))})", width, initial_indent="  ", subsequent_indent="    ", break_long_words=False
        )
    return lines


def _values(prediction: Prediction, expressions: list[Expr], kind: Unit, units: Units) -> tuple[str, list[str]]:
    """The unit and the values of a column; none when a symbol has no value."""
    if any(s.name not in prediction.values for x in expressions for s in x.free_symbols):
        return "", []
    unit, cells = units.column([prediction.value(x) for x in expressions], kind)
    wide = max(len(unit), *map(len, cells))
    return unit.rjust(wide), [cell.rjust(wide) for cell in cells]


def _beside(start: str, formula: str, width: int) -> list[str]:
    """A formula beside its name and value, further lines below its beginning, or below it all on a narrow screen."""
    room = width - len(start) - 2
    if room < max(map(len, formula.split())):
        below = textwrap.wrap(formula, max(width - 4, 20), break_long_words=False, break_on_hyphens=False)
        return [start, *(f"    {line}" for line in below)]
    first, *more = textwrap.wrap(formula, room, break_long_words=False, break_on_hyphens=False)
    return [f"{start}  {first}", *(" " * (len(start) + 2) + line for line in more)]


def latex(prediction: Prediction, quantities: Collection[Quantity] | None = None) -> str:
    """One ``align*`` per quantity and phase: a line per term, the sum, what of it is useful, and the growth."""
    blocks = []
    for quantity in prediction.quantities:
        if quantities is not None and quantity not in quantities:
            continue
        for phase in _known(prediction, quantity):
            terms = [t for t in prediction.terms if (t.quantity, t.phase) == (quantity, phase)]
            label = _label(quantity, phase)
            useful = prediction.total("useful_matmul_flops", phase) if _has_useful(quantity, terms) else None
            blocks.append(_align(label, terms, prediction.total(quantity, phase), useful))
    return "\n".join(blocks)


def _align(label: str, terms: list[Term], total: Expr, useful: Expr | None) -> str:
    lines = [rf"\text{{{_escaped(t.name)}}} &= {_latex(t.expression)}" for t in terms]
    lines.append(rf"\text{{total}} &= {_latex(total)}")
    if useful is not None:
        lines.append(rf"\text{{of it useful}} &= {_latex(useful)}")
    if total.free_symbols:
        lines.append(rf"&\in \mathcal{{O}}\left({_latex(leading(total))}\right)")
    return "\n".join((f"% {label}", r"\begin{align*}", " \\\\\n".join(f"  {line}" for line in lines), r"\end{align*}"))


def _latex(expression: Expr) -> str:
    """Symbols of several letters as one: H_{kv}, d_h as papers write them, others upright."""
    names = {s: _NAMES.get(s.name) or symbol_in_latex(s.name) for s in expression.free_symbols}
    space = between_factors(s.name for s in names if s.name not in _NAMES)
    return str(sympy.latex(expression, symbol_names=names, mul_symbol=space))


def _label(quantity: Quantity, phase: Phase) -> str:
    """What a block is of; what is kept or held is of no phase."""
    title = TITLES[quantity][0]
    return f"{title}, {phase}" if any(quantity in quantities for quantities in KINDS.values()) else title


def _has_useful(quantity: Quantity, terms: list[Term]) -> bool:
    return quantity == "matmul_flops" and any(t.useful is not None for t in terms)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
