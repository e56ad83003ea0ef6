"""Assertions that compare a number of a report: what the number is, in units, and the modules it went to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attnprof.analysis.budget import hold
from attnprof.analysis.report import Report
from attnprof.core.amounts import Amount
from attnprof.core.budget import PHASES, Budget
from attnprof.core.cost import Cost
from attnprof.core.errors import AttnprofError
from attnprof.core.module_names import fold
from attnprof.core.units import Units
from attnprof.reports import budget as text

_QUANTITIES = {
    "flops": "flops",
    "matmul_flops": "flops",
    "vector_flops": "flops",
    "bytes": "bytes",
    "read_bytes": "bytes",
    "write_bytes": "bytes",
}
#: Numbers below this may be equal to one of a report by chance.
_LEAST = 100


def explained(
    op: str, left: int | float, right: int | float, reports: Sequence[Callable[[], Report]]
) -> list[str] | None:
    """``4.61 GFLOP <= 4.2 GFLOP`` and the most expensive modules.

    The first line alone where no report has the number and it is compared with an amount; None for other numbers.
    """
    for made in reversed(reports):
        try:
            report = made()
        except AttnprofError:  # a context that was not entered
            continue
        for number in (left, right):
            if isinstance(number, Amount | float) or number < _LEAST:
                continue
            if memory := _memory(report, number):
                told = f"{_shown(left, 'bytes')} {op} {_shown(right, 'bytes')}"
                return [told, f"memory, {memory.kind}:", *text.parts(hold(report, memory))]
            found = list(_named(report, number))
            if found:
                (name, attribute, scope), *others = found
                quantity = _QUANTITIES[attribute]
                alike = [scope["module"]] if "module" in scope else []
                alike += [other["module"] for _, same, other in others if same == attribute and "module" in other]
                if alike and "module" in scope:
                    name = f"by_module() of {', '.join(fold(alike))}"
                told = f"{_shown(left, quantity)} {op} {_shown(right, quantity)}"
                lines = text.parts(hold(report, Budget(quantity, 0, **scope)))
                return [told, f"{name}, {attribute}; the most expensive modules, each without those in it:", *lines]
    for number in (left, right):
        if isinstance(number, Amount):
            return [f"{_shown(left, number.kind)} {op} {_shown(right, number.kind)}"]
    return None


def _named(report: Report, number: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    """What in a report has this value: in words, its quantity, and the phase or module it is of."""
    places: list[tuple[str, Cost, dict[str, str]]] = [("total", report.total, {})]
    places += [(f"phases[{phase!r}]", report.phases[phase], {"phase": phase}) for phase in PHASES]
    places += [(f"by_module()[{fqn!r}]", cost, {"module": fqn}) for fqn, cost in report.by_module().items() if fqn]
    for name, cost, scope in places:
        for attribute in _QUANTITIES:
            if getattr(cost, attribute) == number:
                yield name, attribute, scope


def _memory(report: Report, number: int) -> Budget | None:
    """The kind of memory that has this value, as a budget of none."""
    memory = report.memory
    known = {} if memory is None else {"peak": memory.peak.bytes, "saved": memory.saved_bytes}
    return next((Budget("memory_bytes", 0, kind=kind) for kind, value in known.items() if value == number), None)


def _shown(number: int | float, quantity: str) -> str:
    if isinstance(number, Amount):
        return number.text
    if isinstance(number, float) and not number.is_integer():
        return str(number)
    return Units().named(int(number), text.kind_of(quantity))
