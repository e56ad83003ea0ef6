"""The end of docs/zoo.md: vector FLOPs and traffic of every mechanism, as measured, and what theory leaves over."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree

import attnprof
from attnprof import analytic, zoo
from attnprof.analysis.report import Report
from attnprof.analytic.prediction import KINDS, Kind, Phase

_INTRODUCTION = """## Vector FLOPs and traffic

At the sizes above with two samples, inputs that need a gradient, and recomputation with the backward: whole numbers as
measured, and what is left of them after theory. Traffic is that of each op alone, read and written. Where theory has
conditions on sizes (heads, positions and widths of one need fewer copies), `attnprof predict` says them. One thing no
size tells: the sum of a bias's gradient over the rows of an expert that no token chose, `aten.sum` of none, has no
addition to save."""
_PHASES: tuple[tuple[Phase, ...], ...] = (("forward",), ("backward", "recompute"))
_NAMES: dict[Kind, str] = {"matmul": "matmul FLOPs", "vector": "vector FLOPs", "traffic": "traffic"}


def section() -> str:
    """A table of all mechanisms, one row each."""
    rows = [
        "| | vector, forward | vector, backward | bytes, forward | bytes, backward | residual |",
        "|---|--:|--:|--:|--:|---|",
    ]
    kinds: tuple[Kind, ...] = ("vector", "traffic")
    for name in zoo.names():
        symbols = _symbols(name)
        report = _measured(name, symbols)
        formula = analytic.find(name)
        known = (*formula.symbols, *(("H", "L") if formula.passes_on else ()))
        theory = analytic.predict(name, **{s: v for s, v in symbols.items() if s in known})
        cells = [_inside(report, kind, phases) for kind in kinds for phases in _PHASES]
        rows.append(f"| `{name}` | {' | '.join(f'{cell:,}' for cell in cells)} | {_residual(report, theory)} |")
    return f"{_INTRODUCTION}\n\n" + "\n".join(rows)


def _symbols(name: str) -> dict[str, Any]:
    entry = zoo.find(name)
    parts = {"H": 4, "L": 2} if entry.passes_on else {}
    given = {s: v for s, v in entry.symbols.items() if v is not None}
    return {**given, **parts, **entry.shape, "B": 2}


def _measured(name: str, symbols: dict[str, Any]) -> Report:
    torch.manual_seed(0)
    entry = zoo.find(name)
    net = zoo.build(name, **{s: v for s, v in symbols.items() if s not in entry.shape})
    args = zoo.inputs(name, **symbols)
    for tensor in _pytree.tree_leaves(args):
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            tensor.requires_grad_()
    return attnprof.run(net, args, backward=True, strict=True)


def _inside(report: Report, kind: Kind, phases: tuple[Phase, ...]) -> int:
    """Without the layout that autograd gives the gradient of an input."""
    outside = report.root.find("(outside)")
    return sum(
        getattr(report.phases[phase], quantity) - getattr(outside.own(phase), quantity)
        for phase in phases
        for quantity in KINDS[kind]
    )


def _residual(report: Report, theory: analytic.Prediction) -> str:
    """Zero, or what it is; and what has no closed form."""
    found = []
    phases = [phase for group in _PHASES for phase in group]
    for kind in KINDS:
        unknown = [phase for phase in phases if theory.work(kind, phase) is None]
        for phase in phases:
            if phase not in unknown:
                predicted = sum(theory.evaluate(quantity, phase) for quantity in KINDS[kind])
                left = _inside(report, kind, (phase,)) - predicted
                found += [f"{left:,} {_NAMES[kind]}, {phase}"] if left else []
        if unknown:
            where = "" if len(unknown) == len(phases) else f" in the {' and '.join(unknown)}"
            found.append(f"no closed form of {_NAMES[kind]}{where}")
    return "; ".join(found) or "0"
